# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way of dnf: the generated repository file, the version that is chosen from it, its lock, and the locks of others."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

VERSION = "rpm -q --qf '%{EVR}' nvidia-driver-cuda"
REPOSITORY = "/etc/yum.repos.d/llamacpp-nvidia.repo"
# What compiles nothing more than it says, as the package of EL goes on although it does not.
DKMS = """#!/bin/sh
[ "$1" != status ] || echo "nvidia/580.95.05{built}"
[ "$1" = install ] || exit 0
mkdir -p /var/lib/dkms/nvidia/580.95.05/build
cat > /var/lib/dkms/nvidia/580.95.05/build/make.log <<LOG
DKMS make.log for nvidia-580.95.05 for kernel $7 (noarch)
/tmp/nv-pci.c:237:5: error: too few arguments
LOG
exit 10
"""
RUNS, STARTS_NEXT = "6.1.0-99.el10.noarch", "6.1.0-100.el10.noarch"
# A machine with a newer kernel than the one that runs.
TWO_KERNELS = {
    "os": {"kernel": RUNS},
    "driver": {"container": "", "kernels": [{"release": RUNS, "headers": False}, {"release": STARTS_NEXT, "headers": False}]},
}
LOCKS = "/etc/dnf/plugins/versionlock.list"


@pytest.fixture
def bring(play: Any, keys: dict[str, str]) -> Callable[..., Any]:
    return lambda **wish: play(
        "-e", json.dumps({"nvidia_driver_key_fingerprints": [keys["good"]], **wish}), playbook="molecule/driver/rpm.yml"
    )


def test_packages_that_another_key_has_signed_are_refused(bring: Any, on_host: Any) -> None:
    host = on_host("packages")
    run = bring(nvidia_driver_repository_url="http://10.86.0.10/forged")
    assert run.status != 0
    assert "cannot be installed and was taken back. A package has no signature that the repository's key confirms" in run.text, run.output
    assert host.run(VERSION).rc != 0
    assert "nvidia" not in host.check_output(f"cat {LOCKS}")


def test_a_repository_that_is_not_there_is_told_and_taken_away(bring: Any, on_host: Any) -> None:
    run = bring(nvidia_driver_repository_url="http://10.86.0.10/none")
    assert run.status != 0
    assert "The package repository http://10.86.0.10/none/rhel10/x86_64 is not there (404)" in run.text, run.output[-3000:]
    assert not on_host("packages").file(REPOSITORY).exists


@pytest.mark.parametrize(
    ("wish", "told"),
    [
        pytest.param(
            {"nvidia_driver_branch": "570"},
            "The package kmod-nvidia-open-dkms of the branch 570 is missing: on offer: 580.95.05, 580.126.09, 590.48.01",
            id="missing package",
        ),
        pytest.param({"nvidia_driver_key_fingerprints": ["0" * 40]}, f"but {'0' * 40} is expected", id="wrong fingerprint"),
    ],
)
def test_refused(bring: Any, on_host: Any, wish: dict[str, Any], told: str) -> None:
    host = on_host("packages")
    before = host.check_output("rpm -qa | sort")
    run = bring(**wish)
    assert run.status != 0 and told in run.text, run.output[-3000:]
    assert host.check_output("rpm -qa | sort") == before


@pytest.mark.parametrize(
    ("built", "facts", "kernel"),
    [
        pytest.param(": added", {}, RUNS, id="no kernel"),
        pytest.param(f", {RUNS}, noarch: installed", TWO_KERNELS, STARTS_NEXT, id="the running one only"),
    ],
)
def test_modules_that_do_not_compile_are_named_and_taken_back(
    bring: Any, on_host: Any, built: str, facts: dict[str, Any], kernel: str
) -> None:
    host = on_host("packages")
    before = host.check_output("rpm -qa | sort")
    host.check_output(f"cat > /usr/local/sbin/dkms <<'EOF'\n{DKMS.format(built=built)}EOF\nchmod +x /usr/local/sbin/dkms")
    try:
        run = bring(nvidia_driver_version="580.95.05", lab_facts=facts)
    finally:
        host.check_output("rm -rf /usr/local/sbin/dkms /var/lib/dkms")
    assert run.status != 0
    told = f"does not compile against the kernel {kernel}: nv-pci.c:237:5: error: too few arguments"
    assert "cannot be installed and was taken back" in run.text and told in run.text, run.output[-3000:]
    assert host.check_output("rpm -qa | sort") == before
    assert "nvidia" not in host.check_output(f"cat {LOCKS}")


@pytest.mark.parametrize(
    ("wish", "version"),
    [
        pytest.param({}, "3:580.126.09-1.el10", id="newest of the branch"),
        pytest.param({"nvidia_driver_version": "580.95.05"}, "3:580.95.05-1.el10", id="back to an exact version"),
        pytest.param({"nvidia_driver_branch": "590"}, "3:590.48.01-1.el10", id="another branch"),
    ],
)
def test_installed_and_locked(bring: Any, on_host: Any, wish: dict[str, str], version: str) -> None:
    host = on_host("packages")
    run = bring(**wish)
    assert run.status == 0, run.output[-3000:]
    assert host.check_output(VERSION) == version
    # Those of the host's kernel, though newer ones are on offer.
    assert host.check_output("rpm -qa 'kernel-devel*' | sort").splitlines() == [
        "kernel-devel-6.1.0-99.el10.noarch",
        "kernel-devel-matched-6.1.0-99.el10.noarch",
    ]
    assert "gpgcheck=1" in host.check_output(f"cat {REPOSITORY}")
    locked = host.check_output(f"cat {LOCKS}").splitlines()
    assert [line for line in locked if "nvidia" in line and line[0] != "#"] == [
        f"{name}-{version}.*" for name in ("kmod-nvidia-open-dkms", "nvidia-driver-cuda", "nvidia-modprobe", "nvidia-persistenced")
    ]
    # Newer ones are on offer, those of the libraries and daemons too, and stay out.
    newer = [line.split()[0] for line in host.run("dnf -q check-update").stdout.splitlines() if line]
    assert "kernel-devel.noarch" in newer and not [name for name in newer if "nvidia" in name]


def test_the_lock_of_another_is_respected(bring: Any, on_host: Any) -> None:
    host = on_host("packages")
    host.check_output(f"echo 'nvidia-driver-cuda-3:590.48.01-1.el10.*' >> {LOCKS}")
    run = bring(nvidia_driver_branch="580")
    assert run.status != 0
    assert "nvidia-driver-cuda is held at 3:590.48.01-1.el10, and 3:580.126.09-1.el10 is wanted" in run.text, run.output[-2000:]
    assert host.check_output(VERSION) == "3:590.48.01-1.el10"


def test_the_other_modules_come_in_the_place_of_the_ones_before(bring: Any, on_host: Any) -> None:
    """They conflict with each other. A package of somebody else's that conflicts too is not taken away for them."""
    host = on_host("packages")
    host.check_output("dnf -q -y install site-tools")
    before = host.check_output("rpm -qa | sort")
    wish = {"nvidia_driver_branch": "590", "nvidia_driver_modules": "proprietary"}
    refused = bring(**wish)
    assert refused.status != 0
    assert "Error: site-tools would be removed for it" in refused.text, refused.output[-3000:]
    assert host.check_output("rpm -qa | sort") == before
    host.check_output("dnf -q -y remove site-tools")
    run = bring(**wish)
    assert run.status == 0, run.output[-3000:]
    assert host.check_output("rpm -qa 'kmod-nvidia-*'") == "kmod-nvidia-latest-dkms-590.48.01-1.el10.noarch"
