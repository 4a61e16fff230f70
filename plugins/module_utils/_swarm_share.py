# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which pieces a host takes from the mirror, and which it leaves to its peers.

Every host of a swarm takes another share of the pieces from the mirror and gives it to the others, so that each byte leaves the mirror
once and hosts give as much as they take. Nothing is negotiated: the controller tells each host its place. A share that nobody brings is
divided among those who are there. Times are seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

RUN_BYTES = 8 * 2**20  # asked from the mirror in one request
# Until a peer that was never seen counts as absent. Hosts that begin together are seconds apart where they have much else to do.
PATIENCE = 15.0
STALLED = 15.0  # without a byte from any peer, with pieces still to come


class Place(NamedTuple):
    """A host's place in its swarm: its number, and the addresses of those that have a share, in the order of theirs (its own is "").

    ``others`` are peers without a share, which may have all of it already.
    """

    number: int
    sharers: Sequence[str]
    others: frozenset[str] = frozenset()


def share_of(piece: int, pieces: int, shares: int) -> int:
    """Whose share a piece belongs to; shares are runs of pieces, so that they are read in order."""
    return piece * shares // pieces


def next_run(
    place: Place, have: Sequence[bool], offered: Sequence[int], connected: set[str], age: float, idle: float, longest: int
) -> list[int]:
    """The pieces to take from the mirror now, in order and without a gap; none while peers bring what is missing.

    ``have`` says for each piece whether it is here, ``offered`` how many connected peers have it, ``connected`` which peers there are,
    ``age`` how long the host has been looking for them and ``idle`` how long none of them has brought anything.
    """
    if age < PATIENCE and place.others and not place.others & connected:
        return []  # who comes late need not ask the mirror
    pieces, shares = len(have), len(place.sharers)
    lacking = [piece for piece in range(pieces) if not have[piece]]
    wanted = [piece for piece in lacking if not offered[piece] and share_of(piece, pieces, shares) == place.number]
    if not wanted and age >= PATIENCE:
        absent = {number for number, address in enumerate(place.sharers) if number != place.number and address not in connected}
        orphans = [piece for piece in lacking if not offered[piece] and share_of(piece, pieces, shares) in absent]
        wanted = _from_own_place(orphans, place)
    if not wanted and idle >= STALLED:
        wanted = _from_own_place(lacking, place)
    run = wanted[:1]
    for piece in wanted[1:longest]:
        if piece != run[-1] + 1:
            break
        run.append(piece)
    return run


def _from_own_place(pieces: list[int], place: Place) -> list[int]:
    """Those who share in the same pieces begin at different ones."""
    start = len(pieces) * place.number // len(place.sharers)
    return pieces[start:] + pieces[:start]
