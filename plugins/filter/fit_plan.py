# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters that turn facts and a wish into a plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Optional

from ansible.errors import AnsibleFilterError

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _catalog, _plan_report, _plan_text, _planner


def fit_plan(
    facts: dict[str, Any],
    settings: dict[str, Any],
    entry: dict[str, Any],
    listing: Optional[dict[str, Any]] = None,
    exact: Optional[dict[str, Any]] = None,
) -> dict[str, Any]:
    """The plan of one instance on one host."""
    if not isinstance(facts, Mapping) or "memory" not in facts:
        raise AnsibleFilterError("fit_plan needs the llama_hardware facts of a host: run onprem.llamacpp.hardware_facts first")
    try:
        return _planner.plan(facts, settings, entry, listing, exact)
    except _catalog.PlanError as error:
        raise AnsibleFilterError(str(error)) from error


def host_plans(
    inputs: dict[str, Any], host: str, listings: list[dict[str, Any]], exact: Optional[dict[str, dict[str, Any]]] = None
) -> dict[str, Any]:
    """The plans of all instances of one host, in the form of those of a fleet."""
    plans, refused = _plan_report.plan_all({host: inputs}, listings, {host: exact or {}})
    return {"plans": plans, "refused": refused}


class FilterModule:
    """Filters of the plan."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "fit_plan": fit_plan,
            "host_plans": host_plans,
            "plan_refusal": _plan_text.refusal,
            "plan_text": _plan_text.text,
        }
