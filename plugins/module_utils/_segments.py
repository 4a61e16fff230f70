# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who fetches which bytes of a file, and when: in order, in a window that moves with the hash. Pure; the caller holds the lock.

Sizes are bytes, times are seconds of a clock that nobody sets.
"""

from __future__ import annotations

from typing import Optional

from ansible_collections.onprem.llamacpp.plugins.module_utils._ranges import Pair, Ranges

WINDOW = 512 * 2**20  # nothing further ahead of the hash is fetched, so that it finds its bytes in the page cache
LARGEST = 64 * 2**20
SMALLEST = 4 * 2**20
LONG = 5.0  # a segment that takes longer to finish may be shared by a connection that has nothing to do


class Segment:
    """Bytes that one connection is fetching; ``position`` is the next one, ``end`` may come nearer."""

    def __init__(self, begin: int, end: int, now: float) -> None:
        self.begin, self.position, self.end, self.began = begin, begin, end, now

    def seconds_left(self, now: float) -> float:
        """At the rate so far; one that has brought nothing yet takes as long again as it already took, for every MiB."""
        elapsed = max(now - self.began, 1e-3)
        return (self.end - self.position) * elapsed / max(self.position - self.begin, 2**20)


class Segments:
    """What of one file is still to be fetched."""

    def __init__(self, size: int, missing: list[Pair], connections: int) -> None:
        self.waiting = Ranges(missing)
        self.active: list[Segment] = []
        share = min(LARGEST, WINDOW // (2 * connections), size // (4 * connections))
        self.step = max(share // SMALLEST * SMALLEST, SMALLEST)

    def busy(self) -> bool:
        """Whether something is still to be fetched, or being fetched."""
        return bool(self.active) or self.waiting.total() > 0

    def take(self, limit: int, now: float) -> Optional[Segment]:
        """The next segment that ends at ``limit`` or before, or a share of a slow one; None when there is nothing to do yet."""
        begin, end = next(iter(self.waiting.pairs()), (0, 0))
        end = min(end, (begin // self.step + 1) * self.step)
        if begin < end <= limit:
            self.waiting.remove(begin, end)
            made = Segment(begin, end, now)
        else:
            shared = self._share(now)
            if not shared:
                return None
            made = shared
        self.active.append(made)
        return made

    def _share(self, now: float) -> Optional[Segment]:
        """The second half of what the slowest connection still has before it."""
        slow = max(self.active, key=lambda segment: segment.seconds_left(now), default=None)
        if slow is None or slow.end - slow.position < 2 * SMALLEST or slow.seconds_left(now) < LONG:
            return None
        middle = (slow.position + slow.end) // 2
        made = Segment(middle, slow.end, now)
        slow.end = middle
        return made

    def give_back(self, segment: Segment) -> None:
        """The connection is done with it; what it has not fetched waits again."""
        if segment in self.active:
            self.active.remove(segment)
            self.waiting.add(segment.position, segment.end)

    def arrived(self, begin: int, end: int) -> None:
        """Bytes that came outside of a segment."""
        self.waiting.remove(begin, end)
        for segment in self.active:
            if begin <= segment.position < end:
                segment.position = min(segment.end, end)

    def lost(self, begin: int, end: int) -> None:
        """Bytes that must be fetched again. A connection that is among them stops."""
        for segment in list(self.active):
            if segment.begin < end and begin < segment.end:
                self.give_back(segment)
                segment.end = segment.position
        self.waiting.add(begin, end)
