# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that make a driver start with the host, and settings of devices that a restart would lose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

HEAD = "# Written by onprem.llamacpp.nvidia_driver.\n"
NOUVEAU = "/etc/modprobe.d/llamacpp-nouveau.conf"
LOAD = "/etc/modules-load.d/llamacpp-nvidia.conf"
ORDER = "/etc/systemd/system/llamacpp@.service.d/40-nvidia.conf"
AWAKE = "/etc/systemd/system/nvidia-persistenced.service.d/40-llamacpp.conf"
LOCK = "/etc/apt/preferences.d/llamacpp-nvidia"

PERSISTENCE, FABRIC = "nvidia-persistenced.service", "nvidia-fabricmanager.service"


def services(plan: Mapping[str, Any]) -> list[str]:
    """Services that have to run before a server does."""
    return [PERSISTENCE, FABRIC] if plan["fabric_manager"] else [PERSISTENCE]


def files(plan: Mapping[str, Any], version: str) -> dict[str, str]:
    """Contents by path; none for a host whose driver is left alone.

    Device nodes of GPUs and MIG instances are made by the driver's tools as root, when the persistence daemon and the server's
    unit start; those of NVSwitches by the fabric manager. All need the modules, which are therefore loaded before services.
    """
    if not plan["packages"]:
        return {}
    wanted = " ".join(services(plan))
    made = {
        NOUVEAU: HEAD + "blacklist nouveau\nblacklist nova_core\noptions nouveau modeset=0\n",
        LOAD: HEAD + "nvidia\nnvidia-uvm\n",
        ORDER: HEAD + f"[Unit]\nWants={wanted}\nAfter=systemd-modules-load.service {wanted}\n",
        # Ubuntu's unit starts the daemon without persistence mode.
        AWAKE: HEAD + "[Service]\nExecStartPost=-/usr/bin/nvidia-smi -pm 1\n",
    }
    if plan["manager"] == "apt":
        # Above 1000, so that no other version replaces it, an older one of another repository included.
        made[LOCK] = (
            HEAD + f"Package: {' '.join(plan['lock'])}\nPin: version /^([0-9]+:)?{version.replace('.', '[.]')}-/\nPin-Priority: 1001\n"
        )
    return made


def _gpu(device: Mapping[str, Any]) -> str:
    """The UUID of the whole GPU, which is what power limits are of: an instance has its GPU's."""
    return str(device.get("mig_parent") or device.get("uuid"))


def settings(devices: list[Mapping[str, Any]]) -> dict[str, Any]:
    """What is set on devices and lost with the module: power limits (watts) and MIG instances by UUID of their GPU."""
    divided: dict[str, list[str]] = {}
    for device in devices:
        if device.get("mig_parent"):
            divided.setdefault(str(device["mig_parent"]), []).append(str(device["name"]).rpartition(" ")[2])
    return {
        "power": {_gpu(device): device["power_limit"] for device in devices if device.get("power_limit") and device.get("uuid")},
        "mig": {uuid: sorted(profiles) for uuid, profiles in divided.items()},
    }


def restore(before: Mapping[str, Any], devices: list[Mapping[str, Any]]) -> list[list[str]]:
    """Commands that set again what the devices have lost."""
    now = settings(devices)
    # A divided GPU without instances is in no list of devices.
    known = {_gpu(device) for device in devices} | set(before.get("mig", {}))
    commands = [
        ["nvidia-smi", "-i", uuid, "-pl", f"{watts:g}"]
        for uuid, watts in before.get("power", {}).items()
        if uuid in known and now["power"].get(uuid) != watts
    ]
    for uuid, profiles in before.get("mig", {}).items():
        if now["mig"].get(uuid) != profiles:
            commands.append(["nvidia-smi", "-i", uuid, "-mig", "1"])
            commands.append(["nvidia-smi", "mig", "-i", uuid, "-cgi", ",".join(profiles), "-C"])
    return commands
