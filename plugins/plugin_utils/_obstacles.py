# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of a host stands in the way of a plan, whatever is deployed: who holds its port, its devices, its memory. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.onprem.llamacpp.plugins.module_utils._words import amount
from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _plan_text, _strangers

Facts = Mapping[str, Any]
NOTEWORTHY_PERCENT = 2


def overdrawn(instance: Facts, settings: Facts) -> list[str]:
    """What to do where the last start took clearly more on a device than was planned."""
    variable = "its vram_margin" if settings.get("further") else "llama_plan_vram_margin"
    return [
        f"{share['engine_name']} took {amount(share['actual'] - share['planned'])} more than planned at the last start: "
        f"raise {variable} by as much"
        for share in instance.get("actual", [])
        if share["error_percent"] > NOTEWORTHY_PERCENT
    ]


def on_host(facts: Facts, settings: Facts) -> list[str]:
    """What on the host stands in the way whatever is deployed."""
    own, port = settings["instance"], settings["port"]
    problems = list(settings.get("problems", []))
    everywhere = ("0.0.0.0", "::")
    another = f"choose another {'one in llama_instances' if settings.get('further') else 'llama_server_port'}"
    known = [entry for entry in facts.get("instances", []) if entry["name"] != own]
    for entry in known:
        theirs = () if entry.get("planned") else (entry.get("port"), *entry.get("front_ports", []))
        for wanted in sorted({port, *settings.get("ports", [])} & {*theirs}):
            problems.append(f"port: {wanted} is that of instance {entry['name']}, {_strangers.undeclared(entry['name'])}, or {another}")
    # Who holds it now, but for the instance itself, those that were just looked at, and those that move away before it is needed.
    expected = {f"llamacpp@{name}.service" for name in (own, *(entry["name"] for entry in known))}
    for entry in facts.get("listeners", []):
        unit = entry.get("unit", "")
        clash = settings["host"] in everywhere or entry["address"] in (*everywhere, settings["host"])
        if entry["port"] != port or not clash or unit in expected:
            continue
        holder = (entry["program"], entry["pid"], unit)
        remedy = _strangers.moving(unit) if _strangers.is_ours(unit) else f"stop it ({_strangers.remedy(*holder)})"
        problems.append(f"port: {port} is held by {_strangers.name(*holder)}: {remedy} or {another}")
    return problems


def others(beside: list[dict[str, Any]]) -> list[str]:
    """What the other instances of the host hold, for a wish that does not fit beside them."""
    less = "is planned before it: give that less (a smaller quant, its devices, a larger vram_margin)"
    return [
        f"{entry['instance']} has {_plan_text.holds(entry)} and {less}"
        if entry["declared"]
        else f"instance {entry['instance']} has {_plan_text.holds(entry)}, {_strangers.undeclared(entry['instance'])}"
        for entry in beside
    ]
