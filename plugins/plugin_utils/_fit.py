# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one quant takes on one host, by sizes: regime, placement, memory and disk. Pure; sizes are bytes.

Capacity is what the host could give if the deployment that is to be replaced were stopped, so a host that is under load,
or already serving, gets the same answer as an idle one.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from ansible_collections.onprem.llamacpp.plugins.module_utils._quant import COMMIT
from ansible_collections.onprem.llamacpp.plugins.module_utils._words import amount

GRAIN = 256 * 2**20

# Part of an uncatalogued model that must find room in memory for it to run at all with the rest on disk. The published
# minima of the catalogued mixture-of-experts quants lie between 0.23 and 0.35 of their sizes.
STREAMING_SHARE = 0.35
# Part of an uncatalogued mixture of experts that is not experts, and scratch memory for each token computed at once: both
# rough, until headers and the engine itself are asked.
OFFLOAD_SHARE = 0.15
COMPUTE_PER_TOKEN = 2 * 2**20
EVERY_LAYER = 999


def present(facts: dict[str, Any], repo_id: str, revision: str = "") -> dict[str, dict[str, Any]]:
    """Complete models of a repository on the host, by quant; the newest published wins, the deployed one before it."""
    deployed = {entry.get("document", {}).get("commit") for entry in facts.get("instances", [])}
    found = [entry for entry in facts.get("models", []) if entry["repo_id"] == repo_id and entry["complete"]]
    if COMMIT.match(revision):
        found = [entry for entry in found if entry["commit"] == revision]
    found.sort(key=lambda entry: (entry["commit"] in deployed, entry["manifest"].get("published_at", "")))
    return {entry["quant"]: entry for entry in found}


def capacities(facts: dict[str, Any], settings: dict[str, Any]) -> tuple[list[dict[str, Any]], int]:
    """Devices with the memory a deployment may use on each, and the same for the host. One without a driver is of no use yet."""
    devices = []
    for device in facts.get("devices", []):
        if not device.get("driver", True):
            continue
        usable = device["total"] - device.get("foreign", 0) - settings["vram_margin"]
        # Programs come and go, and a plan is compared with the one before it.
        known = {key: value for key, value in device.items() if key != "processes"}
        devices.append({**known, "capacity": max(0, usable // GRAIN * GRAIN)})
    host = max(0, (facts["memory"]["total"] - settings["ram_reserve"]) // GRAIN * GRAIN)
    return devices, host


class Needs(NamedTuple):
    """What a quant takes, wherever it goes; bytes, but for the context's size in tokens."""

    weights: int
    context_size: int
    context: int
    compute: int
    offload: int  # on devices, when every expert stays in host memory
    streaming: int  # of host memory, to run at all with experts on disk


def needs_of(quant: dict[str, Any], settings: dict[str, Any], entry: dict[str, Any]) -> Needs:
    """Sizes of a quant with the wished context; published minima where there are some, shares of the size elsewhere."""
    wanted = settings["ctx_size"] or entry.get("context_default", 8192)
    context_size = min(wanted, entry.get("context", wanted))
    per_token = entry.get("context_bytes_per_token", {}).get(settings["cache_type_k"], 0)
    context = per_token * math.ceil(context_size / 256) * 256
    compute = settings["ubatch_size"] * COMPUTE_PER_TOKEN
    offload = quant.get("vram_offload") or int(OFFLOAD_SHARE * quant["bytes"]) + context + compute
    streaming = quant.get("ram_streaming") or int(STREAMING_SHARE * quant["bytes"])
    return Needs(quant["bytes"], context_size, context, compute, offload, streaming)


def base_placement(needs: Needs, settings: dict[str, Any], ram: int) -> dict[str, Any]:
    """Everything on the CPU, with a prompt cache of an eighth of the memory at most."""
    return {
        "n_gpu_layers": 0,
        "n_cpu_moe": None,
        "override_tensors": None,
        "tensor_split": None,
        "ctx_size": needs.context_size,
        **{key: settings[key] for key in ("cache_type_k", "cache_type_v", "parallel", "ubatch_size")},
        "load_mode": "auto",
        "repack": True,
        "warmup": True,
        "cache_ram_mib": min(8192, ram // 8 // 2**20),
        "threads": settings.get("threads"),
        "numa": settings.get("numa"),
        "rpc_servers": settings.get("rpc_servers", []),
    }


class Place(NamedTuple):
    """Where a quant would go: regime, placement, weights on the devices in bytes, and what to say about it."""

    fit: str
    placement: dict[str, Any]
    on_devices: int
    short: list[str]
    notes: list[str]


def place(
    name: str, needs: Needs, settings: dict[str, Any], entry: dict[str, Any], devices: list[dict[str, Any]], ram: int, total: int
) -> Place:
    """The fastest regime that a quant has room for: on devices, in memory, or streamed from disk.

    Args:
        name: the quant.
        needs: its sizes.
        settings: the wish and the policy.
        entry: the catalogue entry.
        devices: with their capacities.
        ram: capacity of the host, bytes.
        total: all of the host's memory, bytes.
    """
    placement = base_placement(needs, settings, ram)
    vram = sum(device["capacity"] for device in devices)
    notes: list[str] = [] if devices else ["no device: planned on the CPU"]
    if devices and needs.weights + needs.context + needs.compute * len(devices) <= vram:
        placement["n_gpu_layers"] = EVERY_LAYER
        return Place("vram", placement, needs.weights, [], notes)
    on_devices = 0
    if devices and entry.get("experts") and needs.offload <= vram:
        on_devices = min(max(0, needs.offload - needs.context - needs.compute), needs.weights)
        placement.update(n_gpu_layers=EVERY_LAYER, n_cpu_moe=entry.get("layers") or "all")
    elif devices:
        wanted = f"{amount(needs.offload)} of it beside its experts" if entry.get("experts") else amount(needs.weights + needs.context)
        notes.append(f"the devices give {amount(vram)}, {name} needs {wanted}: planned on the CPU")
    in_ram = needs.weights - on_devices + needs.context + needs.compute
    if in_ram <= ram:
        if in_ram + placement["cache_ram_mib"] * 2**20 > ram:
            placement["cache_ram_mib"] = 0
        return Place("resident", placement, on_devices, [], notes)
    if total >= needs.streaming and needs.context + needs.compute <= ram:
        # Only a mapped file can be larger than the memory; what would copy or touch all of it is left out.
        placement.update(load_mode="mmap", repack=False, warmup=False, cache_ram_mib=0)
        notes.append(f"{amount(in_ram - ram)} of the weights stay on disk: expect the speed of the disk")
        return Place("streaming", placement, on_devices, [], notes)
    short = f"memory: {name} needs {amount(needs.streaming)} of host memory even with its experts on disk, the host has {amount(total)}"
    return Place("none", placement, on_devices, [short], notes)


def disk_room(
    name: str, quant: dict[str, Any], facts: dict[str, Any], settings: dict[str, Any], entry: dict[str, Any]
) -> tuple[int, dict[str, Any], list[str]]:
    """Bytes still to fetch, room required and free, and what is short. A model that is there needs no room."""
    size = quant["bytes"]
    here = name in present(facts, entry["repo_id"], quant["commit"])
    begun = [other["bytes"] for other in facts.get("partial_models", []) if (other["commit"], other["quant"]) == (quant["commit"], name)]
    remaining = 0 if here else max(0, size - sum(begun))
    buffer = settings["disk_buffer"] if settings["disk_buffer"] is not None else entry.get("disk_buffer", max(10**9, size // 20))
    required = remaining + buffer if remaining else 0
    disk = next((other for other in facts.get("disks", []) if other["path"] == settings["model_root"]), None)
    room = {"path": settings["model_root"], "required": required, "free": disk["free"] if disk else 0}
    if not disk or required <= disk["free"]:
        return remaining, room, []
    short = (
        f"disk: {name} needs {amount(required)} free in {settings['model_root']} ({amount(remaining)} to fetch "
        f"and {amount(buffer)} to spare), {amount(disk['free'])} are free: make room, or set llama_model_root to a larger disk"
    )
    return remaining, room, [short]


def memory_of(needs: Needs, found: Place, devices: list[dict[str, Any]], ram: int, total: int) -> dict[str, Any]:
    """Bytes on every device, shared by capacity, and on the host, with what is left of each."""
    vram = sum(device["capacity"] for device in devices)
    offloaded = found.placement["n_gpu_layers"] > 0
    shares = []
    for device in devices:
        part = {"weights": 0, "context": 0, "compute": needs.compute if offloaded else 0}
        if vram:
            part["weights"] = found.on_devices * device["capacity"] // vram
            part["context"] = needs.context * device["capacity"] // vram if offloaded else 0
        identity = {key: device[key] for key in ("uuid", "engine_name", "total", "capacity")}
        shares.append({**identity, **part, "headroom": device["capacity"] - sum(part.values())})
    host = {
        "weights": needs.weights - found.on_devices,
        "context": 0 if offloaded else needs.context,
        "compute": needs.compute,
        "cache": found.placement["cache_ram_mib"] * 2**20,
    }
    return {"devices": shares, "host": {**host, "total": total, "capacity": ram, "headroom": ram - sum(host.values())}}


def assess(name: str, quant: dict[str, Any], facts: dict[str, Any], settings: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
    """Where one quant would go on one host: regime, placement, memory, disk and what is short."""
    devices, ram = capacities(facts, settings)
    total = facts["memory"]["total"]
    needs = needs_of(quant, settings, entry)
    found = place(name, needs, settings, entry, devices, ram, total)
    fit, short, notes = found.fit, list(found.short), list(found.notes)
    if settings.get("require_gpu") and found.placement["n_gpu_layers"] == 0:
        fit = "none"
        vram = sum(device["capacity"] for device in devices)
        short.append(f"device: a GPU is required (llama_plan_require_gpu), {len(devices)} found with {amount(vram)} to use")
    if settings.get("placement"):
        found.placement.update(settings["placement"])
        notes.append("placement as told: " + ", ".join(f"{key}={value}" for key, value in sorted(settings["placement"].items())))
    remaining, room, full = disk_room(name, quant, facts, settings, entry)
    short += full
    return {
        "quant": name,
        "bytes": quant["bytes"],
        "fit": fit,
        "short_of": short,
        "notes": notes,
        "offloaded": found.placement["n_gpu_layers"] > 0,
        "placement": found.placement,
        "memory": memory_of(needs, found, devices, ram, total),
        "disk": room,
        "download": {
            "bytes": quant["bytes"],
            "present": quant["bytes"] - remaining,
            "remaining": remaining,
            "eta_seconds": math.ceil(remaining * 8 / settings["link_bits_per_second"]),
        },
        "usable": fit != "none" and not short,
    }
