# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Packages of NVIDIA's repository as far as a lab can have one: branch, lock, mirror, key, and what may be wrong with them."""

from __future__ import annotations

import json
from typing import Any

import pytest

DRIVER = "nvidia-driver-cuda"
VERSION = "dpkg-query -W -f '${Version}' nvidia-driver-cuda"
PACKAGES = "dpkg-query -W -f '${Package} ${Version} ${db:Status-Abbrev}\\n' | sort"


def settings(keys: dict[str, str], **more: Any) -> str:
    return json.dumps({"nvidia_driver_key_fingerprints": [keys["good"]], **more})


def test_refused(play: Any, on_host: Any, keys: dict[str, str]) -> None:
    """Each refusal leaves the packages as they were, and the package manager able to work."""
    host = on_host("served")
    before = host.check_output(PACKAGES)
    url = "http://10.86.0.10"
    for wish, told in (
        ({"nvidia_driver_key_fingerprints": ["0" * 40]}, f"has the fingerprint {keys['good']}, but {'0' * 40} is expected"),
        ({"nvidia_driver_repository_url": f"{url}/forged"}, "is signed with another key than the one that is installed for it"),
        (
            {"nvidia_driver_repository_url": f"{url}/none"},
            f"{url}/none/debian12/x86_64 is not there (404)",
        ),
        ({"nvidia_driver_repository_url": "http://10.86.0.99/cuda"}, "10.86.0.99/cuda"),
        ({"nvidia_driver_branch": "570"}, f"The package {DRIVER} of the branch 570 is missing: on offer: 580.95.05, 580.126.09, 590.48.01"),
        ({"nvidia_driver_version": "580.1.1"}, "of the 580.1.1 is missing"),
        ({"nvidia_driver_branch": "newest"}, "nvidia_driver_branch is 'newest'"),
        ({"nvidia_driver_modules": "proprietary", "nvidia_driver_source": "runfile"}, "value of nvidia_driver_source must be one of"),
        ({"nvidia_driver_container": "leave"}, "The NVIDIA driver is left alone: install the NVIDIA driver on the machine"),
    ):
        run = play("--limit", "served", "-e", settings(keys, **wish))
        assert told in run.text, f"{wish}: {run.output[-2000:]}"
        assert (run.status == 0) == ("nvidia_driver_container" in wish)
        assert host.check_output(PACKAGES) == before
        host.check_output('apt-get update -qq && test -z "$(dpkg --audit)"')


def test_locked_by_another_program(play: Any, on_host: Any, keys: dict[str, str]) -> None:
    host = on_host("served")
    program = "import fcntl,time;f=open('/var/lib/apt/lists/lock','w');fcntl.lockf(f,fcntl.LOCK_EX);time.sleep(600)"
    host.check_output(f'systemd-run --unit=lab-upgrades python3 -c "{program}"')
    try:
        run = play("--limit", "served", "-e", settings(keys, nvidia_driver_package_timeout=3))
        assert run.status != 0
        assert "The package manager stayed locked for longer than nvidia_driver_package_timeout" in run.text
    finally:
        host.check_output("systemctl stop lab-upgrades")


def test_check_mode_changes_nothing(play: Any, on_host: Any, keys: dict[str, str]) -> None:
    host = on_host("served")
    before = host.check_output(PACKAGES)
    run = play("--limit", "served", "--check", "-e", settings(keys))
    assert run.status == 0
    assert "Would install the NVIDIA driver (nvidia, branch 580, open modules for 6.1.0-99-lab)" in run.text
    assert host.check_output(PACKAGES) == before


@pytest.mark.parametrize(
    ("wish", "version"),
    [
        pytest.param({"nvidia_driver_version": "580.95.05"}, "580.95.05-1", id="exact version"),
        pytest.param({}, "580.126.09-1", id="newest of the branch"),
        pytest.param({"nvidia_driver_branch": "590"}, "590.48.01-1", id="another branch"),
        pytest.param({"nvidia_driver_version": "580.95.05"}, "580.95.05-1", id="back"),
    ],
)
def test_installed_and_kept(play: Any, on_host: Any, keys: dict[str, str], wish: dict[str, str], version: str) -> None:
    host = on_host("served")
    run = play("--limit", "served", "-e", settings(keys, **wish))
    assert run.status == 0, run.output[-3000:]
    assert "nvidia-smi lists no device; on the bus: 0000:10:00.0" in run.text
    assert host.check_output(VERSION) == version
    # Newer ones are on offer, and stay out; so do older ones.
    assert "nvidia" not in host.check_output("apt-get -s dist-upgrade | grep ^Inst || true")
    assert host.check_output("cat /etc/modules-load.d/llamacpp-nvidia.conf").endswith("nvidia\nnvidia-uvm")
    assert host.service("nvidia-persistenced").is_enabled
    again = play("--limit", "served", "-e", settings(keys, **wish))
    assert again.stats["served"]["changed"] == 0
    assert "is installed and kept; a container cannot load it" in again.text


def test_held_package_is_respected(play: Any, on_host: Any, keys: dict[str, str]) -> None:
    host = on_host("served")
    host.check_output(f"apt-mark hold {DRIVER}")
    try:
        run = play("--limit", "served", "-e", settings(keys, nvidia_driver_branch="590"))
        assert run.status != 0
        assert f"{DRIVER} is held at 580.95.05-1, and 590.48.01-1 is wanted" in run.text
        assert host.check_output(VERSION) == "580.95.05-1"
    finally:
        host.check_output(f"apt-mark unhold {DRIVER}")
