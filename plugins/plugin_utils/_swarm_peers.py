# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who exchanges a model with whom: decided from the inventory, so that no tracker is needed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def swarm_peers(host: str, hosts: Iterable[Mapping[str, Any]], batch: Iterable[str]) -> dict[str, Any]:
    """The peers of a host, and who shares in fetching from the mirror.

    Args:
        host: its name in the inventory.
        hosts: the variables of all hosts that may have the model, its own among them.
        batch: names of the hosts that the play brings forward at the same time.

    Returns:
        ``peers``, addresses of the site's other hosts, and ``sharers``, addresses of those that fetch the same model now in the
        same order on each of them, with an empty string for the host itself.
    """
    site = {str(item["inventory_hostname"]): item for item in hosts}
    own = site[host]
    near = {name: item for name, item in site.items() if item.get("llama_site", "") == own.get("llama_site", "")}
    together = set(batch)
    sharers = [
        name for name, item in sorted(near.items()) if name == host or (name in together and _model(item) == _model(own) and _lacks(item))
    ]
    return {
        "peers": [_address(item) for name, item in sorted(near.items()) if name != host],
        "sharers": ["" if name == host else _address(near[name]) for name in sharers],
    }


def _model(item: Mapping[str, Any]) -> tuple[Any, ...]:
    plan = item.get("llama_plan_result") or {}
    return tuple(plan.get(name) for name in ("repo_id", "commit", "quant"))


def _lacks(item: Mapping[str, Any]) -> bool:
    """Whether the host swarms and was not found to have the model."""
    if item.get("llama_model_transport") != "swarm":
        return False
    result = item.get("llama_model_result") or {}
    return tuple(result.get(name) for name in ("repo_id", "commit", "quant")) != _model(item)


def _address(item: Mapping[str, Any]) -> str:
    return str(item.get("llama_model_swarm_address") or item.get("ansible_host") or item["inventory_hostname"])
