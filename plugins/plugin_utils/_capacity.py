# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a deployment may use of a host if the one it replaces were stopped. Pure; sizes are bytes.

Never memory that happens to be free: a host under load, or already serving, gets the same answer as an idle one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ansible_collections.onprem.llamacpp.plugins.module_utils._words import amount
from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _strangers

GRAIN = 256 * 2**20
# Of memory bandwidth where neither the host nor a table says it: two channels of DDR4, the slowest card in use.
RAM_BANDWIDTH = 40 * 10**9
DEVICE_BANDWIDTH = 300 * 10**9
DISK_BANDWIDTH = 2 * 10**9
ROTATING_BANDWIDTH = 150 * 10**6


class Capacity(NamedTuple):
    """What a plan may fill, how fast it is read, and what to say about it."""

    devices: list[dict[str, Any]]  # facts of each, with its C(capacity)
    ram: int
    ram_total: int
    ram_held: int  # by other instances
    ram_bandwidth: int
    disk_bandwidth: int
    amx: bool  # the engine's kernels for this processor use its matrix unit
    notes: list[str]

    @property
    def vram(self) -> int:
        return sum(device["capacity"] for device in self.devices)


def capacity(facts: Mapping[str, Any], settings: Mapping[str, Any]) -> Capacity:
    """The host's devices and memory, less what strangers and other instances hold and what is kept free."""
    notes: list[str] = []
    plans = [entry.get("plan") or {} for entry in neighbours(facts, settings)]
    total = facts["memory"]["total"]
    limit = facts["memory"].get("cgroup_limit")
    if limit and limit < total:
        notes.append(f"memory is limited to {amount(limit)} of {amount(total)} by a control group")
        total = limit
    held = sum(_host_share(plan, settings["ram_reserve"]) for plan in plans)
    ram = _grain(total - settings["ram_reserve"] - held)
    devices = []
    for device in facts.get("devices", []):
        uuid = device["uuid"] or device.get("pci_address", "")
        taken = sum(_device_share(plan, uuid) for plan in plans)
        usable = _grain(device["total"] - device.get("foreign", 0) - taken - settings["vram_margin"])
        if device.get("unified"):
            usable = min(usable, ram)
        devices.append({**device, "uuid": uuid, "capacity": usable})
    devices = _visible(devices, notes)
    for device in devices:
        notes += _device_notes(device)
    return Capacity(
        devices=devices,
        ram=ram,
        ram_total=total,
        ram_held=held,
        ram_bandwidth=(facts["memory"].get("bandwidth") or {}).get("bytes_per_second") or RAM_BANDWIDTH,
        disk_bandwidth=_disk_bandwidth(facts, settings["model_root"]),
        amx="amx_int8" in (facts.get("cpu") or {}).get("flags", []),
        notes=notes,
    )


def neighbours(facts: Mapping[str, Any], settings: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The other instances of the host that hold memory, or will when they are planned before this one."""
    return [entry for entry in facts.get("instances", []) if entry["name"] != settings["instance"] and entry.get("active") == "active"]


def left_to_others(facts: Mapping[str, Any], settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What each of the others holds of devices and of the host's memory, and whether it is declared."""
    declared = settings.get("declared", [])
    return [
        {
            "instance": entry["name"],
            "declared": entry["name"] in declared,
            "devices": _device_share(entry.get("plan") or {}),
            "host": _host_share(entry.get("plan") or {}, settings["ram_reserve"]),
        }
        for entry in neighbours(facts, settings)
    ]


def left_by_others(facts: Mapping[str, Any], settings: Mapping[str, Any]) -> int:
    """Memory of all devices that neither strangers nor other instances hold."""
    others = sum(_device_share(entry.get("plan") or {}) for entry in neighbours(facts, settings))
    return sum(device["total"] - device.get("foreign", 0) for device in facts.get("devices", [])) - others


def fits_beside(facts: Mapping[str, Any], plan: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> bool:
    """Whether there is memory for a plan while other plans are served; margins are left out, because the others will make room."""
    for device in facts.get("devices", []):
        uuid = device["uuid"] or device.get("pci_address", "")
        own = _device_share(plan, uuid)
        if own and own + sum(_device_share(other, uuid) for other in others) > device["total"] - device.get("foreign", 0):
            return False
    return sum(_host_share(each, 0) for each in (plan, *others)) <= facts["memory"]["total"]


def _grain(size: int) -> int:
    return max(0, size // GRAIN * GRAIN)


def _visible(devices: list[dict[str, Any]], notes: list[str]) -> list[dict[str, Any]]:
    """The devices one process can use: of MIG instances a single one, the one with the most room."""
    parts = [device for device in devices if device.get("mig_parent")]
    if not parts:
        return devices
    best = max(parts, key=lambda device: device["capacity"])
    notes.append(f"CUDA gives a process one MIG instance: {best['name']} of {len(parts)} is planned")
    return [best]


def _device_notes(device: Mapping[str, Any]) -> list[str]:
    found = []
    held = sorted((entry for entry in device.get("processes", []) if not entry["ours"]), key=lambda entry: -entry["bytes"])
    if held:
        sizes = [amount(entry["bytes"]) for entry in held[:3]]
        found.append(_strangers.device_note(device["engine_name"], amount(device["foreign"]), amount(device["total"]), held[:3], sizes))
    if device.get("driver") is False:
        found.append(f"{device['name']} at {device['pci_address']} has no driver yet: planned by its type")
    if device.get("virtual"):
        found.append(f"{device['name']} is a virtual GPU: its licence and its host decide its speed")
    return found


def _device_share(plan: Mapping[str, Any], uuid: str = "") -> int:
    """What an instance holds of a device, or of all."""
    return sum(
        share["weights"] + share["context"] + share["compute"]
        for share in (plan.get("memory") or {}).get("devices", [])
        if not uuid or share["uuid"] == uuid
    )


def _host_share(plan: Mapping[str, Any], reserve: int) -> int:
    """What an instance holds of the host's memory for good. Mapped weights that are streamed can be read again; they need
    their floor all the same, which is counted against all memory, the reserve included."""
    host = (plan.get("memory") or {}).get("host") or {}
    streams = plan.get("fit") == "streaming"
    parts = ("context", "compute", "cache") if streams else ("weights", "context", "compute", "cache")
    share = sum(host.get(part, 0) for part in parts)
    return max(share, host.get("floor", 0) - reserve) if streams else share


def _disk_bandwidth(facts: Mapping[str, Any], path: str) -> int:
    disk: Mapping[str, Any] = next((entry for entry in facts.get("disks", []) if entry["path"] == path), {})
    return disk.get("sequential_read") or (ROTATING_BANDWIDTH if disk.get("rotational") else DISK_BANDWIDTH)
