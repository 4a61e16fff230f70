# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plans of a fleet: all of them made, as one document, and as text. docs/plan.schema.json describes the document."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, Optional

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _catalog, _plan_text, _planner, _recorded

SCHEMA_VERSION = 1
# What plan_inputs returned for a host; nothing for one that was not reached or was refused there.
Inputs = Mapping[str, Optional[dict[str, Any]]]


def plan_all(inputs: Inputs, listings: list[dict[str, Any]]) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """The plan of every host that has inputs, and the sentence of refusal for each that is refused.

    Args:
        inputs: by the host's name in the inventory.
        listings: what repositories answered, each with its question.
    """
    answers = [(listing["__llama_plan_ask"], listing) for listing in listings if "quants" in listing]
    plans, refused = {}, {}
    for host, known in inputs.items():
        if not known or "facts" not in known:
            continue
        listing = next((answer for question, answer in answers if question == known["question"]), None)
        try:
            plan = _planner.plan(known["facts"], known["settings"], known["entry"], listing)
        except _catalog.PlanError as error:
            refused[host] = str(error)
            continue
        plans[host] = plan
        if plan["verdict"] == "refuse":
            refused[host] = _plan_text.refusal(plan)
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


def document(inputs: Inputs, plans: dict[str, dict[str, Any]], unread: list[str], now: datetime) -> dict[str, Any]:
    """Every host's plan with what a reader needs to know about its making.

    Args:
        inputs: by the host's name in the inventory.
        plans: likewise, where there is one.
        unread: why repositories could not be read.
        now: the time to state.
    """
    entries = []
    for host, plan in plans.items():
        known = inputs[host] or {}
        origin = {
            "inventory_hostname": host,
            "collected_at": known["facts"].get("collected_at", ""),
            "recorded": known["recorded"],
            "link_bits_per_second": known["settings"]["link_bits_per_second"],
            "hardware": _hardware(known["facts"]),
        }
        entries.append({**origin, **{key: value for key, value in plan.items() if key != "header"}})
    meta = {
        "schema_version": SCHEMA_VERSION,
        "generator": "onprem.llamacpp",
        "generated_at": now.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "notes": [" ".join(f"{said.strip()} Sizes are those of the catalogue.".split()) for said in unread],
        "unplanned": [host for host in inputs if host not in plans],
    }
    return {"meta": meta, "plans": entries}


def lines(report: dict[str, Any], now: datetime) -> list[str]:
    """The tables of all hosts, then the fleet's."""
    told: list[str] = []
    for plan in report["plans"]:
        age = _recorded.age(plan["collected_at"], now)
        facts = f"recorded {plan['collected_at']}{', ' + age if age else ''}; the host was not asked" if plan["recorded"] else ""
        told += ["", *_plan_text.text(plan, plan["inventory_hostname"], facts, plan["link_bits_per_second"])]
    told += ["", *_plan_text.summary(report["plans"], report["meta"]["unplanned"])]
    for note in report["meta"]["notes"]:
        told += ["", *_plan_text.paragraph(note)]
    return [*told, ""]
