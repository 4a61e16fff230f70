# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plans of a fleet: all of them made, as one document, and as text. docs/plan.schema.json describes the document."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, Optional

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _plan_text, _recorded, _together

SCHEMA_VERSION = 1
# What plan_inputs returned for a host; nothing for one that was not reached or was refused there.
Inputs = Mapping[str, Optional[dict[str, Any]]]
# The plans of each host, by instance.
Plans = dict[str, dict[str, dict[str, Any]]]


def plan_all(
    inputs: Inputs, listings: list[dict[str, Any]], exact: Optional[Mapping[str, _together.Exact]] = None
) -> tuple[Plans, dict[str, str]]:
    """The plans of every host that has inputs, and the sentences of refusal for each of which an instance is refused.

    Args:
        inputs: by the host's name in the inventory.
        listings: what repositories answered, each with its question.
        exact: what engines said, by host and instance, where they were asked.
    """
    plans, refused = {}, {}
    for host, known in inputs.items():
        if not known or "facts" not in known:
            continue
        planned = _together.plan_host(known["facts"], known["wishes"], listings, (exact or {}).get(host))
        plans[host] = planned.plans
        told = _together.refusals(planned)
        if told:
            refused[host] = told
    return plans, refused


def _hardware(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What a host is made of, as far as a reader of its plan asks; every device, used by the plan or not."""
    shown = ("uuid", "engine_name", "name", "total")
    defaults = {"pci_address": "", "foreign": 0}
    devices = [
        {**{key: device[key] for key in shown}, **{key: device.get(key, default) for key, default in defaults.items()}}
        for device in facts.get("devices", [])
    ]
    return {
        "platform": facts.get("platform", ""),
        "cpu": facts.get("cpu", {}).get("model", ""),
        "memory": facts["memory"]["total"],
        "devices": devices,
        "warnings": list(facts.get("warnings", [])),
    }


def document(inputs: Inputs, plans: Plans, unread: list[str], now: datetime) -> dict[str, Any]:
    """The plans of every host with what a reader needs to know about their making.

    Args:
        inputs: by the host's name in the inventory.
        plans: likewise, by instance, where there are any.
        unread: why repositories could not be read.
        now: the time to state.
    """
    entries = []
    for host, own in plans.items():
        known = inputs[host] or {}
        for name, plan in own.items():
            origin = {
                "inventory_hostname": host,
                "collected_at": known["facts"].get("collected_at", ""),
                "recorded": known["recorded"],
                "link_bits_per_second": known["wishes"][name]["settings"]["link_bits_per_second"],
                "hardware": _hardware(known["facts"]),
            }
            entries.append({**origin, **{key: value for key, value in plan.items() if key != "header"}})
    meta = {
        "schema_version": SCHEMA_VERSION,
        "generator": "onprem.llamacpp",
        "generated_at": now.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "notes": [" ".join(f"{said.strip()} Sizes are those of the catalogue.".split()) for said in unread],
        "unplanned": [host for host in inputs if not plans.get(host)],
    }
    return {"meta": meta, "plans": entries}


def lines(report: dict[str, Any], now: datetime) -> list[str]:
    """The tables of all hosts, then the fleet's."""
    told: list[str] = []
    for plan in report["plans"]:
        name = _plan_text.whose(plan)
        age = _recorded.age(plan["collected_at"], now)
        facts = f"recorded {plan['collected_at']}{', ' + age if age else ''}; the host was not asked" if plan["recorded"] else ""
        told += ["", *_plan_text.text(plan, name, facts, plan["link_bits_per_second"])]
    told += ["", *_plan_text.summary(report["plans"], report["meta"]["unplanned"])]
    for note in report["meta"]["notes"]:
        told += ["", *_plan_text.paragraph(note)]
    return [*told, ""]
