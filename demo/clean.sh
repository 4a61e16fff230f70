#!/bin/bash
# Removes the demo's hosts and everything that was made for them; cached images and models stay in $ONPREM_LLAMACPP_CACHE.
set -euo pipefail
cd "$(dirname "$0")/.."
ansible-playbook -i demo/inventory.yml -i tests/lab/inventory tests/lab/destroy.yml > build/demo-clean.log || { tail -30 build/demo-clean.log; exit 1; }
rm -rf build/demo
echo "The demo's hosts are gone. Cached images and models are in $ONPREM_LLAMACPP_CACHE."
