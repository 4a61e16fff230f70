# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Packages of NVIDIA's repository as far as a lab can have one: branch, lock, mirror, key, and what may be wrong with them."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import plays
import pytest
from conftest import PACKAGES

DRIVER = "nvidia-driver-cuda"
OFFERED = "575.57.08, 580.95.05, 580.126.09, 590.48.01"
VERSION = "dpkg-query -W -f '${Version}' nvidia-driver-cuda"
RECORD = "cat /var/lib/llamacpp/driver.json"


def settings(keys: dict[str, str], **more: Any) -> str:
    return json.dumps({"nvidia_driver_key_fingerprints": [keys["good"]], **more})


def add_kernel(host: Any, release: str) -> None:
    host.check_output(f"mkdir -p /lib/modules/{release} && touch /boot/vmlinuz-{release}")


def test_refused(play: Any, on_host: Any, keys: dict[str, str]) -> None:
    """Each refusal leaves the packages as they were, and the package manager able to work."""
    host = on_host("served")
    before = host.check_output(PACKAGES)
    url = "http://10.86.0.10"
    for wish, told in (
        ({"nvidia_driver_key_fingerprints": ["0" * 40]}, f"has the fingerprint {keys['good']}, but {'0' * 40} is expected"),
        ({"nvidia_driver_repository_url": "http://10.86.0.99/cuda"}, "cannot be fetched from http://10.86.0.99/cuda"),
        ({"nvidia_driver_repository_url": f"{url}/forged"}, "is signed with another key than the one that is installed for it"),
        # The key is known by now, so the lists are what is missing.
        ({"nvidia_driver_repository_url": f"{url}/none"}, f"{url}/none/debian12/x86_64 is not there (404)"),
        (
            {"nvidia_driver_branch": "570"},
            f"The package {DRIVER} of the branch 570 is missing: on offer: 575.57.08, 580.95.05, 580.126.09, 590.48.01",
        ),
    ):
        run = play("--limit", "served", "-e", settings(keys, **wish))
        assert run.status != 0
        assert told in run.text, f"{wish}: {run.output[-2000:]}"
        assert host.check_output(PACKAGES) == before
        host.check_output('apt-get update -qq && test -z "$(dpkg --audit)"')


# Installs a package of somebody else's whenever apt is about to install something, as unattended upgrades may meanwhile.
MEANWHILE = """
set -e
mkdir -p /tmp/site/DEBIAN
printf '%s\\n' 'Package: site-tools' 'Version: 1' 'Architecture: all' 'Maintainer: Lab' 'Description: x' > /tmp/site/DEBIAN/control
dpkg-deb --build --root-owner-group /tmp/site /tmp/site.deb
echo 'DPkg::Pre-Invoke { "DPKG_FRONTEND_LOCKED=1 dpkg --install /tmp/site.deb"; };' > /etc/apt/apt.conf.d/99lab
"""


def test_a_kernel_that_comes_along_is_taken_back(play: Any, on_host: Any, keys: dict[str, str]) -> None:
    """What another program installs meanwhile stays."""
    host = on_host("served")
    before = host.check_output(PACKAGES)
    host.check_output(MEANWHILE)
    try:
        run = play("--limit", "served", "-e", settings(keys, nvidia_driver_branch="575"))
    finally:
        host.check_output("rm /etc/apt/apt.conf.d/99lab")
    assert run.status != 0
    told = "have brought or taken a kernel: 6.1.0-99-lab before, 6.1.0-99-lab, 6.1.0-200-lab after"
    assert told in run.text, run.output[-3000:]
    assert host.package("site-tools").is_installed
    host.check_output("dpkg --purge site-tools")
    assert host.check_output(PACKAGES) == before
    assert host.check_output("ls /boot && ls /lib/modules").split() == ["vmlinuz-6.1.0-99-lab", "6.1.0-99-lab"]


def test_the_source_that_the_host_has_is_left_alone(play: Any, on_host: Any, keys: dict[str, str]) -> None:
    """As NVIDIA's package cuda-keyring writes it; no key is asked for, and the repository is not there twice."""
    host = on_host("served")
    source, key = "/etc/apt/sources.list.d/cuda-debian12-x86_64.list", "/usr/share/keyrings/cuda-archive-keyring.asc"
    url = "http://10.86.0.10/cuda/debian12/x86_64"
    host.check_output(f"/usr/lib/apt/apt-helper download-file {url}/3bf863cc.pub {key}")
    host.check_output(f"echo 'deb [signed-by={key}] {url}/ /' > {source}")
    try:
        wish = {"nvidia_driver_key_fingerprints": ["0" * 40], "nvidia_driver_branch": "570"}
        run = play("--limit", "served", "-e", settings(keys, **wish))
        assert f"The package {DRIVER} of the branch 570 is missing: on offer: 575.57.08" in run.text, run.output[-3000:]
        assert not host.file("/etc/apt/sources.list.d/llamacpp-nvidia.sources").exists
        host.check_output("apt-get update -qq")
    finally:
        host.check_output(f"rm {source} {key}")


@pytest.mark.parametrize("lock", [pytest.param(plays.LISTS, id="reading lists"), pytest.param(plays.PACKAGES, id="installing")])
def test_locked_by_unattended_upgrades(play: Any, on_host: Any, keys: dict[str, str], lock: str) -> None:
    host = on_host("served")
    before = host.check_output(PACKAGES)
    with plays.locked_by_upgrades(host, lock):
        run = play("--limit", "served", "-e", settings(keys, nvidia_driver_package_timeout=3))
    assert run.status != 0
    told = "served: The package manager stayed locked for longer than nvidia_driver_package_timeout: unattended-upgr (PID"
    assert told in run.text and "could not be taken back" not in run.text, run.output[-3000:]
    assert host.check_output(PACKAGES) == before
    assert not host.file("/etc/apt/preferences.d/llamacpp-nvidia").exists


def everything(host: Any) -> tuple[str, ...]:
    """Packages, files and units of a host, to be compared."""
    return host.check_output(PACKAGES), plays.tree(host), host.check_output("systemctl list-unit-files --no-legend")


def test_check_mode_changes_nothing(play: Any, on_host: Any, keys: dict[str, str]) -> None:
    host = on_host("served")
    before = everything(host)
    run = play("--limit", "served", "--check", "-e", settings(keys))
    assert run.status == 0
    assert "Would install the NVIDIA driver (nvidia, branch 580, open modules for 6.1.0-99-lab)" in run.text
    assert everything(host) == before


@pytest.mark.parametrize(
    ("wish", "version"),
    [
        pytest.param({"nvidia_driver_branch": "590"}, "590.48.01-1", id="another branch"),
        pytest.param({"nvidia_driver_version": "580.95.05"}, "580.95.05-1", id="back to an exact version"),
        pytest.param({}, "580.126.09-1", id="newest of the branch"),
    ],
)
def test_installed_and_kept(play: Any, on_host: Any, keys: dict[str, str], wish: dict[str, str], version: str) -> None:
    host = on_host("served")
    # What is let go in time is waited for.
    busy = plays.locked_by_upgrades(host, plays.LISTS, 30) if wish.get("nvidia_driver_branch") else contextlib.nullcontext()
    with busy:
        run = play("--limit", "served", "-e", settings(keys, **wish))
    assert run.status == 0, run.output[-3000:]
    assert "nvidia-smi lists no device; on the bus: 0000:10:00.0" in run.text
    assert host.check_output(VERSION) == version
    # Newer ones are on offer, and stay out; so do older ones.
    assert "nvidia" not in host.check_output("apt-get -s dist-upgrade | grep ^Inst || true")


def test_unchanged_when_run_again(play: Any, on_host: Any, keys: dict[str, str]) -> None:
    host = on_host("served")
    assert host.check_output("cat /etc/modules-load.d/llamacpp-nvidia.conf").endswith("nvidia\nnvidia-uvm")
    assert host.service("nvidia-persistenced").is_enabled
    run = play("--limit", "served", "-e", settings(keys))
    assert run.stats["served"]["changed"] == 0
    assert "is installed and kept; a container cannot load it" in run.text


def test_the_repository_of_before_survives_a_lock(play: Any, on_host: Any, keys: dict[str, str]) -> None:
    host = on_host("served")
    with plays.locked_by_upgrades(host, plays.LISTS):
        run = play("--limit", "served", "-e", settings(keys, nvidia_driver_package_timeout=3, nvidia_driver_branch="590"))
    assert run.status != 0 and "served: The package manager stayed locked" in run.text, run.output[-3000:]
    assert host.file("/etc/apt/sources.list.d/llamacpp-nvidia.sources").exists


def test_a_held_package_is_respected(play: Any, on_host: Any, keys: dict[str, str]) -> None:
    host = on_host("served")
    host.check_output(f"apt-mark hold {DRIVER}")
    try:
        run = play("--limit", "served", "-e", settings(keys, nvidia_driver_branch="590"))
        assert run.status != 0
        assert f"{DRIVER} is held at 580.126.09-1, and 590.48.01-1 is wanted" in run.text
        assert host.check_output(VERSION) == "580.126.09-1"
    finally:
        host.check_output(f"apt-mark unhold {DRIVER}")


def test_a_kernel_that_will_be_started_next(play: Any, on_host: Any, keys: dict[str, str]) -> None:
    """Its modules are built before it starts; without its headers that is refused, and what is there stays."""
    host = on_host("served")
    add_kernel(host, "6.1.0-100-lab")
    run = play("--limit", "served", "-e", settings(keys))
    assert run.status == 0, run.output[-3000:]
    assert "has no modules for the kernel 6.1.0-100-lab yet" in run.text
    assert json.loads(host.check_output(RECORD))["kernels"] == ["6.1.0-100-lab"]
    assert host.package("linux-headers-6.1.0-100-lab").is_installed
    before = host.check_output(PACKAGES)
    add_kernel(host, "6.1.0-101-lab")
    run = play("--limit", "served", "-e", settings(keys))
    host.check_output("rm -r /lib/modules/6.1.0-101-lab /boot/vmlinuz-6.1.0-101-lab")
    assert run.status != 0
    assert "The headers linux-headers-6.1.0-101-lab are missing: no repository of this host has them" in run.text
    assert host.check_output(PACKAGES) == before


# An A100 with an instance on an NVSwitch board, whose driver answers. The lab has neither.
GPU = {
    "kind": "cuda",
    "name": "NVIDIA A100",
    "compute_capability": "8.0",
    "driver": True,
    "driver_version": "580.126.09",
    "power_limit": 300,
}
BOARD = {
    "devices": [{**GPU, "uuid": "GPU-1"}, {**GPU, "uuid": "MIG-1", "name": f"{GPU['name']} MIG 3g.40gb", "mig_parent": "GPU-1"}],
    "driver": {"nvswitches": 6},
}


def test_an_upgrade_brings_the_fabric_manager_along_and_notes_the_settings(play: Any, on_host: Any, keys: dict[str, str]) -> None:
    host = on_host("served")
    wish = {"nvidia_driver_branch": "590", "lab_facts": BOARD}
    left = play("--limit", "served", "-e", settings(keys, **wish))
    assert left.status == 0 and "The NVIDIA driver is left alone: the driver 580.126.09 answers." in left.text, left.output[-3000:]
    run = play("--limit", "served", "-e", settings(keys, nvidia_driver_upgrade=True, **wish))
    assert run.status == 0, run.output[-3000:]
    assert "Will upgrade the NVIDIA driver (nvidia, branch 590" in run.text
    assert host.check_output(VERSION) == host.check_output(VERSION.replace(DRIVER, "nvidia-fabricmanager")) == "590.48.01-1"
    assert host.service("nvidia-fabricmanager").is_enabled
    assert "nvidia-fabricmanager.service" in host.check_output("cat /etc/systemd/system/llamacpp@.service.d/40-nvidia.conf")
    assert json.loads(host.check_output(RECORD))["settings"]["mig"] == {"GPU-1": ["3g.40gb"]}
    # Newer ones and older ones of it stay out.
    assert "nvidia" not in host.check_output("apt-get -s dist-upgrade | grep ^Inst || true")


def test_a_toolkit_that_does_not_suit_is_told_by_the_plan(play: Any, on_host: Any, keys: dict[str, str]) -> None:
    host = on_host("served")
    before = host.check_output(PACKAGES)
    wish = {
        "cuda_toolkit_source": "pypi",
        "cuda_toolkit_host_compiler": "/usr/bin/g++-16",
        # The model is no matter, so no repository is asked for it.
        "llama_plan_require_listing": False,
        "llama_plan_endpoint": "http://127.0.0.1:9",
    }
    run = play("--limit", "served", "-e", settings(keys, **wish), playbook="site.yml")
    assert run.status != 0
    assert "CUDA 13.0 (pypi) accepts g++ 15 at most, this system has 16" in run.text.replace("│ ", ""), run.output[-3000:]
    assert host.check_output(PACKAGES) == before


def test_a_toolkit_of_the_repository(play: Any, on_host: Any, keys: dict[str, str]) -> None:
    host = on_host("served")
    wrong = play("-e", settings(keys, cuda_toolkit_key_fingerprints=["0" * 40]), playbook="molecule/driver/toolkit.yml")
    assert wrong.status != 0
    assert f"has the fingerprint {keys['good']}, but {'0' * 40} is expected" in wrong.text
    nowhere = {"cuda_toolkit_key_fingerprints": [keys["good"]], "cuda_toolkit_repository_url": "http://10.86.0.10/none"}
    moved = play("-e", settings(keys, **nowhere), playbook="molecule/driver/toolkit.yml")
    assert moved.status != 0 and "could not be installed on served from http://10.86.0.10/none/debian12/x86_64" in moved.text, moved.output[
        -3000:
    ]
    good = {"cuda_toolkit_key_fingerprints": [keys["good"]], "cuda_toolkit_package_timeout": 3}
    with plays.locked_by_upgrades(host, plays.LISTS):
        locked = play("-e", settings(keys, **good), playbook="molecule/driver/toolkit.yml")
    assert "stayed locked for longer than cuda_toolkit_package_timeout: unattended-upgr (PID" in locked.text, locked.output[-3000:]
    assert locked.status != 0 and "RETRYING" not in locked.output
    host.check_output("apt-get update -qq")
    run = play("-e", settings(keys, cuda_toolkit_key_fingerprints=[keys["good"]]), playbook="molecule/driver/toolkit.yml")
    assert run.status == 0, run.output[-3000:]
    assert host.file("/usr/local/cuda-13.0/bin/nvcc").exists
    assert "cuInit" in host.check_output("nm -D /opt/llamacpp/cuda/stubs/13.0/libcuda.so.1")
    # The driver's repository is the same one, and is written in the same words.
    assert "for NVIDIA's driver and CUDA" in host.check_output("cat /etc/apt/sources.list.d/llamacpp-nvidia.sources")
    again = play("-e", settings(keys, cuda_toolkit_key_fingerprints=[keys["good"]]), playbook="molecule/driver/toolkit.yml")
    assert again.stats["served"]["changed"] == 0
