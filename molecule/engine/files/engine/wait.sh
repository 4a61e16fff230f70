while [ -e /srv/wait ]; do sleep 1; done
