# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which source is asked next, and when: shared by all connections of a job. Pure apart from its clock; times are seconds.

A source is left when so many attempts in a row have brought nothing. Attempts that were under way together count as one: an outage
breaks all connections at once.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Container
from typing import Callable, Optional

BACKOFF_SECONDS = 1.0
LONGEST_PAUSE = 60.0


def no_jitter() -> float:
    return 1.0


def jitter() -> float:
    """So that hosts that lost a source together do not come back together."""
    return random.uniform(0.8, 1.2)  # noqa: S311


class Supply:
    """The sources of a job, in order."""

    def __init__(
        self, labels: list[str], retries: int, clock: Callable[[], float] = time.monotonic, spread: Callable[[], float] = jitter
    ) -> None:
        self.labels, self.retries, self.clock, self.spread = labels, retries, clock, spread
        self.failures = [0] * len(labels)
        self.not_before = [0.0] * len(labels)
        self.failed_at = [-1.0] * len(labels)
        self.arrived_at = [-1.0] * len(labels)
        self.given_up: dict[int, str] = {}
        self.lock = threading.Lock()

    def pick(self, refused: Container[int] = ()) -> Optional[int]:
        """The first source that was neither given up nor ``refused`` for the file in question."""
        return next((index for index in range(len(self.labels)) if index not in self.given_up and index not in refused), None)

    def wait(self, index: int) -> float:
        """How long nobody shall ask it yet."""
        return max(0.0, self.not_before[index] - self.clock())

    def arrived(self, index: int) -> None:
        """It has brought something."""
        with self.lock:
            self.arrived_at[index] = self.clock()
            self.failures[index] = 0

    def failed(self, index: int, reason: str, pause: float, began: float) -> bool:
        """An attempt that began at ``began`` has failed; ``pause`` is what the source asked for. True when it is given up now."""
        with self.lock:
            if index in self.given_up:
                return False
            now = self.clock()
            if began >= self.failed_at[index]:
                self.failures[index] += self.arrived_at[index] < began
                self.failed_at[index] = now
                wait = min(BACKOFF_SECONDS * 2.0 ** min(max(self.failures[index] - 1, 0), 30), LONGEST_PAUSE) * self.spread()
                self.not_before[index] = max(self.not_before[index], now + (pause or wait))
            elif pause:
                self.not_before[index] = max(self.not_before[index], now + pause)
            if self.failures[index] <= self.retries:
                return False
            self.given_up[index] = reason
            return True
