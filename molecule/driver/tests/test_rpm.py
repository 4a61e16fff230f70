# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way of dnf: the generated repository file, the version that is chosen from it, and its lock."""

from __future__ import annotations

import json
from typing import Any


def test_installed_by_dnf(play: Any, on_host: Any, keys: dict[str, str]) -> None:
    host = on_host("packages")
    wish = json.dumps({"nvidia_driver_key_fingerprints": [keys["good"]]})
    run = play("-e", wish, playbook="molecule/driver/rpm.yml")
    assert run.status == 0, run.output[-3000:]
    assert host.check_output("rpm -q --qf '%{EVR}' nvidia-driver-cuda") == "3:580.95.05-1.el10"
    assert "gpgcheck=1" in host.check_output("cat /etc/yum.repos.d/llamacpp-nvidia.repo")
    locked = host.check_output("cat /etc/dnf/plugins/versionlock.list").splitlines()
    assert "nvidia-driver-cuda-3:580.95.05-1.el10.*" in locked and "kmod-nvidia-open-dkms-3:580.95.05-1.el10.*" in locked


def test_a_key_that_is_not_known_is_refused(play: Any) -> None:
    run = play(playbook="molecule/driver/rpm.yml")
    assert run.status != 0
    assert "The fingerprint of the key of NVIDIA's repository for rocky-10.1 is not known here" in run.text
