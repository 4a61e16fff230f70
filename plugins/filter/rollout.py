# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filters ``rollout_document`` and ``rollout_text``; their documentation is beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _rollout


def rollout_document(names: list[str], hostvars: Mapping[str, Any]) -> dict[str, Any]:
    """The rollout of the hosts that are named."""
    return _rollout.document({name: hostvars[name].get("llama_rollout_result") for name in names})


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"rollout_document": rollout_document, "rollout_text": _rollout.text}
