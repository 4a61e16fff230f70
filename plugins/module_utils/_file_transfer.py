# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One file on its way: several connections write it, one thread hashes it right behind them, and damage is fetched again.

The thread that calls ``run`` is the one that hashes. Sizes are bytes.
"""

from __future__ import annotations

from typing import Any

from ansible_collections.onprem.llamacpp.plugins.module_utils._blocks import RunningHash, bounds, checked, first_difference
from ansible_collections.onprem.llamacpp.plugins.module_utils._connections import Connections
from ansible_collections.onprem.llamacpp.plugins.module_utils._file_state import LOOK_AGAIN, PUBLISHED, FileState
from ansible_collections.onprem.llamacpp.plugins.module_utils._http import TransferError
from ansible_collections.onprem.llamacpp.plugins.module_utils._segments import SMALLEST
from ansible_collections.onprem.llamacpp.plugins.module_utils._shared import CHUNK, Shared, Stopped


class FileTransfer:
    """Fetches ``{path, size, sha256}`` to ``whole``. ``blocks`` and ``published``, the path of a damaged copy, help to repair it."""

    def __init__(self, item: dict[str, Any], whole: str, shared: Shared) -> None:
        self.item, self.whole, self.shared = item, whole, shared
        self.size: int = item["size"]
        self.trusted = checked(item.get("blocks"), self.size, item["sha256"])
        self.hash = RunningHash(self.size)
        self.wrong: dict[int, int] = {}  # how often a block has arrived damaged
        self.wrong_files = 0

    def run(self) -> None:
        """Raises TransferError, OSError and Stopped; what has arrived by then stays for the next attempt."""
        self.state = FileState(self.item, self.whole, self.shared)
        try:
            connections = Connections(self.state)
            try:
                while not self._right():
                    self._repair()
            finally:
                connections.end()
            self.state.part.publish(self.hash.blocks)
        finally:
            self.state.part.close()

    def _right(self) -> bool:
        """Hash what is there and what comes, to the end; whether it is the file that was wanted."""
        while True:
            self._hash_all()
            with self.state.changed:
                if not self.state.restarted:
                    self.state.finished = self.hash.blocks[-1] == self.item["sha256"]
                    return self.state.finished

    def _hash_all(self) -> None:
        buffer = memoryview(bytearray(CHUNK))
        while self.state.front < self.size:
            end = self._wait_for_bytes()
            view = buffer[: min(CHUNK, end - self.hash.position, self.hash.room())]
            if self.state.part.read(self.hash.position, view) != len(view):
                raise TransferError(f"{self.state.part.path} was changed by somebody else. Remove it, then run again.")
            ended = self.hash.update(view)
            with self.state.changed:
                if self.state.restarted:
                    continue
                before, self.state.front = self.state.front, self.hash.position
                if before // SMALLEST != self.state.front // SMALLEST:  # nothing smaller is fetched
                    self.state.changed.notify_all()
            if ended and self.trusted:
                block = len(self.hash.blocks) - 1
                if self.hash.blocks[block] != self.trusted[block]:
                    self._bad_block(block)

    def _wait_for_bytes(self) -> int:
        """How far there is something to hash; it is more than has been hashed."""
        with self.state.arrived:
            while True:
                if self.state.error:
                    raise self.state.error
                if self.shared.stop.is_set():
                    raise Stopped
                if self.state.restarted:
                    self.hash.rewind(0)
                    self.state.restarted = False
                end = self.state.part.end_from(self.state.front)
                if end > self.state.front:
                    return end
                self.state.arrived.wait(LOOK_AGAIN)

    def _repair(self) -> None:
        """The file is wrong as a whole: find the block, or fetch it all once more."""
        if not self.trusted:
            candidates = [source for index, source in enumerate(self.shared.sources) if index not in self.state.refused]
            self.trusted = next((blocks for blocks in (source.blocks(self.item) for source in candidates) if blocks), None)
        block = first_difference(self.hash.blocks, self.trusted) if self.trusted else None
        if block is not None:
            self._bad_block(block)
            return
        self.wrong_files += 1
        index = self.state.pick()
        if index == PUBLISHED or self.wrong_files > 1:
            self._wrong_source(index)
        self.shared.progress.tell(f"{self.item['path']} did not match its SHA-256 and is fetched again, since no source knows its blocks")
        self.state.lose_all()

    def _bad_block(self, block: int) -> None:
        self.wrong[block] = self.wrong.get(block, 0) + 1
        index = self.state.pick()
        begin, end = bounds(block, self.size)
        if index == PUBLISHED:
            self._wait_for_copy()
        if index == PUBLISHED or self.wrong[block] > 1:
            self._wrong_source(index)
            self.wrong[block] = 1
        self.shared.progress.tell(f"block {block + 1} of {len(self.trusted or [])} of {self.item['path']} was damaged and is fetched again")
        self.hash.rewind(block)
        self.state.lose(begin, end)

    def _wait_for_copy(self) -> None:
        """All that is good in the published copy is taken over before another source is asked for what is not."""
        with self.state.changed:
            while self.state.segments.busy() and PUBLISHED not in self.state.refused and not self.state.over():
                self.state.changed.wait(LOOK_AGAIN)

    def _wrong_source(self, index: int) -> None:
        """What it gives is not the file. Raises TransferError when nobody else is left to be asked."""
        digest = self.hash.blocks[-1]
        wanted = self.trusted[len(self.hash.blocks) - 1] if self.trusted else self.item["sha256"]
        reason = (
            f"{self.item['path']} from {self.state.source(index).label} is not the published file: sha256 {digest}, expected {wanted}. "
            "Nothing was published. Repair the source, or set llama_model_endpoint to another one."
        )
        try:
            self.state.refuse(index, reason)
            self.state.pick()
        except TransferError:
            if not self.trusted:
                self.shared.progress.add(-self.state.part.total())
                self.state.part.lose_all()
                self.state.part.remove()
            raise
