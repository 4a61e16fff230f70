# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who brings a build into the controller's cache, so that it is made once for all hosts that share it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Described = Mapping[str, Any]


def origin(peers: Mapping[str, Described], build_id: str, builders: Mapping[str, Described]) -> dict[str, str]:
    """Who has a build or makes it, from the descriptions of all hosts of the batch and of the hosts that are there to build.

    ``host`` has the release or builds it, empty when no host can; ``leader`` is the first host without the release, on whose
    behalf the work is done. A host builds only on its own platform: what it makes must run on all that share the id. Builders
    come before hosts that serve, and share the builds of a run among them; those whose disk is full are left out while another
    has room.
    """
    same = {name: peer for name, peer in peers.items() if peer.get("build_id") == build_id}
    building = {name: peer for name, peer in builders.items() if peer.get("build_id") == build_id}
    having = [name for name, peer in [*same.items(), *building.items()] if peer.get("release")]
    missing = [name for name, peer in same.items() if not peer.get("release")]
    able = [name for name, peer in building.items() if _able(peer) and not peer.get("problems")]
    able = [name for name in able if not building[name].get("short")] or able
    if able:
        wanted = sorted({str(peer["build_id"]) for peer in peers.values() if peer.get("build_id") and not peer.get("release")})
        turn = wanted.index(build_id) if build_id in wanted else 0
        able = [able[turn % len(able)]]
    able += [name for name in missing if _able(same[name])]
    return {"host": next(iter(having + able), ""), "leader": next(iter(missing), "")}


def _able(peer: Described) -> bool:
    return peer.get("platform") == peer.get("host_platform")
