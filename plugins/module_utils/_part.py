# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file that is under way: its bytes, its room on disk and its journal. Many threads write, one reads. Sizes are bytes."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from typing import Any, Callable, Optional

from ansible_collections.onprem.llamacpp.plugins.module_utils._blocks import BLOCK
from ansible_collections.onprem.llamacpp.plugins.module_utils._buffer import Buffer, write_all
from ansible_collections.onprem.llamacpp.plugins.module_utils._files import (
    preallocate,
    read_json,
    remove,
    size_of,
    sync_directory,
    write_json,
)
from ansible_collections.onprem.llamacpp.plugins.module_utils._journal import Journal
from ansible_collections.onprem.llamacpp.plugins.module_utils._ranges import Ranges

SAVE_BYTES = 32 * 2**20  # what the death of the process may cost, whatever the number of connections
SAVE_SECONDS = 1.0
SYNC_BYTES = 256 * 2**20  # what a power cut may cost


class Part:
    """``<whole>.part``, until it is verified and gets its name. Raises OSError."""

    def __init__(self, whole: str, item: dict[str, Any]) -> None:
        self.whole, self.path, self.item = whole, whole + ".part", item
        self.size: int = item["size"]
        self.journal = Journal(self.path, item)
        self.handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        self.lock = threading.Lock()  # of the journal's ranges
        self.saving = threading.Lock()
        self.written = threading.Condition()  # of the ranges that are being written
        self.writing: list[tuple[int, int]] = []
        self.unsaved, self.saved_at = 0, time.monotonic()
        self.unsynced = 0
        self.losses = 0
        self.removed = False
        if os.fstat(self.handle).st_size > self.size:
            os.ftruncate(self.handle, self.size)
        if not self.holds(0, self.size):
            preallocate(self.handle, self.size)
        self.save()

    @property
    def received(self) -> Ranges:
        return self.journal.received

    def holds(self, begin: int, end: int) -> bool:
        return self.received.end_from(begin) >= end

    def end_from(self, position: int) -> int:
        """How far the bytes are there without a gap."""
        with self.lock:
            return self.received.end_from(position)

    def missing(self, begin: int, end: int) -> list[tuple[int, int]]:
        with self.lock:
            return self.received.missing(begin, end)

    def total(self) -> int:
        with self.lock:
            return self.received.total()

    def write(self, position: int, buffer: Buffer, count: int, wanted: Callable[[], bool]) -> bool:
        """A buffer's first bytes to disk; they count from ``note`` on. False where they are not ``wanted`` any more.

        That is asked when nobody else writes them: what comes late never replaces what was fetched in its place, and was hashed since.
        """
        with self._alone(position, position + count):
            if not wanted():
                return False
            buffer.write(self.handle, position, count)
            return True

    def write_missing(self, position: int, view: memoryview) -> None:
        """Bytes to disk, those only that are not there yet."""
        with self._alone(position, position + len(view)):
            for begin, end in self.missing(position, position + len(view)):
                write_all(self.handle, begin, view[begin - position : end - position])

    @contextlib.contextmanager
    def _alone(self, begin: int, end: int) -> Iterator[None]:
        """Nobody else writes these bytes meanwhile; other bytes of the file may be written, so that connections don't wait in a row."""
        with self.written:
            while any(start < end and begin < stop for start, stop in self.writing):
                self.written.wait()
            self.writing.append((begin, end))
        try:
            yield
        finally:
            with self.written:
                self.writing.remove((begin, end))
                self.written.notify_all()

    def read(self, position: int, view: memoryview) -> int:
        return os.preadv(self.handle, [view], position)

    def note(self, begin: int, end: int) -> int:
        """These bytes are there. Returns how many of them are new."""
        with self.lock:
            new = sum(stop - start for start, stop in self.received.missing(begin, end))
            self.received.add(begin, end)
            self.unsaved += end - begin
            self.unsynced += end - begin
            return new

    def save_if_due(self) -> None:
        if self.unsaved >= SAVE_BYTES or (self.unsaved and time.monotonic() - self.saved_at >= SAVE_SECONDS):
            with self.saving:  # the others wait here, so none of them runs ahead of the journal
                if self.unsaved >= SAVE_BYTES or time.monotonic() - self.saved_at >= SAVE_SECONDS:
                    self._save()

    def save(self) -> None:
        with self.saving:
            self._save()

    def _save(self) -> None:
        if self.removed:
            return
        with self.lock:
            document = self.journal.document()
            self.unsaved, self.saved_at = 0, time.monotonic()
        write_json(self.journal.path, document)

    def sync(self) -> None:
        """Bring what is there to disk, and note that it survives a power cut."""
        with self.lock:
            snapshot, losses, self.unsynced = self.received.pairs(), self.losses, 0
        os.fdatasync(self.handle)
        with self.lock:
            if losses == self.losses:  # otherwise some of it may have been written anew since
                self.journal.synced = Ranges(snapshot)
            document = self.journal.document()
        write_json(self.journal.synced_path, document, sync=True)
        sync_directory(os.path.dirname(self.path))
        self.save()

    def lose(self, begin: int, end: int) -> int:
        """These bytes are wrong. Returns how many of them were there."""
        with self.lock:
            before = self.received.total()
            self.received.remove(begin, end)
            self.journal.synced.remove(begin, end)
            self.losses += 1
            lost = before - self.received.total()
        self.save()
        return lost

    def lose_all(self) -> int:
        with self.lock:
            before = self.received.total()
            self.journal.forget()
            self.losses += 1
        self.save()
        return before

    def bind(self, key: str, etag: str) -> Optional[str]:
        """Note the ETag of a source; returns another one that was known of it before."""
        with self.lock:
            known = self.journal.etags.get(key)
            if known and known != etag:
                return known
            self.journal.etags[key] = etag
            return None

    def publish(self, blocks: list[str]) -> None:
        """It is verified and on disk: it gets its name, with its blocks beside it."""
        os.fchmod(self.handle, 0o644)
        os.fsync(self.handle)
        write_blocks(self.whole, self.item, blocks)
        os.rename(self.path, self.whole)
        remove(self.journal.path, self.journal.synced_path)
        sync_directory(os.path.dirname(self.whole))

    def remove(self) -> None:
        with self.saving:
            self.removed = True
        remove(self.path, self.journal.path, self.journal.synced_path)

    def close(self) -> None:
        os.close(self.handle)


def blocks_path(whole: str) -> str:
    return whole + ".blocks.json"


def is_whole(whole: str, item: dict[str, Any]) -> bool:
    """Whether the file lies there under its own name: that says it was verified, and its blocks, if there are any, as what."""
    blocks = read_json(blocks_path(whole)).get("blocks")
    return size_of(whole) == item["size"] and (not isinstance(blocks, list) or blocks[-1:] == [item["sha256"]])


def write_blocks(whole: str, item: dict[str, Any], blocks: list[str]) -> None:
    """The digests of a verified file's blocks, for its manifest."""
    write_json(blocks_path(whole), {"size": item["size"], "block_size": BLOCK, "blocks": blocks}, sync=True)
