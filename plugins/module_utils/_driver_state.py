# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host tells of its kernel driver for NVIDIA devices without being changed: modules, kernels, boot security, records."""

from __future__ import annotations

import glob
import os
import re
from typing import Any, Optional

from ansible_collections.onprem.llamacpp.plugins.module_utils._host import Run, read_json, read_text, run_command

RECORD = "/var/lib/llamacpp/driver.json"
_SECURE_BOOT = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
_NVIDIA = "10de"
_BRIDGE = "0x0680"  # NVSwitches are bridges of no other kind
_STREAM = "etc/dnf/modules.d/nvidia-driver.module"
_INSTALLER = ("usr/bin/nvidia-uninstall", "usr/bin/nvidia-installer")  # no package has them
_LOADED = ("nvidia", "nvidia_uvm", "nvidia_drm", "nvidia_vgpu_vfio", "nouveau", "nova_core")


def natural(text: str) -> tuple[tuple[int, Any], ...]:
    """A key that sorts 6.1.0-9 before 6.1.0-50."""
    return tuple((1, int(part)) if part.isdigit() else (0, part) for part in re.findall(r"\d+|\D+", text))


def parse_version(text: str) -> tuple[str, str]:
    """Version and kind (V(open) or V(proprietary)) of the loaded module, from the text of ``/proc/driver/nvidia/version``."""
    found = re.search(r"NVRM version:.*?(Open )?Kernel Module.*?\s(\d{3}\.\d+(?:\.\d+)?)\s", text)
    return (found[2], "open" if found[1] else "proprietary") if found else ("", "")


def kernels(root: str = "/") -> list[dict[str, Any]]:
    """The installed kernels, oldest first: release and whether their headers are there."""
    found = []
    for folder in glob.glob(os.path.join(root, "lib/modules/*")):
        release = os.path.basename(folder)
        images = (os.path.join(root, f"boot/vmlinuz-{release}"), os.path.join(folder, "vmlinuz"))
        if any(map(os.path.exists, images)):
            # The link is absolute, so it is followed by hand below another root.
            build = os.path.join(folder, "build")
            target = os.path.join(root, os.readlink(build).lstrip("/")) if os.path.islink(build) else build
            found.append({"release": release, "headers": os.path.exists(os.path.join(target, "Makefile"))})
    return sorted(found, key=lambda entry: natural(entry["release"]))


def secure_boot(root: str = "/") -> Optional[bool]:
    """Whether the firmware only starts what is signed; None where it does not say."""
    try:
        with open(os.path.join(root, _SECURE_BOOT), "rb") as handle:
            return handle.read()[-1:] == b"\x01"
    except OSError:
        return None


def container(root: str = "/") -> str:
    """What kind of container this system is, empty for a machine."""
    told = read_text(os.path.join(root, "run/systemd/container")).strip()
    if told:
        return told
    marks = {".dockerenv": "docker", "run/.containerenv": "podman"}
    return next((kind for mark, kind in marks.items() if os.path.exists(os.path.join(root, mark))), "")


def jetson(root: str = "/") -> bool:
    """Whether the system belongs to a Jetson, whose driver is a part of its image."""
    compatible = read_text(os.path.join(root, "proc/device-tree/compatible"))
    return os.path.exists(os.path.join(root, "etc/nv_tegra_release")) or "nvidia,tegra" in compatible


def installer(root: str = "/") -> str:
    """The program that a driver of NVIDIA's installer (a .run file) has left to remove it; empty where there is none."""
    return next((f"/{path}" for path in _INSTALLER if os.path.exists(os.path.join(root, path))), "")


def nvswitches(root: str = "/") -> int:
    """How many NVSwitches are on the bus."""
    folders = glob.glob(os.path.join(root, "sys/bus/pci/devices/*"))

    def is_switch(folder: str) -> bool:
        kind, vendor = (read_text(os.path.join(folder, name)).strip() for name in ("class", "vendor"))
        return kind.startswith(_BRIDGE) and vendor[2:] == _NVIDIA

    return sum(map(is_switch, folders))


def stream(root: str = "/") -> str:
    """The stream of NVIDIA's packages that dnf has enabled; empty where none is."""
    fields = dict(line.split("=", 1) for line in read_text(os.path.join(root, _STREAM)).splitlines() if "=" in line)
    return fields.get("stream", "").strip() if fields.get("state", "").strip() == "enabled" else ""


def package_versions(names: list[str], family: str, run: Run = run_command) -> dict[str, str]:
    """Versions of those packages that are installed whole."""
    if not names:
        return {}
    if family == "redhat":
        _status, out, _err = run(["rpm", "-q", "--qf", "%{NAME} %{EPOCHNUM}:%{VERSION}-%{RELEASE} ii\n", *names])
    else:
        _status, out, _err = run(["dpkg-query", "-W", "-f", "${Package} ${Version} ${db:Status-Abbrev}\n", *names])
    rows = [line.split() for line in out.splitlines()]
    return {row[0]: row[1] for row in rows if len(row) == 3 and row[2][1:2] == "i"}


def collect(family: str, root: str = "/", run: Run = run_command) -> dict[str, Any]:
    """Everything that decides what is to be done about the driver, beside the devices themselves."""
    version, kind = parse_version(read_text(os.path.join(root, "proc/driver/nvidia/version")))
    record = read_json(os.path.join(root, RECORD.lstrip("/")))
    return {
        "version": version,
        "modules": kind,
        "loaded": [name for name in _LOADED if os.path.isdir(os.path.join(root, "sys/module", name))],
        "nvswitches": nvswitches(root),
        "container": container(root),
        "jetson": jetson(root),
        "installer": installer(root),
        "licensed_guest": os.path.exists(os.path.join(root, "etc/nvidia/gridd.conf")),
        "secure_boot": secure_boot(root),
        "kernels": kernels(root),
        "stream": stream(root),
        "record": record,
        "packages": package_versions(sorted(record.get("packages", {})), family, run),
    }
