# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which bytes of a file are meant: half-open intervals that are sorted and do not touch. Pure."""

from __future__ import annotations

from collections.abc import Iterable

Pair = tuple[int, int]


class Ranges:
    """A set of byte positions."""

    def __init__(self, pairs: Iterable[Pair] = ()) -> None:
        self._pairs: list[Pair] = []
        for begin, end in pairs:
            self.add(begin, end)

    def pairs(self) -> list[Pair]:
        return list(self._pairs)

    def total(self) -> int:
        return sum(end - begin for begin, end in self._pairs)

    def add(self, begin: int, end: int) -> None:
        if begin >= end:
            return
        kept = []
        for known in self._pairs:
            if known[1] < begin or known[0] > end:
                kept.append(known)
            else:
                begin, end = min(begin, known[0]), max(end, known[1])
        kept.append((begin, end))
        self._pairs = sorted(kept)

    def remove(self, begin: int, end: int) -> None:
        if begin >= end:
            return
        kept = []
        for known in self._pairs:
            kept += [(known[0], min(known[1], begin)), (max(known[0], end), known[1])]
        self._pairs = [pair for pair in kept if pair[0] < pair[1]]

    def end_from(self, position: int) -> int:
        """Where the unbroken run that begins at ``position`` ends; ``position`` itself when it is not in the set."""
        return next((end for begin, end in self._pairs if begin <= position < end), position)

    def missing(self, begin: int, end: int) -> list[Pair]:
        """What of the interval is not in the set."""
        gaps = Ranges([(begin, end)])
        for known in self._pairs:
            gaps.remove(*known)
        return gaps.pairs()

    def common(self, other: Ranges) -> Ranges:
        """What both hold."""
        found = Ranges()
        for begin, end in self._pairs:
            for other_begin, other_end in other.pairs():
                found.add(max(begin, other_begin), min(end, other_end))
        return found
