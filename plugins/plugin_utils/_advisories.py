# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which advisories concern a plan. They are data; a condition that is not given holds. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Callable

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _floors
from ansible_collections.onprem.llamacpp.plugins.plugin_utils._catalog import PlanError

SEVERITIES = ("info", "warning", "error")
CONDITIONS = (
    "architecture",
    "quant",
    "backend",
    "build_below",
    "tensor_type",
    "capability_below",
    "experts_on_host",
    "mixed_cache",
    "slots",
    "uses_rpc",
    "contains_rpc_below",
)
BOUNDS = ("build_below", "capability_below", "contains_rpc_below")


def concerning(
    advisories: Sequence[Mapping[str, Any]],
    plan: Mapping[str, Any],
    architecture: str,
    types: Sequence[str],
    build: int,
    engines: Sequence[Mapping[str, Any]] = (),
) -> list[dict[str, str]]:
    """The advisories whose conditions all hold, the gravest first.

    Args:
        advisories: ``{id, severity, when, text, source}``.
        plan: the plan so far.
        architecture: of the model, as its header or the catalogue says; empty when neither does.
        types: tensor types of the quant, when its header was read.
        build: number of the engine's build; 0 when it is not known.
        engines: releases that the host has, with their C(build).

    Raises:
        PlanError: an advisory cannot be understood.
    """
    found = [
        {key: str(entry.get(key, "")) for key in ("id", "severity", "text", "source")}
        for entry in map(_checked, advisories)
        if _holds(entry.get("when") or {}, plan, architecture, types, build, engines)
    ]
    return gravest_first(found)


def refusals(advisories: Sequence[Mapping[str, str]], problems: Sequence[str], forced: bool) -> list[str]:
    """The advisories that refuse, without those that a problem has told already.

    A quant may be ``forced`` onto a host; that takes no engine below its security floor.
    """
    floors = [floor["id"] for floor in _floors.FLOORS]
    return [
        f"advisory {entry['id']}: {entry['text']}"
        for entry in advisories
        if entry["severity"] == "error"
        and (not forced or entry["id"] in floors)
        and not any(f"advisory {entry['id']}" in problem for problem in problems)
    ]


def gravest_first(entries: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    return sorted(entries, key=lambda entry: -SEVERITIES.index(entry["severity"]))


def about_config(config: Mapping[str, Any]) -> list[dict[str, str]]:
    """What to know of a settings file that others have put on the host, as C(engine_config) tells of it."""
    if not config:
        return []
    keys = config.get("keys")
    what = "cannot be read" if keys is None else f"sets {', '.join(keys)}" if keys else "sets nothing"
    text = (
        f"{config['path']} {what}. The server does not see this file, but every other llama.cpp program of the host merges it: what"
        " llama-fit-params and llama-bench say may not be what the server does. Move it away, or leave in it what no server needs."
    )
    return [{"id": "foreign-config", "severity": "warning" if keys != [] else "info", "text": text, "source": config["path"]}]


def _checked(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    name = entry.get("id")
    if not name or not entry.get("text") or entry.get("severity") not in SEVERITIES:
        raise PlanError(f"the advisory {name or dict(entry)!r} needs an id, a text, and a severity of {', '.join(SEVERITIES)}")
    unknown = sorted(set(entry.get("when") or {}) - set(CONDITIONS))
    if unknown:
        raise PlanError(f"the advisory {name!r} has the condition {unknown[0]}, which is none of {', '.join(CONDITIONS)}")
    for condition in BOUNDS:
        bound = (entry.get("when") or {}).get(condition, 0)
        if not isinstance(bound, (int, float)):
            raise PlanError(f"the advisory {name!r} has {condition} {bound!r}, which is not a number")
    return entry


def _holds(
    when: Mapping[str, Any],
    plan: Mapping[str, Any],
    architecture: str,
    types: Sequence[str],
    build: int,
    engines: Sequence[Mapping[str, Any]],
) -> bool:
    place = plan["placement"]
    uses_rpc = plan["engine_backend"] == "rpc" or bool(place.get("rpc_servers"))
    capabilities = [float(device.get("compute_capability") or 99) for device in plan["devices"]]
    tests = {
        "architecture": lambda wanted: architecture == wanted,
        "quant": lambda wanted: fnmatchcase(plan["quant"], wanted),
        "backend": lambda wanted: plan["engine_backend"] == wanted,
        "build_below": lambda wanted: 0 < build < wanted,
        "tensor_type": lambda wanted: wanted in types,
        "capability_below": lambda wanted: any(capability < wanted for capability in capabilities),
        "experts_on_host": lambda wanted: bool(place.get("n_cpu_moe")) is wanted,
        "mixed_cache": lambda wanted: (place.get("cache_type_k") != place.get("cache_type_v")) is wanted,
        "uses_rpc": lambda wanted: uses_rpc is wanted,
        "contains_rpc_below": lambda wanted: not uses_rpc and any(map(_contains_rpc(wanted), engines)),
        # Recurrent models divide a micro batch among the slots without a rest, or the engine stops.
        "slots": lambda wanted: wanted == "uneven" and place.get("ubatch_size", 512) % max(1, place.get("parallel", 1)) != 0,
    }
    return bool(place) and all(tests[condition](wanted) for condition, wanted in when.items())


def _contains_rpc(below: int) -> Callable[[Mapping[str, Any]], bool]:
    """Whether a release is older than a build and can be told of RPC servers."""

    def contains(engine: Mapping[str, Any]) -> bool:
        build = engine.get("build") or {}
        options = (build.get("capabilities") or {}).get("options") or []
        return int(build.get("number", 0)) < below and any("--rpc" in option["names"] for option in options)

    return contains
