# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where one quant would go on one host, and what it takes there. Pure; sizes are bytes.

With the model's header the numbers are those of the memory model, or of the engine that was asked; without it they
follow from the quant's size and what its publisher says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Optional

from ansible_collections.onprem.llamacpp.plugins.module_utils import _memory_model
from ansible_collections.onprem.llamacpp.plugins.module_utils._memory_model import ALL_EXPERTS, CACHE_BLOCKS, Model, Setup
from ansible_collections.onprem.llamacpp.plugins.module_utils._placement import EVERY_LAYER, as_placement, planned_setup, search
from ansible_collections.onprem.llamacpp.plugins.plugin_utils._capacity import Capacity

# Part of an uncatalogued model that must find room in memory for it to run at all with the rest on disk. The published
# minima of the catalogued mixture-of-experts quants lie between 0.23 and 0.35 of their sizes.
STREAMING_SHARE = 0.35
# Part of a mixture of experts that is not experts, and scratch memory for each token computed at once, where no header
# tells them.
OFFLOAD_SHARE = 0.15
COMPUTE_PER_TOKEN = 2 * 2**20
# Flash attention of this cache needs tensor cores of this generation or newer.
LATENT_ATTENTION_CAPABILITY = 7.5


class Sizing(NamedTuple):
    """A placement and what it takes: ``{weights, context, compute}`` on each device and, with C(cache), on the host."""

    placement: dict[str, Any]
    devices: list[dict[str, int]]
    host: dict[str, int]
    active: dict[str, int]  # bytes read for each token: from devices, dense ones from the host, experts from the host
    everything_on_devices: bool
    basis: str
    checkpoint: int = 0  # a copy of every slot's state, from which it can go on
    layers_on_host: bool = False  # the processor computes more than experts

    @property
    def in_ram(self) -> int:
        """What the host must hold so that nothing stays on disk."""
        return self.host["weights"] + self.host["context"] + self.host["compute"]

    @property
    def offloaded(self) -> bool:
        return self.placement["n_gpu_layers"] > 0


def base_placement(settings: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    """Everything on the CPU, with the context that is wished or that suits the model."""
    wanted = settings["ctx_size"] or entry.get("context_default", 8192)
    return {
        "n_gpu_layers": 0,
        "n_cpu_moe": None,
        "override_tensors": None,
        "tensor_split": None,
        "ctx_size": min(wanted, entry.get("context", wanted)),
        **{key: settings[key] for key in ("cache_type_k", "cache_type_v", "parallel", "ubatch_size")},
        "load_mode": "auto",
        "repack": True,
        "warmup": True,
        "cache_ram_mib": 0,
        "threads": settings.get("threads"),
        "numa": settings.get("numa"),
        "rpc_servers": settings.get("rpc_servers", []),
    }


def size(
    quant: Mapping[str, Any],
    settings: Mapping[str, Any],
    entry: Mapping[str, Any],
    room: Capacity,
    on_cpu: bool = False,
    exact: Optional[Mapping[str, Any]] = None,
) -> Sizing:
    """The best placement of a quant on the devices, or on the CPU alone.

    Args:
        quant: its C(bytes), and the C(header) where it was read, or its C(likeness) where another quant's was.
        settings: the wish.
        entry: the catalogue entry.
        room: what the host can give.
        on_cpu: use no device.
        exact: the engine's answer about this quant on these devices, as llama_fit_info returns it.
    """
    placement = base_placement(settings, entry)
    header = quant.get("header") or quant.get("likeness")
    if not header:
        return _by_size(quant, settings, entry, room, placement, on_cpu)
    model = Model(dict(header))
    context = model.number("context_length", 0)
    if context and not settings["ctx_size"]:
        placement["ctx_size"] = min(placement["ctx_size"], context)
    found = _by_header(model, settings, room, placement, on_cpu, exact)
    return found if quant.get("header") else found._replace(basis="catalog")


def _by_header(
    model: Model, settings: Mapping[str, Any], room: Capacity, placement: dict[str, Any], on_cpu: bool, exact: Optional[Mapping[str, Any]]
) -> Sizing:
    told = _told(settings, placement, room)
    setup = planned_setup({**placement, **told}, flash_attention(model, room.devices))
    count = 0 if on_cpu else len(room.devices)
    if exact:
        setup = planned_setup({**placement, **told, **exact["placement"]}, setup.flash_attention)
    elif count and not {"n_gpu_layers", "n_cpu_moe", "tensor_split"} & set(told):
        setup = search(model, setup, [device["capacity"] for device in room.devices]) or setup
    found = _memory_model.memory(model, setup, count)
    devices, host = found["devices"], {**found["host"], "cache": 0}
    if exact:
        devices = [{part: share[part] for part in ("weights", "context", "compute")} for share in exact["devices"]]
        host["weights"] = max(0, model.total + model.doubled - sum(share["weights"] for share in devices))
    placement.update(as_placement(setup))
    offloaded = setup.n_gpu_layers > 0
    return Sizing(
        placement,
        devices or [_nothing() for _device in room.devices],
        host,
        _active(model, setup, count),
        offloaded and host["weights"] <= model.header["input"],
        "engine" if exact else "headers",
        _memory_model.checkpoint(model, setup) * setup.parallel,
        _memory_model.HOST in _memory_model.assign(model.count, setup.n_gpu_layers, setup.tensor_split, count),
    )


def _told(settings: Mapping[str, Any], placement: Mapping[str, Any], room: Capacity) -> dict[str, Any]:
    """What the user orders of a placement; who splits layers or spares experts means all layers to be offloaded."""
    told = {key: value for key, value in (settings.get("placement") or {}).items() if key in placement}
    if room.devices and {"n_cpu_moe", "tensor_split"} & set(told):
        told.setdefault("n_gpu_layers", EVERY_LAYER)
    return told


def flash_attention(model: Model, devices: list[dict[str, Any]]) -> bool:
    """Whether every device has the attention kernel that the model's cache needs."""
    return not model.latent or all(
        float(device.get("compute_capability") or 99) >= LATENT_ATTENTION_CAPABILITY for device in devices if device["kind"] == "cuda"
    )


def _active(model: Model, setup: Setup, devices: int) -> dict[str, int]:
    """Bytes of weights that one token reads, by where they lie."""
    places = _memory_model.assign(model.count, setup.n_gpu_layers, setup.tensor_split, devices)
    spared = _memory_model.experts_on_host(model, setup.n_cpu_moe)
    share = model.experts_used / model.experts if model.experts else 1.0
    found = {"devices": 0, "host": 0, "experts": 0}
    for number, layer in enumerate(model.layers):
        on_host = places[number] == _memory_model.HOST
        found["host" if on_host else "devices"] += layer["rest"]
        found["experts" if on_host or number < spared else "devices"] += int(layer["experts"] * share)
    found["host" if places[-1] == _memory_model.HOST else "devices"] += model.output
    return found


def _nothing() -> dict[str, int]:
    return {"weights": 0, "context": 0, "compute": 0}


def _by_size(
    quant: Mapping[str, Any],
    settings: Mapping[str, Any],
    entry: Mapping[str, Any],
    room: Capacity,
    placement: dict[str, Any],
    on_cpu: bool,
) -> Sizing:
    weights = quant["bytes"]
    rates = entry.get("context_bytes_per_token", {})
    kind = settings["cache_type_k"]
    per_token = rates.get(kind, rates.get("f16", 0) * CACHE_BLOCKS.get(kind, CACHE_BLOCKS["f16"]) // CACHE_BLOCKS["f16"])
    context = per_token * math.ceil(placement["ctx_size"] / 256) * 256
    compute = settings["ubatch_size"] * COMPUTE_PER_TOKEN
    # For device memory the fit decides; the guide's figure stands in where the share of the experts is not known.
    dense = 1 - entry["expert_share"] if "expert_share" in entry else OFFLOAD_SHARE
    offload = int(dense * weights) + context + compute
    if "expert_share" not in entry:
        offload = quant.get("vram_offload") or offload
    on_devices = 0
    devices = [] if on_cpu else room.devices
    told = _told(settings, placement, room) if devices else {}
    whole = bool(devices) and weights + context + compute * len(devices) <= room.vram
    if told.get("n_gpu_layers"):
        whole = not told.get("n_cpu_moe")
        on_devices = weights if whole else min(int(dense * weights), weights)
        placement["n_gpu_layers"] = told["n_gpu_layers"]
    elif whole:
        placement["n_gpu_layers"], on_devices = EVERY_LAYER, weights
    elif devices and entry.get("experts") and offload <= room.vram:
        on_devices = min(max(0, offload - context - compute), weights)
        placement.update(n_gpu_layers=EVERY_LAYER, n_cpu_moe=entry.get("layers") or ALL_EXPERTS)
    offloaded = placement["n_gpu_layers"] > 0
    shares = []
    for device in room.devices:
        part = device["capacity"] / room.vram if room.vram and offloaded else 0.0
        shares.append({"weights": int(on_devices * part), "context": int(context * part), "compute": compute if part else 0})
    host = {"weights": weights - on_devices, "context": 0 if offloaded else context, "compute": compute, "cache": 0}
    layers_on_host = placement["n_gpu_layers"] <= entry.get("layers", EVERY_LAYER - 1)
    active = _active_by_size(weights, on_devices, entry)
    return Sizing(placement, shares, host, active, whole, "catalog", layers_on_host=layers_on_host)


def _active_by_size(weights: int, on_devices: int, entry: Mapping[str, Any]) -> dict[str, int]:
    """Bytes read for each token where only sizes are known; everything is read of a model that has no experts."""
    if not entry.get("experts"):
        return {"devices": on_devices, "host": weights - on_devices, "experts": 0}
    experts = int(weights * entry.get("expert_share", 1 - OFFLOAD_SHARE))
    read = int(experts * entry.get("experts_used", entry["experts"]) / entry["experts"])
    dense = weights - experts
    if on_devices >= weights:
        return {"devices": dense + read, "host": 0, "experts": 0}
    return {"devices": dense, "host": 0, "experts": read} if on_devices else {"devices": 0, "host": dense, "experts": read}


def minimum_in_memory(quant: Mapping[str, Any], found: Sizing) -> int:
    """Host memory with which a quant still runs with experts on disk: its publisher's figure, or a share of its size."""
    return quant.get("ram_streaming") or int(STREAMING_SHARE * quant["bytes"]) + found.host["context"]
