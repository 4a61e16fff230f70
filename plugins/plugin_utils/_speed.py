# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast one user's tokens will come. Pure; bytes, and bytes in a second.

A token reads its weights once, from wherever they lie, so bandwidths bound the speed. Of that bound, servers of these
models were seen to reach between a quarter and seven tenths: twelve memory channels on two sockets with a large card gave
22 tokens/s for a quant whose bound is about 73.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.onprem.llamacpp.plugins.plugin_utils._capacity import DEVICE_BANDWIDTH, Capacity
from ansible_collections.onprem.llamacpp.plugins.plugin_utils._sizing import Sizing

REACHED = (0.25, 0.7)


def seconds_per_token(found: Sizing, room: Capacity) -> float:
    """The bound: every byte read once at full bandwidth; experts that memory has no room for come from the disk."""
    held = [share["weights"] for share in found.devices]
    seconds = 0.0
    for device, weights in zip(room.devices, held):
        if weights:
            seconds += found.active["devices"] * weights / sum(held) / (device.get("bandwidth") or DEVICE_BANDWIDTH)
    shared = sum(sum(share.values()) for share, device in zip(found.devices, room.devices) if device.get("unified"))
    free = max(0, room.ram - shared - found.host["context"] - found.host["compute"] - found.host["cache"])
    missing = max(0.0, 1 - free / found.host["weights"]) if found.host["weights"] else 0.0
    from_disk = (found.active["experts"] + (0 if found.offloaded else found.active["host"])) * missing
    from_ram = found.active["experts"] + found.active["host"] - from_disk
    return seconds + from_ram / room.ram_bandwidth + from_disk / room.disk_bandwidth


def expected(found: Sizing, room: Capacity, quant: Mapping[str, Any], benchmark: Mapping[str, Any]) -> dict[str, Any]:
    """Tokens a second as a range with its basis: a benchmark of this very quant, with what was estimated beside it; else the estimate."""
    estimate = estimated(found, room, quant)
    measured = benchmark.get("tokens_per_second")
    if not measured:
        return estimate
    compared = {key: estimate[key] for key in ("low", "high", "basis")}
    return {"tokens_per_second": measured, "low": measured, "high": measured, "basis": "benchmark", "estimate": compared}


def estimated(found: Sizing, room: Capacity, quant: Mapping[str, Any]) -> dict[str, Any]:
    """Tokens a second from bandwidths, or the figure that is published for the quant where nothing is known of them."""
    bound = seconds_per_token(found, room)
    if bound <= 0:
        guide = quant.get("tokens_per_second")
        return {"tokens_per_second": guide, "low": guide, "high": guide, "basis": "guide" if guide else "none"}
    low, high = (_rounded(share / bound) for share in REACHED)
    return {"tokens_per_second": _rounded((low * high) ** 0.5), "low": low, "high": high, "basis": "bandwidth"}


def _rounded(value: float) -> float:
    """Two significant digits: more would be a promise."""
    return float(f"{value:.2g}")
