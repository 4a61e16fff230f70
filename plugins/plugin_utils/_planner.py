# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decides what a host can serve: facts and a wish in, a plan with reasons out. No I/O.

What each quant takes is told by ``_fit``; here is chosen among them. Sizes are bytes.
"""

from __future__ import annotations

from typing import Any, Optional

from ansible_collections.onprem.llamacpp.plugins.module_utils._words import amount
from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _advisories, _capacity, _floors, _obstacles
from ansible_collections.onprem.llamacpp.plugins.plugin_utils._canonical import digest
from ansible_collections.onprem.llamacpp.plugins.plugin_utils._catalog import PlanError
from ansible_collections.onprem.llamacpp.plugins.plugin_utils._fit import assess, present

# What a user may order about a placement; the room that a plan finds is not among them.
ORDERS = (
    *("placement", "ctx_size", "cache_type_k", "cache_type_v", "parallel", "ubatch_size", "threads", "numa", "rpc_servers"),
    *("ram_reserve", "vram_margin", "require_gpu", "engine_number"),
)
REGIMES = ("vram", "resident", "streaming")


def _instance(facts: dict[str, Any], name: str) -> dict[str, Any]:
    return next((entry for entry in facts.get("instances", []) if entry["name"] == name), {})


def _wish_hash(settings: dict[str, Any]) -> str:
    return digest({key: settings.get(key) for key in ("model", "quant", "quant_policy", "use_case", "revision")}, 12)


def _orders_hash(settings: dict[str, Any]) -> str:
    # Only hosts whose devices are shared out among instances have an order about devices.
    allowed = {} if settings.get("allowed") is None else {"allowed": settings["allowed"]}
    return digest({**{key: settings.get(key) for key in ORDERS}, **allowed}, 12)


def _kept_plan(facts: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """The plan behind the deployment that serves the same wish now, when nothing asks for a new decision."""
    instance = _instance(facts, settings["instance"])
    plan = instance.get("plan") or {}
    if settings.get("replan") or settings.get("refresh") or not instance.get("committed") or plan.get("wish") != _wish_hash(settings):
        return {}
    return plan if plan.get("quant") in present(facts, plan.get("repo_id", ""), plan.get("commit", "")) else {}


def needs_listing(facts: dict[str, Any], settings: dict[str, Any], entry: dict[str, Any]) -> bool:
    """Whether the repository must be asked; not when what is wished is on the host already."""
    if settings.get("refresh"):
        return True
    if _kept_plan(facts, settings):
        return False
    if settings["use_case"] or settings["quant_policy"] == "downgrade":
        return True  # another quant than the one that is there may be chosen
    return settings["quant"] not in present(facts, entry["repo_id"], settings.get("revision", ""))


def question(settings: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
    """What the repository is asked: the quants it has, and the headers of those that the wish may come to."""
    names: list[str] = []
    if settings.get("read_headers"):
        guide = entry.get("quants", {})
        wished = settings["quant"]
        if settings["use_case"]:
            names = list(entry.get("use_cases", {}).get(settings["use_case"], []))
        elif wished == "auto":
            names = [entry[key] for key in ("default_quant", "fallback_quant") if entry.get(key)]
        elif settings["quant_policy"] == "downgrade":
            names = [name for name in guide if guide[name]["bytes"] < guide.get(wished, {"bytes": 0})["bytes"]] + [wished]
        else:
            names = [wished]
    asked: dict[str, Any] = {"headers": names, "any_header": bool(settings.get("read_headers"))}
    if settings.get("mirror"):
        asked["mirror"] = settings["mirror"]
    return {"repo_id": entry["repo_id"], **{key: settings[key] for key in ("revision", "endpoint")}, **asked}


def quant_table(
    facts: dict[str, Any], settings: dict[str, Any], entry: dict[str, Any], listing: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """Every quant that can be planned, smallest first, with the best knowledge of its files.

    The repository's listing beats what is on the host, which beats the catalogue: published tables contradict each other.
    """
    guide = entry.get("quants", {})
    table: dict[str, dict[str, Any]] = {}
    if not listing:
        for name, known in guide.items():
            table[name] = {**known, "files": [], "commit": ""}
        for name, model in present(facts, entry["repo_id"], settings.get("revision", "")).items():
            files = [{key: file[key] for key in ("path", "size", "sha256")} for file in model["manifest"]["files"]]
            table[name] = {**guide.get(name, {}), "bytes": model["bytes"], "files": files, "commit": model["commit"]}
            table[name]["header"] = model["manifest"].get("header")
    for name, offered in (listing or {}).get("quants", {}).items():
        if offered["complete"]:
            table[name] = {**guide.get(name, {}), "bytes": offered["bytes"], "files": offered["files"]}
            table[name]["commit"] = listing["commit"]
            table[name]["header"] = offered.get("header")
    read = next((quant["header"] for quant in table.values() if quant.get("header")), None)
    for quant in table.values():
        if read and not quant.get("header"):
            quant["likeness"] = scaled(read, quant["bytes"])
    ordered = sorted(table.items(), key=lambda item: (item[1]["bytes"], item[0]))
    # What no publisher says of a quant, the next larger one that it says it of has room for.
    said: dict[str, int] = {}
    for _name, quant in reversed(ordered):
        for key in ("ram_streaming", "vram_offload"):
            if key in quant:
                said[key] = quant[key]
            elif key in said:
                quant[key] = said[key]
    return dict(ordered)


def scaled(header: dict[str, Any], size: int) -> dict[str, Any]:
    """The header of one quant as another of the same model will have it: the same shape, its weights in proportion."""
    ratio = size / header["bytes"]
    layers = [{key: int(layer[key] * ratio) for key in ("experts", "rest")} for layer in header["layers"]]
    return {**header, "bytes": size, "layers": layers, **{key: int(header[key] * ratio) for key in ("input", "output")}, "types": {}}


def choose(settings: dict[str, Any], entry: dict[str, Any], assessed: dict[str, dict[str, Any]], vram: int) -> str:
    """The quant that V(auto) or a use case stands for on this host; nothing when none is usable.

    ``vram`` is the memory of its devices that strangers leave. What suits a card is the guide's to say: it speaks of the speed
    that users of such a card were content with, where the fit only says that a quant runs.
    """
    if settings["use_case"]:
        cases = entry.get("use_cases", {})
        if cases and settings["use_case"] not in cases:
            raise PlanError(f"use case {settings['use_case']!r} is not known for {settings['model']}: it has {', '.join(sorted(cases))}")
        preferred = list(cases.get(settings["use_case"], []))
    else:
        preferred = [entry[key] for key in ("default_quant", "fallback_quant") if entry.get(key)]
    usable = {name: found for name, found in assessed.items() if found["usable"]}
    resident = [name for name in usable if usable[name]["fit"] != "streaming"]
    if vram and any(found["offloaded"] for found in usable.values()):
        fitting = [name for name in preferred if name in usable and usable[name]["offloaded"] and usable[name]["guide_vram"] <= vram]
    else:
        # Without a device that is of use, what stays in memory is worth more than what was wished for.
        fitting = [name for name in preferred if name in resident] or resident[-1:] or [name for name in preferred if name in usable]
    return (fitting[:1] or resident[-1:] or list(usable)[-1:] or [""])[0]


def decide(
    settings: dict[str, Any], entry: dict[str, Any], assessed: dict[str, dict[str, Any]], broken: dict[str, str], vram: int
) -> tuple[str, str, list[str]]:
    """Quant, verdict and reasons for a wish, following the quant policy where the wish does not fit."""
    wanted = settings["quant"]
    if wanted == "auto" or settings["use_case"]:
        name = choose(settings, entry, assessed, vram)
        if name:
            return name, "accept", []
        smallest = next(iter(assessed.values()), None)
        return "", "refuse", ["no quant fits this host", *(smallest["short_of"] if smallest else [f"{entry['repo_id']} has none"])]
    if wanted in broken:
        return wanted, "refuse", [f"quant {wanted} is incomplete in {entry['repo_id']}: {broken[wanted] or 'a shard is missing'}"]
    if wanted not in assessed:
        offered = ", ".join(f"{name} ({amount(found['bytes'])})" for name, found in assessed.items()) or "none"
        return wanted, "refuse", [f"quant {wanted} is not in {entry['repo_id']}: it has {offered}"]
    if assessed[wanted]["usable"]:
        return wanted, "accept", []
    short = assessed[wanted]["short_of"]
    if settings["quant_policy"] == "force":
        return wanted, "accept", [*short, "deployed all the same: quant_policy is force"]
    smaller = [name for name, found in assessed.items() if found["usable"] and found["bytes"] < assessed[wanted]["bytes"]]
    if smaller and settings["quant_policy"] == "downgrade":
        return smaller[-1], "downgrade", [*short, f"{smaller[-1]} is the largest quant that fits"]
    reasons = [*short, *(f"it would fit with {remedy}" for remedy in assessed[wanted]["remedies"]), *fitting(assessed)]
    if not smaller:
        return wanted, "refuse", [*reasons, "no smaller quant fits either: choose another host or model"]
    how = f"quant: {smaller[-1]} or quant_policy: downgrade in llama_instances"
    if not settings.get("further"):
        how = f"-e quant={smaller[-1]} or -e quant_policy=downgrade"
    return wanted, "refuse", [*reasons, f"{smaller[-1]} would fit: {how}"]


def fitting(assessed: dict[str, dict[str, Any]]) -> list[str]:
    """The largest quant that the host can run in each regime, in a sentence."""
    largest = {found["fit"]: name for name, found in assessed.items() if found["usable"]}
    told = [f"{regime} {largest[regime]} ({amount(assessed[largest[regime]]['bytes'])})" for regime in REGIMES if regime in largest]
    return [f"the largest that fit here: {', '.join(told)}"] if told else []


def _planned_engine(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """The engine that the run installs as advisories look at those of the host, where it is known that it will contain RPC."""
    number = int(settings.get("engine_number") or 0)
    if not number or not settings.get("engine_contains_rpc"):
        return []
    return [{"build": {"number": number, "capabilities": {"options": [{"names": ["--rpc"]}]}}}]


def plan(
    facts: dict[str, Any],
    settings: dict[str, Any],
    entry: dict[str, Any],
    listing: Optional[dict[str, Any]] = None,
    exact: Optional[dict[str, Any]] = None,
) -> dict[str, Any]:
    """The plan of one instance on one host.

    Args:
        facts: C(llama_hardware) of the host.
        settings: the wish and the policy, as the role llama_plan gathers them.
        entry: the catalogue entry from find_entry.
        listing: what gguf_repo_info returned for the repository, when it was asked.
        exact: what llama_fit_info returned, with the C(quant) that it was asked about.

    Raises:
        PlanError: the wish cannot be understood. A wish that is understood but does not fit is a plan with verdict refuse.
    """
    if settings["quant_policy"] not in ("refuse", "downgrade", "force"):
        raise PlanError(f"quant_policy {settings['quant_policy']!r} is not known: it is refuse, downgrade or force")
    kept = _kept_plan(facts, settings)
    table = quant_table(facts, settings, entry, listing or {})
    asked = exact["quant"] if exact and exact.get("asked") else ""
    assessed = {name: _assess(name, quant, facts, settings, entry, exact if name == asked else None) for name, quant in table.items()}
    broken = {name: quant.get("problem", "") for name, quant in (listing or {}).get("quants", {}).items() if not quant["complete"]}
    if kept:
        name, verdict, reasons = kept["quant"], kept["verdict"], ["the deployed quant still serves this wish"]
    else:
        vram = _capacity.left_by_others(facts, settings)
        name, verdict, reasons = decide(settings, entry, assessed, broken, vram)
    found, quant = assessed.get(name), table.get(name, {})
    result = _result(facts, settings, entry, quant, found)
    result["alternatives"] = [_alternative(other) for other in assessed.values()]
    result = keep_placement(result, kept)
    told = _obstacles.overdrawn(_instance(facts, settings["instance"]), settings)
    result["notes"] = [*(note for note in result["notes"] if note not in told), *told]
    header = quant.get("header") or {}
    concerning = _advisories.concerning(
        [*_floors.advisories(settings.get("engine_force", [])), *settings.get("advisories", [])],
        result,
        header.get("architecture") or entry.get("architecture", ""),
        list(header.get("types", [])),
        int(settings.get("engine_number") or 0),
        [*facts.get("engines", []), *_planned_engine(settings)],
    )
    result["advisories"] = _advisories.gravest_first([*concerning, *_advisories.about_config(facts.get("engine_config") or {})])
    result["beside"] = _capacity.left_to_others(facts, settings)
    if verdict == "refuse":
        reasons = [*reasons, *_obstacles.others(result["beside"])]
    problems = _obstacles.on_host(facts, settings)
    if result["engine_backend"] == "cuda":
        problems += [f"toolkit: {problem.rstrip('.')}" for problem in settings.get("cuda_problems", [])]
    problems += _advisories.refusals(result["advisories"], problems, settings["quant_policy"] == "force")
    if problems:
        verdict, reasons = "refuse", problems + (reasons if verdict == "refuse" else [])
    return {**result, "verdict": verdict, "reasons": reasons}


def _assess(name: str, quant: dict[str, Any], *more: Any) -> dict[str, Any]:
    """What a quant comes to; one whose header makes no sense is sized without it, and that is told."""
    try:
        return assess(name, quant, *more)
    except ValueError as error:
        found = assess(name, {key: value for key, value in quant.items() if key not in ("header", "likeness")}, *more)
        return {**found, "notes": [*found["notes"], f"estimated by its size: {error}"]}


def _result(
    facts: dict[str, Any], settings: dict[str, Any], entry: dict[str, Any], quant: dict[str, Any], found: Optional[dict[str, Any]]
) -> dict[str, Any]:
    """The plan without what follows from comparing quants."""
    backend = settings["backend"]
    devices = found["devices"] if found else []
    if backend == "auto":
        backend = "cuda" if devices else "cpu"
    return {
        "schema_version": 2,
        "host": facts.get("hostname", ""),
        "instance": settings["instance"],
        "wish": _wish_hash(settings),
        "orders": _orders_hash(settings),
        "model": settings["model"],
        "alias": entry["alias"],
        "repo_id": entry["repo_id"],
        "endpoint": settings["endpoint"],
        "commit": quant.get("commit", ""),
        "quant_requested": settings["quant"],
        "quant": found["quant"] if found else "",
        "files": quant.get("files", []),
        "fit": found["fit"] if found else "none",
        "basis": found["basis"] if found else "catalog",
        "kept": False,
        "refused_by_engine": bool(found and found["refused_by_engine"]),
        "notes": found["notes"] if found else [],
        "engine_backend": backend,
        # A CUDA server is shown its devices; the others have to be told which are not for them.
        "confined": settings.get("allowed") is not None and backend not in ("cuda", "cpu"),
        "placement": found["placement"] if found else {},
        "devices": devices,
        "memory": found["memory"] if found else {"devices": [], "host": {}},
        "disk": found["disk"] if found else {},
        "download": found["download"] if found else {},
        "expected": found["expected"] if found else {"tokens_per_second": None, "low": None, "high": None, "basis": "none"},
        "quality": quant.get("quality", {}),
        "guide": {key: said for key, said in entry.get("quants", {}).get(found["quant"] if found else "", {}).items() if key != "quality"},
        "sampling": entry.get("sampling", {}),
        "golden_prompts": entry.get("golden_prompts", []),
        "header": _kept_header(quant.get("header")),
        "model_path": _model_path(facts, entry, quant, found["quant"] if found else ""),
    }


def _kept_header(header: Optional[dict[str, Any]]) -> Optional[dict[str, Any]]:
    """What a later plan of the same model needs of its header; its manifest keeps it, so that no repository need be asked again."""
    if not header:
        return None
    layers = [{key: layer[key] for key in ("experts", "rest")} for layer in header["layers"]]
    return {**{key: value for key, value in header.items() if key != "files"}, "layers": layers}


def _model_path(facts: dict[str, Any], entry: dict[str, Any], quant: dict[str, Any], name: str) -> str:
    """The first shard on the host, where the model is there."""
    model = present(facts, entry["repo_id"], quant.get("commit", "")).get(name)
    there = model and model["path"] and quant.get("files")
    return f"{model['path']}/{quant['files'][0]['path'].rpartition('/')[2]}" if model and there else ""


def _alternative(other: dict[str, Any]) -> dict[str, Any]:
    return {
        "quant": other["quant"],
        "bytes": other["bytes"],
        "verdict": "accept" if other["usable"] else "refuse",
        "fit": other["fit"],
        "short_of": "; ".join(other["short_of"]),
        "expected": other["expected"],
        "eta_seconds": other["download"]["eta_seconds"],
    }


def keep_placement(result: dict[str, Any], kept: dict[str, Any]) -> dict[str, Any]:
    """Keeps the placement that runs while it still fits, so that a neighbour's appetite does not restart a server."""
    compared = ("quant", "commit", "orders") if kept.get("refused_by_engine") else ("quant", "commit", "orders", "engine_backend")
    if not kept or any(result[key] != kept.get(key) for key in compared):
        return result
    host = kept["memory"]["host"]
    parts = ("context", "compute", "cache") if kept["fit"] == "streaming" else ("weights", "context", "compute", "cache")
    if sum(host[part] for part in parts) > result["memory"]["host"]["capacity"]:
        return result
    room = {device["uuid"]: device["capacity"] for device in result["memory"]["devices"]}
    for share in kept["memory"]["devices"]:
        if share["weights"] + share["context"] + share["compute"] > room.get(share["uuid"], 0):
            return result
    expected = result["expected"] if result["expected"]["basis"] == "benchmark" else kept["expected"]
    same = ("placement", "memory", "fit", "devices", "basis", "notes", "engine_backend", "refused_by_engine")
    return {**result, "kept": True, "expected": expected, **{key: kept[key] for key in same if key in kept}}
