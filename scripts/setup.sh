#!/bin/sh
# Installs what development, the tests and the demo need: Debian packages, and a virtual environment in .venv.
# Says what it does; does nothing the second time. SETUP_LAB=0 leaves out what only the lab needs,
# SETUP_BROWSER=0 what only the tests of pages need.
set -eu
cd "$(dirname "$0")/.."

say() { printf '%s\n' "setup: $*"; }
fail() { say "$*" >&2; exit 1; }

sudo=""
if [ "$(id -u)" -ne 0 ]; then
  sudo="sudo"
  command -v sudo > /dev/null || fail "run this as root, or install sudo"
fi

retry() {
  for pause in 5 20 60 0; do
    "$@" && return 0
    [ "$pause" -eq 0 ] || { say "failed, trying again in $pause s: $*"; sleep "$pause"; }
  done
  return 1
}

packages="git openssh-client openssl python3-venv shellcheck"
if [ "${SETUP_LAB:-1}" = 1 ]; then
  packages="$packages binutils cmake curl g++ iproute2 iptables mmdebstrap nftables ninja-build systemd-container"
fi
if [ "${SETUP_BROWSER:-1}" = 1 ]; then
  packages="$packages chromium chromium-driver"
fi
missing=""
for package in $packages; do
  dpkg-query -W -f='${db:Status-Status}' "$package" 2> /dev/null | grep -qx installed || missing="$missing $package"
done
if [ -n "$missing" ]; then
  command -v apt-get > /dev/null || fail "these Debian packages are needed and apt-get is not here:$missing"
  say "installing Debian packages${sudo:+ with sudo}:$missing"
  retry $sudo apt-get -q -o DPkg::Lock::Timeout=300 update > /dev/null || fail "apt-get update failed"
  # shellcheck disable=SC2086
  retry $sudo env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 --no-install-recommends install $missing > /dev/null \
    || fail "apt-get could not install:$missing"
fi

want=$(sha256sum requirements.txt requirements-dev.txt | sha256sum | cut -c1-16)
if [ "$(cat .venv/requirements.stamp 2> /dev/null)" != "$want" ]; then
  python=${PYTHON:-/usr/bin/python3}
  say "making the virtual environment .venv with $("$python" --version)"
  [ -x .venv/bin/python ] || "$python" -m venv .venv
  retry .venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-dev.txt \
    || fail "pip could not install the requirements"
  printf '%s' "$want" > .venv/requirements.stamp
fi
