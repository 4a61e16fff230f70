# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast and at which hours a transfer may go. Pure apart from the clocks that are handed in.

Rates are bytes a second, times are seconds. Rates go by a clock that nobody sets; hours go by the host's local time, asked anew each
time, so a clock that is set, or a change to summer time, moves the window and breaks nothing.
"""

from __future__ import annotations

import re
import threading
import time
from typing import Callable

HOURS = re.compile(r"^([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)$")
DAY = 24 * 60


class PaceError(ValueError):
    """One line for the user."""


class TokenBucket:
    """A limit that all connections share."""

    def __init__(self, rate: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate = rate  # 0 is no limit
        self.clock = clock
        self.level = 0.0  # bytes that may go at once; below zero it is what has gone ahead of its time
        self.filled = clock()
        self.lock = threading.Lock()

    def chunk(self, largest: int) -> int:
        """How much one read may bring, so that a low limit is not a row of bursts."""
        return max(min(largest, self.rate // 8), 4096) if self.rate else largest

    def spend(self, count: int) -> float:
        """Take so many bytes; returns how long to pause for it."""
        if not self.rate:
            return 0.0
        with self.lock:
            now = self.clock()
            self.level = min(self.level + (now - self.filled) * self.rate, self.rate * 0.25) - count
            self.filled = now
            return max(0.0, -self.level / self.rate)


class Hours:
    """``22:00-06:00``: when bytes may be fetched; nothing at all means always."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.begin = self.end = 0
        if not text:
            return
        found = HOURS.match(text)
        if found:
            hours = [int(part) for part in found.groups()]
            self.begin, self.end = hours[0] * 60 + hours[1], hours[2] * 60 + hours[3]
        if not found or self.begin == self.end:
            raise PaceError(f"The window {text!r} is not usable: it is written like 22:00-06:00, in the host's local time.")

    def closed_minutes(self, minute: int) -> int:
        """Minutes until the window opens, at so many minutes after midnight; 0 while it is open."""
        if self.begin == self.end or (minute - self.begin) % DAY < (self.end - self.begin) % DAY:
            return 0
        return (self.begin - minute) % DAY

    def opens_at(self, now: float) -> str:
        """Empty while bytes may be fetched at ``now`` (seconds since the epoch), otherwise the local time from which on they may."""
        local = time.localtime(now)
        return self.text[:5] if self.closed_minutes(local.tm_hour * 60 + local.tm_min) else ""
