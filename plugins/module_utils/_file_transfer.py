# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One file on its way: several connections write it, one thread hashes it right behind them, and damage is fetched again.

The thread that calls ``run`` is the one that hashes. Everything that connections and hash share is guarded by ``changed``. Sizes are
bytes.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any, Optional

from ansible_collections.onprem.llamacpp.plugins.module_utils._blocks import RunningHash, bounds, checked, first_difference
from ansible_collections.onprem.llamacpp.plugins.module_utils._http import RetryableError, TransferError
from ansible_collections.onprem.llamacpp.plugins.module_utils._part import SYNC_BYTES, Part
from ansible_collections.onprem.llamacpp.plugins.module_utils._segments import WINDOW, Segment, Segments
from ansible_collections.onprem.llamacpp.plugins.module_utils._shared import CHUNK, Patience, Shared, Stopped, nothing_left
from ansible_collections.onprem.llamacpp.plugins.module_utils._sources import AnyLink, AnySource, Body, PathSource

PUBLISHED = -1  # index of the published copy among the sources
LOOK_AGAIN = 0.5
SYNC_SECONDS = 30.0


class FileTransfer:
    """Fetches ``{path, size, sha256}`` to ``whole``. ``blocks`` and ``published``, the path of a damaged copy, help to repair it."""

    def __init__(self, item: dict[str, Any], whole: str, shared: Shared) -> None:
        self.item, self.whole, self.shared = item, whole, shared
        self.size: int = item["size"]
        self.trusted = checked(item.get("blocks"), self.size, item["sha256"])
        self.copy = PathSource(item["published"], "", "", "", published=True) if item.get("published") else None
        self.refused: dict[int, str] = {} if self.copy else {PUBLISHED: ""}
        self.single: set[int] = set()  # sources that know no ranges
        self.streaming = threading.Lock()
        self.hash = RunningHash(self.size)
        self.front = 0  # bytes hashed
        self.restarted = False
        self.wrong: dict[int, int] = {}  # how often a block has arrived damaged
        self.wrong_files = 0
        self.changed = threading.Condition()
        self.sync_wanted = threading.Event()
        self.finished = False
        self.error: Optional[Exception] = None
        self.links: dict[int, AnyLink] = {}

    # The hash, in the thread of the caller

    def run(self) -> None:
        """Raises TransferError, OSError and Stopped; what has arrived by then stays for the next attempt."""
        self.part = Part(self.whole, self.item)
        self.segments = Segments(self.size, self.part.missing(0, self.size), self.shared.connections)
        self.resumed = self.part.end_from(0)
        self.shared.progress.add(self.part.total())
        count = min(self.shared.connections, -(-self.size // self.segments.step))
        threads = [threading.Thread(target=self._work, args=(number,), daemon=True) for number in range(count)]
        threads.append(threading.Thread(target=self._keep_synced, daemon=True))
        for thread in threads:
            thread.start()
        try:
            while not self._right():
                self._repair()
        finally:
            self._end(threads)
        self.part.publish(self.hash.blocks)
        self.part.close()

    def _right(self) -> bool:
        """Hash what is there and what comes, to the end; whether it is the file that was wanted."""
        while True:
            self._hash_all()
            with self.changed:
                if not self.restarted:
                    self.finished = self.hash.blocks[-1] == self.item["sha256"]
                    return self.finished

    def _end(self, threads: list[threading.Thread]) -> None:
        with self.changed:
            self.finished = True
            self.changed.notify_all()
        self.sync_wanted.set()
        for link in list(self.links.values()):
            link.abort()
        for thread in threads:
            thread.join()  # a connection that is being made ends with its timeout
        with contextlib.suppress(OSError):
            self.part.save()

    def _hash_all(self) -> None:
        buffer = memoryview(bytearray(CHUNK))
        while self.front < self.size:
            end = self._wait_for_bytes()
            view = buffer[: min(CHUNK, end - self.front, self.hash.room())]
            if self.part.read(self.front, view) != len(view):
                raise TransferError(f"{self.part.path} was changed by somebody else. Remove it, then run again.")
            ended = self.hash.update(view)
            with self.changed:
                if not self.restarted:
                    self.front = self.hash.position
                    self.changed.notify_all()
            if ended and self.trusted:
                block = len(self.hash.blocks) - 1
                if self.hash.blocks[block] != self.trusted[block]:
                    self._bad_block(block)

    def _wait_for_bytes(self) -> int:
        with self.changed:
            while True:
                if self.error:
                    raise self.error
                if self.shared.stop.is_set():
                    raise Stopped
                if self.restarted:
                    self.hash.rewind(0)
                    self.restarted = False
                end = self.part.end_from(self.front)
                if end > self.front:
                    return end
                self.changed.wait(LOOK_AGAIN)

    # Damage

    def _repair(self) -> None:
        """The file is wrong as a whole: find the block, or fetch it all once more."""
        if not self.trusted:
            candidates = [source for index, source in enumerate(self.shared.sources) if index not in self.refused]
            self.trusted = next((blocks for blocks in (source.blocks(self.item) for source in candidates) if blocks), None)
        block = first_difference(self.hash.blocks, self.trusted) if self.trusted else None
        if block is not None:
            self._bad_block(block)
            return
        self.wrong_files += 1
        index = self._pick()
        if index == PUBLISHED or self.wrong_files > 1:
            self._wrong_source(index)
        self.shared.progress.tell(f"{self.item['path']} did not match its SHA-256 and is fetched again, since no source knows its blocks")
        self._lose_all()

    def _bad_block(self, block: int) -> None:
        self.wrong[block] = self.wrong.get(block, 0) + 1
        index = self._pick()
        begin, end = bounds(block, self.size)
        if index == PUBLISHED:
            self._wait_for_copy()
        if index == PUBLISHED or self.wrong[block] > 1:
            self._wrong_source(index)
            self.wrong[block] = 1
        self.shared.progress.tell(f"block {block + 1} of {len(self.trusted or [])} of {self.item['path']} was damaged and is fetched again")
        with self.changed:
            lost = self.part.lose(begin, end)
            self.segments.lost(begin, end)
            self.hash.rewind(block)
            self.front = begin
            self.changed.notify_all()
        self.shared.progress.add(-lost)

    def _wait_for_copy(self) -> None:
        """All that is good in the published copy is taken over before another source is asked for what is not."""
        with self.changed:
            while (self.segments.waiting.total() or self.segments.active) and PUBLISHED not in self.refused and not self.error:
                self.changed.wait(LOOK_AGAIN)

    def _wrong_source(self, index: int) -> None:
        """What it gives is not the file. Raises TransferError when nobody else is left to be asked."""
        digest = self.hash.blocks[-1]
        wanted = self.trusted[len(self.hash.blocks) - 1] if self.trusted else self.item["sha256"]
        reason = (
            f"{self.item['path']} from {self._source(index).label} is not the published file: sha256 {digest}, expected {wanted}. "
            "Nothing was published. Repair the source, or set llama_model_endpoint to another one."
        )
        try:
            self._refuse(index, reason)
            self._pick()
        except TransferError:
            if not self.trusted:
                self.shared.progress.add(-self.part.total())
                self.part.lose_all()
                self.part.remove()
            raise

    def _lose_all(self) -> None:
        with self.changed:
            lost = self.part.lose_all()
            self.segments.lost(0, self.size)
            self.front, self.restarted = 0, True
            self.changed.notify_all()
        self.shared.progress.add(-lost)

    # Sources

    def _source(self, index: int) -> AnySource:
        return self.copy if index == PUBLISHED and self.copy else self.shared.sources[index]

    def _pick(self) -> int:
        """The source to ask. Raises TransferError when none is left."""
        if PUBLISHED not in self.refused:
            return PUBLISHED
        index = self.shared.supply.pick(self.refused)
        if index is None:
            known = {**self.shared.supply.given_up, **self.refused}
            raise nothing_left(self.item["path"], [known[number] for number in sorted(known) if known[number]])
        return index

    def _refuse(self, index: int, reason: str) -> None:
        with self.changed:
            if index in self.refused:
                return
            self.refused[index] = reason
            self.changed.notify_all()
        self._tell_next(index, reason)

    def _tell_next(self, index: int, reason: str) -> None:
        self.shared.progress.note = ""
        if index != PUBLISHED:
            self.shared.progress.tell(
                f"{self._source(index).label} was left ({reason[:160]}), going on from {self._source(self._pick()).label}"
            )

    def _failed(self, index: int, error: RetryableError, began: float) -> None:
        if index == PUBLISHED:
            self._refuse(index, str(error))
            return
        if str(error) == "HTTP 416":
            self.single.add(index)
        label = self._source(index).label
        reason = (
            f"{self.item['path']}: {error}. {self.shared.supply.failures[index] + 1} attempts in a row brought nothing. "
            f"Check that {label} is up and reachable from this host (llama_proxy_env, llama_model_endpoint), "
            "then run again: it goes on from here."
        )
        if self.shared.supply.failed(index, reason, error.pause, began):
            self._tell_next(index, reason)
        else:
            self.shared.progress.note = str(error)

    # The connections, each in a thread of its own

    def _work(self, number: int) -> None:
        at, buffer = None, memoryview(bytearray(CHUNK))
        try:
            while True:
                found = self._next(number)
                if found is None:
                    return
                index, segment = found
                if at != index:
                    if at is not None:
                        self.links[number].close()
                    at, self.links[number] = index, self._source(index).link()
                self._attempt(index, self.links[number], segment, buffer)
        except Exception as error:  # whatever it is, the thread that hashes must hear of it
            with self.changed:
                self.error = self.error or error
                self.changed.notify_all()
        finally:
            if at is not None:
                self.links[number].close()

    def _next(self, number: int) -> Optional[tuple[int, Segment]]:
        """The next bytes for a connection, as soon as there are some to fetch; None when the file is whole."""
        with self.changed:
            while not (self.finished or self.error or self.shared.stop.is_set()):
                index = self._pick()
                pause = self.shared.supply.wait(index) if index != PUBLISHED else 0.0
                busy = number >= self._source(index).streams or (index in self.single and self.streaming.locked())
                if not (pause or busy or self.shared.closed()):
                    self.shared.progress.source = self._source(index).label
                    segment = self.segments.take(self._limit(), time.monotonic())
                    if segment:
                        return index, segment
                self.changed.wait(min(pause, LOOK_AGAIN) if pause else LOOK_AGAIN)
        return None

    def _limit(self) -> int:
        """Nothing at or beyond it is fetched. While the hash reads what is on this host already, it is behind anyway."""
        behind = self.front < self.resumed or PUBLISHED not in self.refused
        return self.size if behind else min(self.size, self.front + WINDOW)

    def _attempt(self, index: int, link: AnyLink, segment: Segment, buffer: memoryview) -> None:
        began = time.monotonic()
        try:
            self._fetch(index, link, segment, buffer)
        except RetryableError as error:
            link.close()
            if not self.finished:
                self._failed(index, error, began)
        except TransferError as error:
            link.close()
            self._refuse(index, str(error))
        finally:
            with self.changed:
                self.segments.give_back(segment)
                self.changed.notify_all()

    def _fetch(self, index: int, link: AnyLink, segment: Segment, buffer: memoryview) -> None:
        source = self._source(index)
        if index in self.single:
            with link.open(self.item, 0, 0, "") as body:
                self._stream(index, body, buffer)
            return
        known = self.part.journal.etags.get(source.key, "")
        with link.open(self.item, segment.position, segment.end, known) as body:
            if body.etag and self.part.bind(source.key, body.etag) and not self.finished:
                self._lose_all()
                self.part.bind(source.key, body.etag)
                raise RetryableError(f"{self.item['path']} has changed at the source")
            if body.ranged:
                self._receive(index, body, segment, buffer)
            else:
                self.single.add(index)
                self._stream(index, body, buffer)

    def _receive(self, index: int, body: Body, segment: Segment, buffer: memoryview) -> None:
        """The bytes of one segment, unless another connection takes a share of it or they are wanted no more."""
        patience = Patience(self.shared.timeout)
        position = segment.position
        while True:
            room = min(self.shared.bucket.chunk(CHUNK), segment.end - position, body.end - position)
            if room <= 0 or self.shared.closed():
                break
            count = min(patience.fill(body, buffer[:room]), segment.end - position)
            if count <= 0:
                break
            self.part.write(position, buffer[:count])
            with self.changed:
                if segment.end <= segment.position:
                    return
                new = self.part.note(position, position + count)
                position += count
                segment.position = position
                self.changed.notify_all()
            self._arrived(index, count, new, patience.worthwhile)
        self._arrived(index, 0, 0, position >= segment.end)

    def _stream(self, index: int, body: Body, buffer: memoryview) -> None:
        """All of the file in one answer, from a source that knows no ranges; what is there already is passed over."""
        if not self.streaming.acquire(blocking=False):
            return
        try:
            patience, position = Patience(self.shared.timeout), 0
            while position < self.size and not self.restarted and not self.shared.closed():
                with self.changed:
                    while position + CHUNK > self._limit() < self.size and not self.finished:
                        self.changed.wait(LOOK_AGAIN)
                if self.finished:
                    return
                count = patience.fill(body, buffer[: min(self.shared.bucket.chunk(CHUNK), self.size - position)])
                for begin, end in self.part.missing(position, position + count):
                    self.part.write(begin, buffer[begin - position : end - position])
                with self.changed:
                    new = self.part.note(position, position + count)
                    self.segments.arrived(position, position + count)
                    self.changed.notify_all()
                position += count
                self._arrived(index, count, new, new > 0 and patience.worthwhile)
        finally:
            self.streaming.release()

    def _arrived(self, index: int, count: int, new: int, worthwhile: bool) -> None:
        self.shared.progress.add(new, moved=index == PUBLISHED, fetched=index != PUBLISHED)
        if worthwhile and index != PUBLISHED:
            self.shared.supply.arrived(index)
            self.shared.progress.note = ""
        self.part.save_if_due()
        if self.part.unsynced >= SYNC_BYTES:
            self.sync_wanted.set()
        if index != PUBLISHED and count:
            self.shared.spend(count)

    def _keep_synced(self) -> None:
        """Brings what has arrived to disk beside the transfer, so that the end does not wait for all of it."""
        try:
            while not self.finished:
                self.sync_wanted.wait(SYNC_SECONDS)
                self.sync_wanted.clear()
                if self.part.unsynced and not self.finished:
                    self.part.sync()
        except OSError as error:
            with self.changed:
                self.error = self.error or error
                self.changed.notify_all()
