# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters about engines: which one a host needs, who builds it, why that failed, and which releases may go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Callable, Optional

from ansible.errors import AnsibleFilterError

from ansible_collections.onprem.llamacpp.plugins.module_utils import _prune_engines
from ansible_collections.onprem.llamacpp.plugins.plugin_utils import (
    _engine,
    _engine_compare,
    _engine_cuda,
    _engine_log,
    _engine_origin,
    _packages,
    _room,
)


def engine_build(
    hardware: Mapping[str, Any], wish: Mapping[str, Any], packages: Optional[Mapping[str, str]] = None, number: int = 0
) -> dict[str, Any]:
    if not isinstance(hardware, Mapping) or not hardware.get("platform"):
        raise AnsibleFilterError("engine_build: the host's facts are missing, collect them with onprem.llamacpp.hardware_facts")
    return _engine.describe(hardware, wish, packages, int(number))


def engine_package_problems(
    policy: str, wanted: Mapping[str, Any], force: Sequence[str], engines: Sequence[Mapping[str, Any]]
) -> list[str]:
    return _packages.problems(_packages.parse_policy(policy), wanted["packages"], wanted["backend"] == "rpc", force, engines)


def engine_origin(
    peers: Mapping[str, Mapping[str, Any]], build_id: str, builders: Optional[Mapping[str, Mapping[str, Any]]] = None
) -> dict[str, str]:
    return _engine_origin.origin(peers, build_id, builders or {})


def engine_builders(hosts: Mapping[str, Any], wish: Mapping[str, Any], path: str = "", needed: int = 0) -> dict[str, dict[str, Any]]:
    return {
        name: {**_engine.describe(hardware, wish), "short": _room.problem(hardware, path, int(needed), "The build") if path else ""}
        for name, hardware in hosts.items()
        if hardware
    }


def engine_differences(first: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    return _engine_compare.differences(first, other)


def prunable_engines(hardware: Mapping[str, Any], keep: int, wanted: Sequence[str] = ()) -> list[str]:
    return [engine["build_id"] for engine in _prune_engines.choose(hardware.get("engines", []), int(keep), list(wanted))]


def engine_log_end(text: str, most: int = 20) -> list[str]:
    return _engine_log.log_end(text, most)


def engine_device_problem(hardware: Mapping[str, Any], devices_text: str) -> str:
    return _engine_cuda.device_problem(hardware, devices_text)


def engine_build_failure(text: str) -> str:
    return _engine_log.cause(text)


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "engine_build": engine_build,
            "engine_package_problems": engine_package_problems,
            "engine_origin": engine_origin,
            "engine_builders": engine_builders,
            "engine_differences": engine_differences,
            "prunable_engines": prunable_engines,
            "engine_log_end": engine_log_end,
            "engine_build_failure": engine_build_failure,
            "engine_device_problem": engine_device_problem,
        }
