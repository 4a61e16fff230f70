#!/bin/bash
# A fresh clone runs with nothing but ansible-core, and so does the built tarball installed elsewhere; both are tried as
# a normal user with the local inventory. The wish cannot be met here (nothing listens at the endpoint), so the plan
# falls back to the catalogue and refuses: what is asserted is that the collection is found and speaks.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"

as_user() { # runs a command as a user without rights when we are root
  if [ "$(id -u)" -eq 0 ]; then
    # The account's own home does not exist.
    setpriv --reuid=65534 --regid=65534 --clear-groups env HOME="$work/home" ANSIBLE_REMOTE_TEMP="$work/home/tmp" "$@"
  else
    env HOME="$work/home" "$@"
  fi
}

python3 -m venv "$work/core"
requirement=$(grep '^ansible-core' requirements-dev.txt)
"$work/core/bin/python" -m pip install --quiet --disable-pip-version-check "$requirement"
mkdir "$work/home"

# What a clone of this state would hold, links included.
mkdir "$work/clone"
git ls-files -z --cached --others --exclude-standard | tar --create --null --files-from=- | tar --extract --directory "$work/clone"
[ "$(id -u)" -ne 0 ] || chown -R 65534:65534 "$work/home" "$work/clone"

expect_refusal() { # name, command ...
  local name=$1 log="$work/$1.log"
  shift
  if (cd "$work/clone" && as_user env -u ANSIBLE_COLLECTIONS_PATH "$@" -e llama_plan_endpoint=http://127.0.0.1:9 > "$log" 2>&1); then
    echo "package: $name: the plan accepted a model of 381 GB on this machine" >&2
    exit 1
  fi
  grep -q 'kimi-k2-instruct UD-Q2_K_XL is refused on' "$log" || { cat "$log"; echo "package: $name: no refusal was told" >&2; exit 1; }
  echo "package: $name: found, planned, refused as it must"
}

expect_refusal clone "$work/core/bin/ansible-playbook" playbooks/plan.yml

ansible-galaxy collection build --force --output-path "$work/dist" . > /dev/null
cd "$work"
as_user env -u ANSIBLE_COLLECTIONS_PATH "$work/core/bin/ansible-galaxy" collection install "$work"/dist/*.tar.gz > /dev/null
rm -rf "$work/clone/.collections" "$work/clone/ansible.cfg" # nothing of the clone may help
expect_refusal tarball "$work/core/bin/ansible-playbook" onprem.llamacpp.plan -i "$work/clone/inventories/local"
