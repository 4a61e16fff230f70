# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters that choose the CUDA toolkit of a build for the hosts that share it, and look for what stands in its way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable

from ansible.errors import AnsibleFilterError

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _cuda_architectures, _cuda_plan, _cuda_toolkit, _engine_cuda, _room


def cuda_toolkit_choice(request: Mapping[str, Any]) -> dict[str, Any]:
    missing = [key for key in _cuda_toolkit.REQUEST if key not in request] if isinstance(request, Mapping) else list(_cuda_toolkit.REQUEST)
    if missing:
        raise AnsibleFilterError(f"cuda_toolkit_choice: the request lacks {', '.join(missing)}")
    return _cuda_toolkit.describe(request)


def cuda_build_problems(
    hardware: Mapping[str, Any], wish: Mapping[str, Any], request: Mapping[str, Any], driver: Mapping[str, Any]
) -> list[str]:
    return _cuda_plan.problems(hardware, wish, request, driver)


def cuda_devices(hardware: Mapping[str, Any]) -> dict[str, list[str]]:
    return _cuda_architectures.devices_of(hardware)


def cuda_fleet(peers: Mapping[str, Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    return _engine_cuda.fleet(peers)


def disk_problem(hardware: Mapping[str, Any], path: str, needed: int, what: str) -> str:
    return _room.problem(hardware, path, int(needed), what)


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "cuda_build_problems": cuda_build_problems,
            "cuda_devices": cuda_devices,
            "cuda_fleet": cuda_fleet,
            "cuda_toolkit_choice": cuda_toolkit_choice,
            "disk_problem": disk_problem,
        }
