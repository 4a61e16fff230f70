# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans all instances of a host: main first, then the others in their order, each on what the ones before leave. Pure.

Each is planned on the host as it will be once the plans before it are carried out: their memory is taken, their models are on
the disk. What an instance itself holds now is its own to plan with, as everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Optional

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _capacity, _catalog, _instances, _plan_text, _planner

Facts = Mapping[str, Any]
Wishes = Mapping[str, Mapping[str, Any]]
Exact = Mapping[str, dict[str, Any]]
ENGINE_FOR_ALL = "cuda"


class Planned(NamedTuple):
    """The plans of one host by instance, and what could not be planned at all."""

    plans: dict[str, dict[str, Any]]
    errors: list[str]


def refusals(planned: Planned) -> str:
    """Why the host is refused, of all its instances; empty when none is."""
    told = [_plan_text.refusal(plan) for plan in planned.plans.values() if plan["verdict"] == "refuse"]
    return " ".join([*planned.errors, *(f"{sentence}." for sentence in told[:-1]), *told[-1:]])


def answer(question: Mapping[str, Any], listings: Sequence[Mapping[str, Any]]) -> Optional[dict[str, Any]]:
    """What a repository has answered to a question, if anything."""
    found = (listing for listing in listings if listing.get("__llama_plan_ask") == question and "quants" in listing)
    return next((dict(listing) for listing in found), None)


def plan_host(
    facts: Facts,
    wishes: Wishes,
    listings: Sequence[Mapping[str, Any]] = (),
    exact: Optional[Exact] = None,
) -> Planned:
    """The plans of a host's instances.

    Args:
        facts: C(llama_hardware) of the host.
        wishes: by instance in the order of planning, each with C(settings), C(entry) and C(question), as plan_inputs returns them.
        listings: what repositories answered, each with its question.
        exact: what llama_fit_info returned for instances that it was asked about.
    """
    planned = _round(facts, wishes, listings, exact or {})
    backends = {plan["engine_backend"] for plan in planned.plans.values()}
    if len(backends) > 1:
        # One engine serves all instances, so what is planned on the CPU runs on the devices' engine too.
        both = {name: {**wish, "settings": {**wish["settings"], "backend": ENGINE_FOR_ALL}} for name, wish in wishes.items()}
        planned = _round(facts, both, listings, exact or {})
    give_turns(facts, planned.plans)
    return planned


def _round(facts: Facts, wishes: Wishes, listings: Sequence[Mapping[str, Any]], exact: Exact) -> Planned:
    plans: dict[str, dict[str, Any]] = {}
    errors: list[str] = []
    devices = facts.get("devices", [])
    shares = _instances.share_out(devices, {name: wish["settings"].get("devices") or [] for name, wish in wishes.items()})
    clashes = _instances.clashes({name: wish["ports"] for name, wish in wishes.items()}) if len(wishes) > 1 else {}
    then = facts
    for name, wish in wishes.items():
        share = shares[name]
        settings = {**wish["settings"], "declared": list(wishes), "allowed": share.uuids, "ports": [*wish["ports"].values()]}
        settings["keep"] = [*settings.get("keep", []), *(_wanted(other) for key, other in wishes.items() if key != name)]
        settings["problems"] = [*settings.get("problems", []), *share.problems, *clashes.get(name, [])]
        seen = _as_seen(then, name, list(wishes), plans, share.uuids)
        try:
            plan = _planner.plan(seen, settings, wish["entry"], answer(wish["question"], listings), exact.get(name))
        except _catalog.PlanError as error:
            errors.append(str(error) if not settings.get("further") else f"{_instances.VARIABLE}: {name}: {error}")
            continue
        plans[name] = plan
        if plan["verdict"] != "refuse" and len(wishes) > 1:
            then = after(then, plan)
    return Planned(plans, errors)


def give_turns(facts: Facts, plans: dict[str, dict[str, Any]]) -> None:
    """Says in which order the instances are switched (C(turn)): who needs room that another gives up comes after it.

    Two that each need what the other has until then are refused: nobody would have memory for a second server in between.
    """
    held = {entry["name"]: entry.get("plan") or {} for entry in facts.get("instances", []) if entry.get("active") == "active"}
    left = [name for name in plans if plans[name]["verdict"] != "refuse"] if len(plans) > 1 else []
    for plan in plans.values():
        plan["turn"] = 0
    for turn in range(len(left)):
        name = next((name for name in left if _has_room(facts, plans[name], held)), "")
        if not name:
            for stuck in left:
                plans[stuck].update(verdict="refuse", reasons=[*plans[stuck]["reasons"], _stuck(stuck, left)])
            return
        plans[name]["turn"] = turn
        held[name] = plans[name]
        left.remove(name)


def _has_room(facts: Facts, plan: Mapping[str, Any], held: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether a plan can be carried out while the others are as they are; one that stays, or is forced, asks for no room."""
    others = [entry for name, entry in held.items() if name != plan["instance"]]
    return plan["kept"] or _capacity.fits_beside(facts, plan, others) or not _capacity.fits_beside(facts, plan, [])


def _stuck(name: str, left: Sequence[str]) -> str:
    others = [other for other in left if other != name]
    units = " ".join(f"llamacpp@{other}" for other in others)
    return f"{name} has no room until {' and '.join(others)} has moved, nor the other way round: systemctl stop {units}, and run again"


def _wanted(wish: Mapping[str, Any]) -> dict[str, str]:
    """What another instance wishes to have on the disk; all of its repository where it is not said which quant."""
    settings = wish["settings"]
    named = settings["quant"] != "auto" and not settings["use_case"] and settings["quant_policy"] != "downgrade"
    return {"repo_id": wish["entry"]["repo_id"], **({"quant": settings["quant"]} if named else {})}


def _as_seen(facts: Facts, name: str, declared: Sequence[str], before: Facts, uuids: Optional[list[str]]) -> dict[str, Any]:
    """The host for one instance: those that are planned later have nothing yet, and devices of others are not there."""
    instances = [
        entry
        for entry in facts.get("instances", [])
        if entry["name"] == name or entry["name"] not in declared or (entry["name"] in before and entry.get("planned"))
    ]
    seen = {**facts, "instances": instances}
    if uuids is not None:
        seen["devices"] = [device for device in facts.get("devices", []) if _instances.identity(device) in uuids]
    return seen


def after(facts: Facts, plan: Mapping[str, Any]) -> dict[str, Any]:
    """The host once a plan is carried out: the instance runs, its model is there, and what had to go for it is gone."""
    name = plan["instance"]
    identity = {key: plan[key] for key in ("repo_id", "commit", "quant")}
    known = next((entry for entry in facts.get("instances", []) if entry["name"] == name), {"name": name})
    running = {**known, "active": "active", "plan": plan, "planned": True}
    removed = {entry["path"] for entry in plan["disk"].get("removes", [])}
    models, freed, here = [], 0, False
    for model in facts.get("models", []):
        if model["path"] in removed:
            freed += int(model.get("frees", model["bytes"]))
            continue
        same = all(model[key] == identity[key] for key in identity)
        here = here or (same and model["complete"])
        models.append({**model, "used_by": [*(model.get("used_by") or []), {"instance": name, "link": "current"}]} if same else model)
    if not here:
        models.append(_coming(plan, identity))
    free = freed - plan["download"]["remaining"]
    path = plan["disk"]["path"]
    return {
        **facts,
        "instances": [*(entry for entry in facts.get("instances", []) if entry["name"] != name), running],
        "models": models,
        "partial_models": [entry for entry in facts.get("partial_models", []) if any(entry[key] != identity[key] for key in identity)],
        "disks": [{**disk, "free": max(0, disk["free"] + free)} if disk["path"] == path else disk for disk in facts.get("disks", [])],
    }


def _coming(plan: Mapping[str, Any], identity: Mapping[str, str]) -> dict[str, Any]:
    """A model that is not there yet, as far as those who are planned after it are concerned: they need not fetch it again."""
    manifest = {"files": plan["files"], "header": plan["header"]}
    size = plan["download"]["bytes"]
    users = [{"instance": plan["instance"], "link": "current"}]
    return {**identity, "path": "", "bytes": size, "frees": 0, "complete": True, "manifest": manifest, "used_by": users}
