# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filters ``server_status`` and ``status_text``; their documentation is beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _status

FOUND = "__llama_server_found"
DECLARING = ("model", "quant", "llama_instances", "llama_server_instance", "llama_engine_tag", "llama_engine_source")


def server_status(names: list[str], hostvars: Mapping[str, Any]) -> dict[str, Any]:
    """How the hosts that are named are, from what the task before has registered on each."""
    collected = {name: (hostvars[name].get(FOUND) or {}).get("instances") for name in names}
    variables = {name: {key: hostvars[name].get(key) for key in DECLARING} for name in names}
    return _status.document(collected, variables)


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"server_status": server_status, "status_text": _status.text}
