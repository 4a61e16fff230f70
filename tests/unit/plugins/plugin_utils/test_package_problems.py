# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What package managers say of packages that they cannot install, in sentences that name the next step."""

from __future__ import annotations

import pytest

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _package_problems


@pytest.mark.parametrize(
    ("said", "part"),
    [
        pytest.param(
            "Failed to lock directory /var/lib/apt/lists/: E:Could not get lock /var/lib/apt/lists/lock",
            "longer than x_timeout: another program held it",
            id="apt, its lists",
        ),
        pytest.param(
            "'/usr/bin/apt-get -y install 'gcc'' failed: E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 42 (apt)",
            "longer than x_timeout: another program held it",
            id="apt, its packages",
        ),
        pytest.param(
            "'/usr/bin/apt-get -y install 'gcc'' failed: E: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend),"
            " is another process using it?",
            "longer than x_timeout: another program held it",
            id="apt, for as long as it may wait",
        ),
        pytest.param(
            "Waiting for cache lock: Could not get lock /var/lib/dpkg/lock-frontend.\nE: No space", "E: No space.", id="apt that went on"
        ),
        pytest.param("yum lockfile is held by another process", "stayed locked", id="module dnf"),
        pytest.param("Waiting for process with pid 42 to finish.\n", "the process 42 holds it", id="dnf that waited"),
        pytest.param("Waiting for process with pid 42 to finish.\nNo space", "to finish. No space.", id="dnf that went on"),
        pytest.param("No package ninja-build available.", "repository CRB of Enterprise Linux 9", id="CRB"),
        pytest.param("- nothing provides dkms needed by kmod-nvidia", "dkms is in EPEL", id="EPEL"),
        pytest.param("Depends: nvidia-installer-cleanup but it is not installable", "section contrib", id="contrib"),
        pytest.param("E: nvidia-kernel-common broke", "E: nvidia-kernel-common broke.", id="no advice"),
    ],
)
def test_package_problem(said: str, part: str) -> None:
    sentence = _package_problems.package_problem(said, "x_timeout")
    assert part in sentence and ("section contrib" in sentence) == (part == "section contrib")


def test_holder_is_named() -> None:
    sentence = _package_problems.package_problem("E: Could not get lock /var/lib/dpkg/lock", "x", {"name": "unattended-upgr", "pid": 42})
    assert "unattended-upgr (PID 42) holds it" in sentence
