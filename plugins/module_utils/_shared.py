# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all files of a job share: sources, pace, progress, and the wish to stop. Sizes are bytes, times are seconds."""

from __future__ import annotations

import threading
import time
from typing import Any

from ansible_collections.onprem.llamacpp.plugins.module_utils._buffer import Buffer
from ansible_collections.onprem.llamacpp.plugins.module_utils._http import RetryableError, TransferError
from ansible_collections.onprem.llamacpp.plugins.module_utils._pace import Hours, TokenBucket
from ansible_collections.onprem.llamacpp.plugins.module_utils._progress import Progress
from ansible_collections.onprem.llamacpp.plugins.module_utils._sources import AnySource, Body, sources_of
from ansible_collections.onprem.llamacpp.plugins.module_utils._supply import Supply

CHUNK = 2**20
PATIENCE = 0.5  # how long one fill of a buffer may take before what is there is handed on
LEAST_RATE = 1024  # bytes a second, below which a connection counts as broken


class Stopped(Exception):
    """Another file of the job has failed."""


class Shared:
    """One job."""

    def __init__(self, job: dict[str, Any], private: dict[str, Any]) -> None:
        self.staging: str = job["staging"]
        self.timeout = float(job.get("timeout") or 60.0)
        self.connections = int(job.get("connections") or 4)
        self.files_at_once = int(job.get("files_at_once") or 2)
        self.sources: list[AnySource] = sources_of(job, private)
        self.ranged: set[int] = set()  # sources that are known to answer with ranges
        self.supply = Supply([source.label for source in self.sources], int(job.get("retries", 8)))
        self.bucket = TokenBucket(int(job.get("rate_limit") or 0))
        self.hours = Hours(str(job.get("window") or ""))
        self.progress = Progress(self.staging, sum(item["size"] for item in job["files"]))
        self.stop = threading.Event()
        self._opens, self._asked = "", -1.0

    def closed(self) -> bool:
        """Whether it is an hour at which nothing may be fetched."""
        now = time.monotonic()
        if now - self._asked >= 1.0 or self._asked < 0:
            self._asked, self._opens = now, self.hours.opens_at(time.time())
            self.progress.until = self._opens
        return bool(self._opens)

    def spend(self, count: int) -> None:
        """Wait until so many bytes are within the limit."""
        pause = self.bucket.spend(count)
        if pause:
            self.stop.wait(pause)


class Patience:
    """Reads a body and loses patience with a source that drips. Only the time spent waiting for bytes counts."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.count, self.seconds = 0, 0.0
        self.worthwhile = False  # it has brought what a source that works brings

    def fill(self, body: Body, buffer: Buffer, most: int) -> int:
        """Fill an empty buffer as far as it goes without a long wait; at least one byte. Raises RetryableError."""
        began, filled = time.monotonic(), 0
        while filled < most and time.monotonic() - began < PATIENCE:
            try:
                count = buffer.take(body, most - filled)
            except RetryableError:
                if filled:
                    break  # the next read tells it again
                raise
            if not count:
                break
            filled += count
        if not filled:
            raise RetryableError("the answer ended before its end")
        self.count, self.seconds = self.count + filled, self.seconds + time.monotonic() - began
        self.worthwhile = self.worthwhile or self.count >= LEAST_RATE * self.timeout
        if self.seconds >= self.timeout:
            if self.count < LEAST_RATE * self.seconds:
                raise RetryableError(f"only {self.count} bytes came in {self.seconds:.0f} s")
            self.count, self.seconds = 0, 0.0
        return filled


def nothing_left(path: str, reasons: list[str]) -> TransferError:
    """Why no source can be asked for a file any more."""
    if len(reasons) == 1:
        return TransferError(reasons[0])
    return TransferError(f"No source is left for {path}. " + " ".join(reasons))
