# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters that decide which engine a host needs and who builds it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable, Optional

from ansible.errors import AnsibleFilterError

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _engine


def engine_build(
    hardware: Mapping[str, Any], wish: Mapping[str, Any], packages: Optional[Mapping[str, str]] = None, number: int = 0
) -> dict[str, Any]:
    if not isinstance(hardware, Mapping) or not hardware.get("platform"):
        raise AnsibleFilterError("engine_build: the host's facts are missing, collect them with onprem.llamacpp.hardware_facts")
    return _engine.describe(hardware, wish, packages, int(number))


def engine_origin(peers: Mapping[str, Mapping[str, Any]], build_id: str) -> dict[str, str]:
    return _engine.origin(peers, build_id)


def engine_log_end(text: str, most: int = 20) -> list[str]:
    return _engine.log_end(text, most)


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"engine_build": engine_build, "engine_origin": engine_origin, "engine_log_end": engine_log_end}
