# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Says a plan in words."""

from __future__ import annotations

from typing import Any

from ansible_collections.onprem.llamacpp.plugins.module_utils._words import amount


def refusal(result: dict[str, Any]) -> str:
    """One sentence or two for the user whose wish is refused."""
    return f"{result['model']} {result['quant_requested']} is refused on {result['host']}: " + "; ".join(result["reasons"])


def text(result: dict[str, Any]) -> list[str]:
    """The plan in a few lines for a terminal; a refusal is told by its reasons alone."""
    head = f"{result['verdict']}: {result['model']} {result['quant'] or result['quant_requested']}"
    if result["verdict"] == "refuse" or not result["placement"]:
        return [head, *result["reasons"]]
    place, host, download = result["placement"], result["memory"]["host"], result["download"]
    needed = sum(host[part] for part in ("weights", "context", "compute", "cache"))
    lines = [
        f"{head} ({amount(download['bytes'])}, fit {result['fit']}, basis {result['basis']})",
        f"host memory: {amount(needed)} of {amount(host['capacity'])}",
    ]
    for device in result["memory"]["devices"] if place["n_gpu_layers"] else []:
        needed = device["weights"] + device["context"] + device["compute"]
        lines.append(f"{device['engine_name']}: {amount(needed)} of {amount(device['capacity'])}")
    if download["remaining"]:
        lines.append(f"to fetch: {amount(download['remaining'])}, about {_duration(download['eta_seconds'])} at the link speed given")
    else:
        lines.append("to fetch: nothing, the model is on the host")
    experts = f", experts of {place['n_cpu_moe']} layers in host memory" if place["n_cpu_moe"] else ""
    lines.append(
        f"context {place['ctx_size']} tokens, {place['parallel']} slot(s), "
        f"{'layers on the devices' if place['n_gpu_layers'] else 'everything on the CPU'}{experts}"
    )
    return lines + result["reasons"] + result["notes"]


def _duration(seconds: int) -> str:
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
