# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a rollout over many hosts came to, as a document and in words. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

SCHEMA_VERSION = 1
STATES = {
    "committed": "on the new deployment",
    "unchanged": "on it already",
    "taken back": "went back with the rings before the failed one",
    "waiting": "not touched, because the rollout stopped",
    "failed": "undid its switch, unless its line says otherwise",
    "switching": "was cut off while it switched",
    "left out": "out of reach, or could not be prepared; the next run takes it up",
}
LONGEST_REASON = 300


def document(results: Mapping[str, Any], failures: Optional[Mapping[str, str]] = None) -> dict[str, Any]:
    """The rollout of hosts whose results are given by name; None for one that never had any.

    ``failures`` has the reason of those that were left out over one, by name.

    A result has ``state``, ``ring`` (0 for none), ``from`` and ``to`` (deployment ids), ``reason`` and ``tokens_per_second``.
    """
    left_out = {"state": "left out", "ring": 0, "from": "", "to": "", "reason": "", "tokens_per_second": None}
    hosts = {name: dict(result or {**left_out, "reason": (failures or {}).get(name, "")}) for name, result in results.items()}
    counts = {state: sum(result["state"] == state for result in hosts.values()) for state in STATES}
    return {"schema_version": SCHEMA_VERSION, "counts": {state: count for state, count in counts.items() if count}, "hosts": hosts}


def text(rollout: Mapping[str, Any]) -> list[str]:
    """A line for each state, the rings, and a line for each host that needs a look."""
    lines = [f"{count} {'host' if count == 1 else 'hosts'} {STATES[state]}" for state, count in rollout["counts"].items()]
    rings: dict[int, list[str]] = {}
    for name, result in rollout["hosts"].items():
        if result["ring"]:
            rings.setdefault(result["ring"], []).append(f"{name} {result['state']}")
    lines += [f"ring {ring}: {', '.join(members)}" for ring, members in sorted(rings.items())]
    for name, result in rollout["hosts"].items():
        if result["reason"]:
            reason = " ".join(str(result["reason"]).split())
            lines.append(f"{name}: {reason[:LONGEST_REASON]}{'…' if len(reason) > LONGEST_REASON else ''}")
    return lines
