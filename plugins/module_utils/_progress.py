# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Counts the bytes of a transfer and keeps ``status.json`` fresh for whoever watches. Sizes are bytes, times are seconds."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import Any, Callable

from ansible_collections.onprem.llamacpp.plugins.module_utils._files import write_json

STATUS = "status.json"
STATUS_SECONDS = 1.0
RATE_SECONDS = 15.0


class Progress:
    """How far a job is; every thread of it may tell."""

    def __init__(self, staging: str, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.path = os.path.join(staging, STATUS)
        self.total = total
        self.clock = clock
        self.done = 0
        self.moved = 0  # over the wire, or read to be verified, by this process
        self.fetched = 0  # of these, over the wire
        self.note = ""  # a trouble that may pass
        self.told: list[str] = []  # what stays worth knowing
        self.until = ""  # local time at which the window opens
        self.source = ""
        self.files: list[str] = []  # under way
        self.intact: list[str] = []  # files that were found whole where they are published
        self.state, self.error = "running", ""
        self.samples: list[tuple[float, int]] = [(clock(), 0)]
        self.lock = threading.Lock()
        self.stopped = threading.Event()
        self.watcher = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> None:
        self.write()
        self.watcher.start()

    def _watch(self) -> None:
        while not self.stopped.wait(STATUS_SECONDS):
            self.write()

    def add(self, count: int, moved: bool = False, fetched: bool = False) -> None:
        """So many bytes more are there; a negative number takes some back."""
        with self.lock:
            self.done += count
            self.moved += count if moved or fetched else 0
            self.fetched += count if fetched else 0

    def tell(self, text: str) -> None:
        with self.lock:
            if text not in self.told:
                self.told.append(text)

    def rate(self) -> float:
        """Bytes a second over the last seconds."""
        elapsed = self.samples[-1][0] - self.samples[0][0]
        return (self.samples[-1][1] - self.samples[0][1]) / elapsed if elapsed > 0 else 0.0

    def finish(self, state: str, error: str = "") -> None:
        """The last word: nothing is written after it."""
        self.stopped.set()
        if self.watcher.is_alive():
            self.watcher.join()
        self.state, self.error = state, error
        self.write()

    def write(self) -> None:
        with contextlib.suppress(OSError):  # a full disk must not hide the reason for stopping
            write_json(self.path, self.document())

    def document(self) -> dict[str, Any]:
        with self.lock:
            now = self.clock()
            self.samples.append((now, self.moved))
            while len(self.samples) > 2 and now - self.samples[0][0] > RATE_SECONDS:
                self.samples.pop(0)
            rate = int(self.rate())
            waits = [f"outside of the window, nothing is fetched until {self.until}"] if self.until else []
            return {
                "state": self.state,
                "error": self.error,
                "note": "; ".join([*waits, *([self.note] if self.note else []), *self.told[-2:]]),
                "source": self.source,
                "file": next(iter(self.files), ""),
                "intact": list(self.intact),
                "bytes_done": self.done,
                "bytes_total": self.total,
                "bytes_fetched": self.fetched,
                "rate": rate,
                "eta_seconds": int((self.total - self.done) / rate) if rate else None,
            }
