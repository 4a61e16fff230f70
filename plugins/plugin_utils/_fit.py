# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judges one quant on one host: which regime it runs in, with which settings, and what it is short of. Pure; sizes are bytes.

Regimes: C(vram), all weights on devices; C(resident), devices and memory hold everything; C(streaming), a part stays on disk.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Optional

from ansible_collections.onprem.llamacpp.plugins.module_utils._quant import COMMIT
from ansible_collections.onprem.llamacpp.plugins.module_utils._words import amount
from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _disk
from ansible_collections.onprem.llamacpp.plugins.plugin_utils._capacity import Capacity, capacity
from ansible_collections.onprem.llamacpp.plugins.plugin_utils._sizing import Sizing, minimum_in_memory, size
from ansible_collections.onprem.llamacpp.plugins.plugin_utils._speed import expected

MIB = 2**20
PROMPT_CACHE_MIB = 8192
MOST_CHECKPOINTS = 32
DEVICE_IDENTITY = (
    *("uuid", "kind", "engine_name", "name", "total", "capacity", "pci_address", "numa_node"),
    *("compute_capability", "bandwidth", "unified", "driver"),
)


def present(facts: Mapping[str, Any], repo_id: str, revision: str = "") -> dict[str, dict[str, Any]]:
    """Complete models of a repository on the host, by quant; the newest published wins, the deployed one before it."""
    deployed = {entry.get("document", {}).get("commit") for entry in facts.get("instances", [])}
    found = [entry for entry in facts.get("models", []) if entry["repo_id"] == repo_id and entry["complete"]]
    if COMMIT.match(revision):
        found = [entry for entry in found if entry["commit"] == revision]
    found.sort(key=lambda entry: (entry["commit"] in deployed, entry["manifest"].get("published_at", "")))
    return {entry["quant"]: entry for entry in found}


class Regime(NamedTuple):
    """How a sizing runs, what it is short of, what would make it fit, and what to say about it."""

    fit: str
    short: list[str]
    remedies: list[str]
    notes: list[str]


def regime(name: str, quant: Mapping[str, Any], found: Sizing, room: Capacity) -> Regime:
    """The fastest regime there is memory for; the settings that go with it are put into the placement."""
    placement = found.placement
    notes: list[str] = []
    shared = unified(found, room)
    used, ram = found.in_ram + shared, room.ram
    if used <= ram:
        _keep_prompts(found, room, used)
        if found.everything_on_devices:
            return Regime("vram", [], [], notes)
        # Reading into memory of its own lets the engine repack the weights and never fault a page in again.
        placement["load_mode"] = "none"
        return Regime("resident", [], [], notes)
    scratch = found.host["context"] + found.host["compute"] + shared
    floor = minimum_in_memory(quant, found) + shared
    total = room.ram_total - room.ram_held
    if total >= floor and scratch <= ram:
        found.host["floor"] = floor
        # Only a mapped file can be larger than the memory; what would copy or touch all of it is left out.
        placement.update(load_mode="mmap", repack=False, warmup=False, cache_ram_mib=0)
        if found.checkpoint:
            placement["ctx_checkpoints"] = 0
        notes.append(f"{amount(used - ram)} of the weights stay on disk: expect the speed of the disk")
        return Regime("streaming", [], [], notes)
    if total < floor:
        beside = " beside its other instances" if room.ram_held else ""
        what = f"{amount(floor)} of host memory even with its experts on disk, the host has {amount(total)}{beside}"
        missing, needed = floor - total, floor + room.ram_held
    else:
        what = f"{amount(scratch)} of host memory for its context and scratch, {amount(ram)} are not reserved"
        missing, needed = scratch - ram, room.ram_total + scratch - ram
    remedy = f"{amount(needed)} of host memory, {amount(missing)} more than there is"
    return Regime("none", [f"memory: {name} needs {what}"], [remedy], notes)


def unified(found: Sizing, room: Capacity) -> int:
    """Bytes on devices that share the host's memory."""
    return sum(sum(share.values()) for share, device in zip(found.devices, room.devices) if device.get("unified"))


def overflow(found: Sizing, room: Capacity) -> list[str]:
    """Devices that a placement, told by the user, asks too much of."""
    told = []
    for share, device in zip(found.devices, room.devices):
        used = sum(share.values())
        if used > device["capacity"]:
            told.append(f"device: the placement takes {amount(used)} of {device['name']}, which has {amount(device['capacity'])} to give")
    return told


def _keep_prompts(found: Sizing, room: Capacity, used: int) -> None:
    """Gives the prompt cache what is left, an eighth of the memory at most, and as much to copies of the slots' states."""
    wanted = min(PROMPT_CACHE_MIB, room.ram // 8 // MIB)
    found.placement["cache_ram_mib"] = wanted if used + wanted * MIB <= room.ram else 0
    found.host["cache"] = found.placement["cache_ram_mib"] * MIB
    if found.checkpoint:
        share = min(room.ram - used - found.host["cache"], room.ram // 8)
        found.placement["ctx_checkpoints"] = min(MOST_CHECKPOINTS, share // found.checkpoint)
        found.host["cache"] += found.placement["ctx_checkpoints"] * found.checkpoint


def device_notes(name: str, quant: Mapping[str, Any], found: Sizing, room: Capacity) -> list[str]:
    """Why a device is not used, or not fully."""
    if not room.devices:
        return ["no device: planned on the CPU"]
    if found.offloaded:
        return []
    wanted = f", {name} needs {amount(quant['vram_offload'])} beside its experts" if quant.get("vram_offload") else ""
    return [f"the devices give {amount(room.vram)}{wanted or ', too little for ' + name}: planned on the CPU"]


def spare_repacking(found: Sizing, room: Capacity) -> list[str]:
    """Switches repacking off where the engine would end over it, and says so.

    Weights that its AMX kernels can multiply are repacked for them, those of experts not. Latent attention then asks for a product
    that the kernels refuse (`GGML_ASSERT(*cur_backend_id != -1)`, b11549 and b11669), and what GCC 12 makes of them ends with an
    illegal instruction (b11549).
    """
    if not (room.amx and found.layers_on_host and found.placement["repack"]):
        return []
    found.placement["repack"] = False
    return ["weights are not repacked: the engine's kernels for AMX end it with some models and compilers"]


def memory_of(found: Sizing, room: Capacity, used: list[dict[str, Any]]) -> dict[str, Any]:
    """Bytes on every device and on the host, with what is left of each; the devices in use go by their engine's names."""
    names = {device["uuid"]: device["engine_name"] for device in used}
    shares = []
    for device, part in zip(room.devices, found.devices):
        identity = {key: device.get(key, "") for key in ("uuid", "engine_name", "name", "total", "capacity")}
        identity["engine_name"] = names.get(device["uuid"], device["engine_name"])
        shares.append({**identity, **part, "headroom": device["capacity"] - sum(part.values())})
    taken = sum(size for part, size in found.host.items() if part != "floor")
    held = {"total": room.ram_total, "capacity": room.ram, "headroom": room.ram - taken}
    return {"devices": shares, "host": {**found.host, **held}}


def used_devices(found: Sizing, room: Capacity) -> list[dict[str, Any]]:
    """The devices that hold a part of the model, as their engine will number them; what comes and goes is left out."""
    used = [
        {key: device[key] for key in DEVICE_IDENTITY if key in device}
        for device, share in zip(room.devices, found.devices)
        if found.offloaded and share["weights"]
    ]
    # The unit shows a CUDA server only its own devices, so they are counted anew.
    return [{**device, "engine_name": f"CUDA{number}"} if device["kind"] == "cuda" else device for number, device in enumerate(used)]


def assess(
    name: str,
    quant: Mapping[str, Any],
    facts: Mapping[str, Any],
    settings: Mapping[str, Any],
    entry: Mapping[str, Any],
    exact: Optional[Mapping[str, Any]] = None,
) -> dict[str, Any]:
    """Where one quant would go on one host: regime, placement, memory, disk, speed and what is short."""
    room = capacity(facts, settings)
    told = {"n_gpu_layers", "n_cpu_moe", "tensor_split"} & set(settings.get("placement") or {})
    refused = bool(exact and exact.get("asked") and not exact.get("fits"))
    answered = exact if exact and exact.get("asked") and exact.get("fits") else None
    found = (
        _as_answered(quant, settings, entry, room, answered)
        if answered
        else size(quant, settings, entry, room, on_cpu=refused and not told)
    )
    judged = regime(name, quant, found, room)
    fit, short, remedies = judged.fit, list(judged.short), list(judged.remedies)
    notes = [*device_notes(name, quant, found, room), *judged.notes]
    if "repack" not in (settings.get("placement") or {}):
        notes += spare_repacking(found, room)
    if refused:
        notes.insert(0, "the engine finds no placement that fits the devices")
        short += [f"device: {name} does not fit as placed by llama_plan_placement, says the engine"] if told else []
    short += overflow(found, room)
    if settings.get("require_gpu") and not found.offloaded:
        fit = "none"
        short.append(f"device: a GPU is required (llama_plan_require_gpu), {len(room.devices)} found with {amount(room.vram)} to use")
        remedies.append(f"a device with {amount(quant['vram_offload'])}" if quant.get("vram_offload") else "a larger device")
    devices = used_devices(found, room)
    if settings.get("require_driver") and any(device.get("driver") is False for device in devices):
        refusal = settings.get("driver_refusal", "install the NVIDIA driver")
        if refusal:
            short.append(f"device: no driver serves it: {refusal.rstrip('.')}, or set llama_plan_backend to cpu")
        else:
            notes.append("no driver serves the device yet: it is installed first")
    if settings.get("placement"):
        found.placement.update(settings["placement"])
        notes.append("placement as told: " + ", ".join(f"{key}={value}" for key, value in sorted(settings["placement"].items())))
    split = found.placement["tensor_split"]
    if split and len(devices) < len(split):
        kept = [share for share in split if share]
        found.placement["tensor_split"] = kept if len(kept) > 1 else None
    here = name in present(facts, entry["repo_id"], quant["commit"])
    remaining, disk, full = _disk.room(name, quant, facts, settings, entry, here)
    return {
        "quant": name,
        "bytes": quant["bytes"],
        "basis": found.basis,
        "fit": fit,
        "short_of": short + full,
        "remedies": remedies,
        "notes": [*room.notes, *notes],
        "offloaded": found.offloaded,
        "guide_vram": quant.get("vram_offload", 0),
        "placement": found.placement,
        "devices": devices,
        "memory": memory_of(found, room, devices),
        "disk": disk,
        "download": {
            "bytes": quant["bytes"],
            "present": quant["bytes"] - remaining,
            "remaining": remaining,
            "eta_seconds": math.ceil(remaining * 8 / settings["link_bits_per_second"]),
        },
        "expected": expected(found, room, quant, _benchmark(facts, settings, name, quant)),
        "refused_by_engine": refused,
        "usable": fit != "none" and not short and not full,
    }


def _as_answered(
    quant: Mapping[str, Any], settings: Mapping[str, Any], entry: Mapping[str, Any], room: Capacity, exact: Mapping[str, Any]
) -> Sizing:
    """The sizing that an engine answered with; it was asked about the devices that were planned, the others stay empty."""
    asked = {share["uuid"]: number for number, share in enumerate(exact["devices"])}
    found = size(quant, settings, entry, room._replace(devices=[d for d in room.devices if d["uuid"] in asked]), exact=exact)
    nothing = {"weights": 0, "context": 0, "compute": 0}
    shares = [found.devices[asked[device["uuid"]]] if device["uuid"] in asked else nothing for device in room.devices]
    return found._replace(devices=shares)


def _benchmark(facts: Mapping[str, Any], settings: Mapping[str, Any], name: str, quant: Mapping[str, Any]) -> dict[str, Any]:
    """What was measured on this host of this very quant."""
    for instance in facts.get("instances", []):
        measured = instance.get("benchmark") or {}
        if instance["name"] == settings["instance"] and (measured.get("quant"), measured.get("commit")) == (name, quant["commit"]):
            return measured
    return {}
