# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The other instances of the host: memory that is theirs, although the kernel counts it as available. Bytes."""

from __future__ import annotations

from typing import Callable

from . import pagecache
from .files import Document, Layout, read_json
from .host import Systemd


def share(plan: Document, own: int, mapped: int) -> int:
    """What must be left to a server that runs: its mapped files, and what it was planned to take and has not taken yet.

    :param plan: of its deployment
    :param own: memory that it has for itself, which is not available any more
    :param mapped: what it has of its mapped files in memory
    """
    weights = int(plan.get("memory", {}).get("host", {}).get("weights") or 0)
    # Weights that stream from disk are in memory as far as there is room for them.
    planned = pagecache.planned_beside(plan) + (0 if plan.get("fit") == "streaming" else weights)
    return max(mapped, planned - own)


def reserved(layout: Layout, systemd: Callable[[str], Systemd] = Systemd) -> int:
    """What must be left to all other instances of the host that run."""
    total = 0
    for other in layout.others():
        state = systemd(other.instance).show()
        if state.get("ActiveState") == "active":
            pid, plan = int(state.get("MainPID") or 0), read_json(other.recorded / other.linked("current") / "plan.json")
            total += share(plan, pagecache.own_memory(pid), pagecache.mapped_memory(pid))
    return total
