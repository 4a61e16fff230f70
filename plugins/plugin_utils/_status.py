# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a fleet is: one state for each instance, with the reasons, as a document and as lines of text. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

from ansible_collections.onprem.llamacpp.plugins.plugin_utils._instances import KEYS, MAIN

SCHEMA_VERSION = 1
OK, DEGRADED, FAILED = "ok", "degraded", "failed"
ORDER = (OK, DEGRADED, FAILED)
DAY, HOUR, MINUTE = 86400, 3600, 60
HEADINGS = (
    "host",
    "instance",
    "state",
    "model",
    "quant",
    "build",
    "tokens/s",
    "benchmark",
    "memory plan/actual",
    "up",
    "last gate",
    "gap",
    "deployment",
)


def document(
    collected: Mapping[str, Optional[Mapping[str, Any]]],
    variables: Optional[Mapping[str, Mapping[str, Any]]] = None,
) -> dict[str, Any]:
    """The state of the hosts.

    :param collected: what M(onprem.llamacpp.llama_server_info) returned for each host as ``instances``; None where it could not be asked
    :param variables: of each host, C(model) (alias or repository) and C(quant) that its main instance should serve, missing or empty
        for no matter, C(llama_instances) and C(llama_server_instance), which declare the others, and C(llama_engine_tag) and
        C(llama_engine_source), which are for all of them
    """
    hosts = {}
    for name, found in collected.items():
        if found is None:
            hosts[name] = {"state": FAILED, "reasons": ["it cannot be reached"], "instances": {}}
            continue
        own = (variables or {}).get(name, {})
        wished = {str(entry.get("name")): _wished(entry) for entry in own.get("llama_instances") or []}
        known = {str(own.get("llama_server_instance") or MAIN): {}, MAIN: own, **wished}
        # The distribution decides which engine its packages are.
        tag = "" if own.get("llama_engine_source") == "package" else str(own.get("llama_engine_tag") or "")
        declared = {key: {**known[key], "tag": tag} for key in known}
        instances = {key: instance(told, declared.get(key)) for key, told in found.items()}
        reasons = [] if instances else ["nothing is deployed"]
        missing = [f"{key} is declared in llama_instances and not deployed: run site.yml" for key in wished if key not in found]
        reasons += missing
        states = [each["state"] for each in instances.values()] or [FAILED]
        states += [FAILED] * bool(missing)
        hosts[name] = {"state": max(states, key=ORDER.index), "reasons": reasons, "instances": instances}
    state = max((host["state"] for host in hosts.values()), key=ORDER.index, default=OK)
    return {"schema_version": SCHEMA_VERSION, "state": state, "exit_code": ORDER.index(state), "hosts": hosts}


def _wished(entry: Mapping[str, Any]) -> dict[str, str]:
    """What one of C(llama_instances) should serve: its alias or model, and its quant where it is to be exactly that."""
    free = entry.get("use_case") or entry.get("quant_policy") == "downgrade"
    model = entry.get("alias") or entry.get("model") or KEYS["model"].default
    return {"model": model, "quant": "" if free else entry.get("quant") or KEYS["quant"].default}


def instance(told: Mapping[str, Any], declared: Optional[Mapping[str, Any]]) -> dict[str, Any]:
    """One instance: its state, why, and the figures that an operator asks for. Sizes are bytes.

    :param told: of it, as M(onprem.llamacpp.llama_server_info) returns it
    :param declared: ``model`` and ``quant`` that it should serve, and ``tag`` of its engine; None for one that nothing declares
    """
    deployed, gate, looked = told["deployment"], told["gate"], told["inspection"]
    failed, degraded = _failures(told), list(looked.get("drift") or [])
    if declared is None:
        degraded.append("llama_instances does not declare it: playbooks/remove.yml removes it")
        declared = {}
    if deployed and declared.get("model") and declared["model"] not in (deployed.get("alias"), deployed.get("repo_id")):
        degraded.append(f"it serves {deployed.get('alias')}, declared is {declared['model']}")
    if deployed and declared.get("quant") not in (None, "", "auto", deployed.get("quant")):
        degraded.append(f"it serves {deployed.get('quant')}, declared is {declared['quant']}")
    if deployed and declared.get("tag") and declared["tag"] != str(deployed.get("build_id", "")).split("-", 1)[0]:
        degraded.append(f"its engine is {deployed.get('build_id')}, declared is {declared['tag']} (llama_engine_tag)")
    journal = told["journal"]
    if journal.get("state") == "undone" and journal.get("to") != deployed.get("id"):
        degraded.append(f"the last switch, to {journal.get('to')}, was undone: {journal.get('reason')}")
    if journal.get("state") == "failed":
        told_why = [str(journal.get("reason") or "no reason"), f"going back failed too: {journal.get('undo_reason') or 'no reason'}"]
        degraded.append(f"the last switch, to {journal.get('to')}, failed: {'; '.join(why.rstrip('.') for why in told_why)}")
    degraded += [str(warning) for warning in gate.get("warnings") or []]
    degraded += [f"the driver reports {xid}" for xid in looked.get("xids") or []]
    for uuid, health in (looked.get("devices") or {}).items():
        if health.get("uncorrected"):
            degraded.append(f"the memory of {uuid} has had {health['uncorrected']} errors that it could not correct")
        if health.get("slowed_by"):
            degraded.append(f"{uuid} is slowed down by {', '.join(health['slowed_by'])}")
    if looked.get("restarts"):
        degraded.append(f"the server was restarted {looked['restarts']} times after it had failed")
    shares = [*(told["actual"].get("devices") or []), *(told["actual"].get("host") or [])]
    return {
        "state": FAILED if failed else DEGRADED if degraded else OK,
        "reasons": failed + degraded,
        "deployment": deployed.get("id", ""),
        "previous": told["previous"],
        "model": deployed.get("alias", ""),
        "quant": deployed.get("quant", ""),
        "build": deployed.get("build_id", ""),
        "health": told["health"],
        "tokens_per_second": gate.get("tokens_per_second"),
        "benchmark": (told.get("benchmark") or {}).get("tokens_per_second"),
        "memory": {"planned": sum(share["planned"] for share in shares), "actual": sum(share["actual"] for share in shares)},
        "uptime_seconds": looked.get("uptime_seconds", 0),
        "gap_seconds": gate.get("gap_seconds"),
        "gated_at": gate.get("finished_at", ""),
        "devices": looked.get("devices") or {},
    }


def _failures(told: Mapping[str, Any]) -> list[str]:
    """Why the instance does not serve; empty when it does."""
    if not told["deployment"]:
        return ["nothing is deployed"]
    if told["active_state"] != "active":
        return [f"its unit is {told['active_state']}"]
    if told["health"] == "loading":
        return ["it is loading its model"]
    if told["health"] != "ok":
        return [f"the server is not healthy ({told['health']})"]
    # One that passed and failed when it had to again does answer, and the reasons to look at it say so.
    again = told["journal"].get("state") == "failed" and told["journal"].get("committed") == told["deployment"].get("id")
    return [] if told["committed"] or again else ["its deployment has not passed the gate"]


def text(status: Mapping[str, Any]) -> list[str]:
    """A table with a row for each instance, and a line for each reason."""
    rows, reasons = [], []
    for name, host in status["hosts"].items():
        reasons += [f"{name}: {reason}" for reason in host["reasons"]]
        if not host["instances"]:
            rows.append((name, "-", host["state"], *["-"] * (len(HEADINGS) - 3)))
        for key, each in host["instances"].items():
            reasons += [f"{name} {key}: {reason}" for reason in each["reasons"]]
            memory = each["memory"]
            rows.append(
                (
                    name,
                    key,
                    each["state"],
                    each["model"] or "-",
                    each["quant"] or "-",
                    each["build"] or "-",
                    f"{each['tokens_per_second']:g}" if each["tokens_per_second"] else "-",
                    f"{each['benchmark']:g}" if each["benchmark"] else "-",
                    f"{memory['planned'] / 1e9:.1f}/{memory['actual'] / 1e9:.1f} GB" if memory["actual"] else "-",
                    duration(each["uptime_seconds"]),
                    each["gated_at"][:16].replace("T", " ") or "-",
                    f"{each['gap_seconds']:.1f}s" if each["gap_seconds"] else "-",
                    each["deployment"] or "-",
                )
            )
    widths = [max(len(row[column]) for row in [HEADINGS, *rows]) for column in range(len(HEADINGS))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in [HEADINGS, *rows]]
    return table + reasons


def duration(seconds: int) -> str:
    """Seconds in the two largest units that matter."""
    if not seconds:
        return "-"
    if seconds >= DAY:
        return f"{seconds // DAY}d{seconds % DAY // HOUR}h"
    if seconds >= HOUR:
        return f"{seconds // HOUR}h{seconds % HOUR // MINUTE}m"
    return f"{seconds // MINUTE}m{seconds % MINUTE}s"
