# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host tells of its driver, read from folders as procfs, sysfs and /lib/modules have them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.onprem.llamacpp.plugins.module_utils import _driver_state

OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (dvs-builder@U22)\nGCC version:  gcc 12\n"
PROPRIETARY = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.163.01  Tue Apr  8 12:41:17 UTC 2025\nGCC version:  gcc 12\n"


def write(root: Path, files: dict[str, Any]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


@pytest.mark.parametrize(
    ("text", "known"),
    [(OPEN, ("580.95.05", "open")), (PROPRIETARY, ("550.163.01", "proprietary")), ("", ("", ""))],
    ids=["open", "proprietary", "none"],
)
def test_version(text: str, known: tuple[str, str]) -> None:
    assert _driver_state.parse_version(text) == known


def test_kernels_in_order_of_their_numbers(tmp_path: Path) -> None:
    names = ("6.1.0-9-amd64", "6.1.0-50-amd64")
    write(tmp_path, {f"boot/vmlinuz-{name}": "" for name in names})
    write(tmp_path, {"lib/modules/6.1.0-9-amd64/modules.dep": "", "usr/src/headers/Makefile": "", "lib/modules/removed/modules.dep": ""})
    (tmp_path / "lib/modules/6.1.0-50-amd64").mkdir()
    (tmp_path / "lib/modules/6.1.0-50-amd64/build").symlink_to("/usr/src/headers")
    (tmp_path / "lib/modules/6.1.0-9-amd64/build").symlink_to("/usr/src/gone")
    assert _driver_state.kernels(str(tmp_path)) == [
        {"release": "6.1.0-9-amd64", "headers": False},
        {"release": "6.1.0-50-amd64", "headers": True},
    ]


@pytest.mark.parametrize(
    ("files", "key", "value"),
    [
        pytest.param({_driver_state._SECURE_BOOT: b"\x06\0\0\0\x01"}, "secure_boot", True, id="Secure Boot"),
        pytest.param({_driver_state._SECURE_BOOT: b"\x06\0\0\0\0"}, "secure_boot", False, id="no Secure Boot"),
        pytest.param({}, "secure_boot", None, id="no UEFI"),
        pytest.param({"run/systemd/container": "systemd-nspawn\n"}, "container", "systemd-nspawn", id="nspawn"),
        pytest.param({".dockerenv": ""}, "container", "docker", id="docker"),
        pytest.param({"run/.containerenv": ""}, "container", "podman", id="podman"),
        pytest.param({}, "container", "", id="machine"),
        pytest.param({"etc/nv_tegra_release": "# R36"}, "jetson", True, id="Jetson"),
        pytest.param({"proc/device-tree/compatible": "nvidia,p3737\0nvidia,tegra234\0"}, "jetson", True, id="Jetson by its tree"),
        pytest.param({"sys/module/nouveau/refcnt": "0", "sys/module/nvidia_uvm/x": ""}, "loaded", ["nvidia_uvm", "nouveau"], id="modules"),
        pytest.param({"proc/driver/nvidia/version": OPEN}, "version", "580.95.05", id="loaded driver"),
        pytest.param(
            {"etc/dnf/modules.d/nvidia-driver.module": "[nvidia-driver]\nname=nvidia-driver\nstream=open-dkms\nprofiles=\nstate=enabled\n"},
            "stream",
            "open-dkms",
            id="stream of dnf",
        ),
        pytest.param(
            {"etc/dnf/modules.d/nvidia-driver.module": "[nvidia-driver]\nstream=580-open\nstate=disabled\n"}, "stream", "", id="no stream"
        ),
        pytest.param({"usr/bin/nvidia-installer": ""}, "installer", "/usr/bin/nvidia-installer", id="NVIDIA's installer"),
        pytest.param({}, "installer", "", id="no installer"),
        pytest.param({"etc/nvidia/gridd.conf": ""}, "licensed_guest", True, id="licensed guest"),
        pytest.param(
            {
                "sys/bus/pci/devices/a/class": "0x068000\n",
                "sys/bus/pci/devices/a/vendor": "0x10de\n",
                "sys/bus/pci/devices/b/class": "0x068000\n",
                "sys/bus/pci/devices/b/vendor": "0x8086\n",
            },
            "nvswitches",
            1,
            id="NVSwitch",
        ),
    ],
)
def test_fact(tmp_path: Path, files: dict[str, Any], key: str, value: Any) -> None:
    assert _driver_state.collect("debian", str(write(tmp_path, files)), lambda argv: (127, "", ""))[key] == value


@pytest.mark.parametrize(("family", "tool"), [("debian", "dpkg-query"), ("redhat", "rpm")])
def test_recorded_packages_are_looked_up(tmp_path: Path, family: str, tool: str) -> None:
    write(tmp_path, {"var/lib/llamacpp/driver.json": json.dumps({"packages": {"nvidia-smi": "1", "gone": "1"}})})
    asked = []

    def run(argv: list[str]) -> tuple[int, str, str]:
        asked.append(argv[0])
        return 1, "nvidia-smi 1 ii \n", "no packages found matching gone"

    assert _driver_state.collect(family, str(tmp_path), run)["packages"] == {"nvidia-smi": "1"}
    assert asked == [tool]
