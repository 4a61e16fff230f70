# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters that decide what is done about a host's NVIDIA driver."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable

from ansible.errors import AnsibleFilterError

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _driver, _driver_boot, _driver_versions


def driver_plan(hardware: Mapping[str, Any], wish: Mapping[str, Any], platforms: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(hardware, Mapping) or not hardware.get("platform"):
        raise AnsibleFilterError("driver_plan: the host's facts are missing, collect them with onprem.llamacpp.hardware_facts")
    return _driver.plan(hardware, wish, platforms)


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "driver_plan": driver_plan,
            "driver_restart_reason": _driver.restart_reason,
            "driver_versions": _driver_versions.choose,
            "driver_locks": _driver_versions.locks,
            "driver_unbuilt": _driver_versions.unbuilt,
            "driver_erased": _driver_versions.erased,
            "driver_touched": _driver_versions.touched,
            "driver_kernels": _driver_versions.kernels,
            "driver_undo": _driver_versions.undo,
            "driver_undo_problem": _driver_versions.undo_problem,
            "driver_install_problem": _driver_versions.install_problem,
            "driver_repository_problem": _driver_versions.repository_problem,
            "driver_files": _driver_boot.files,
            "driver_services": _driver_boot.services,
            "driver_settings": _driver_boot.settings,
            "driver_restore": _driver_boot.restore,
        }
