# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The connections of one file: each takes segments, in a thread of its own, from the source that is to be asked. Sizes are bytes."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Optional

from ansible_collections.onprem.llamacpp.plugins.module_utils._buffer import Buffer
from ansible_collections.onprem.llamacpp.plugins.module_utils._file_state import LOOK_AGAIN, PUBLISHED, FileState
from ansible_collections.onprem.llamacpp.plugins.module_utils._http import RetryableError, TransferError
from ansible_collections.onprem.llamacpp.plugins.module_utils._part import SYNC_BYTES
from ansible_collections.onprem.llamacpp.plugins.module_utils._segments import Segment
from ansible_collections.onprem.llamacpp.plugins.module_utils._shared import CHUNK, Patience
from ansible_collections.onprem.llamacpp.plugins.module_utils._sources import AnyLink, Body

SYNC_SECONDS = 30.0
MOST_CHANGES = 3  # of its ETag, after which those of a source are not believed: behind it stand servers that disagree


class Connections:
    """Fetches what is missing of a file until the file is finished."""

    def __init__(self, state: FileState) -> None:
        self.state, self.shared = state, state.shared
        self.single: set[int] = set()  # sources that know no ranges
        self.streaming = threading.Lock()
        self.changes: dict[int, int] = {}  # of a source's ETag
        self.trying: set[int] = set()  # sources that one connection is finding out about
        self.sync_wanted = threading.Event()
        self.links: dict[int, AnyLink] = {}
        count = min(self.shared.connections, -(-state.size // state.segments.step))
        self.threads = [threading.Thread(target=self._work, args=(number,), daemon=True) for number in range(count)]
        self.threads.append(threading.Thread(target=self._keep_synced, daemon=True))
        for thread in self.threads:
            thread.start()

    def end(self) -> None:
        """Stop all of it, and write down what there is."""
        with self.state.changed:
            self.state.finished = True
            self.state.changed.notify_all()
        self.sync_wanted.set()
        for link in list(self.links.values()):
            link.abort()
        for thread in self.threads:
            thread.join()  # a connection that is being made ends with its timeout
        with contextlib.suppress(OSError):
            self.state.part.save()

    def _work(self, number: int) -> None:
        at, buffer = None, Buffer(CHUNK)
        try:
            while True:
                found = self._next(number)
                if found is None:
                    return
                index, segment = found
                if at != index:
                    if at is not None:
                        self.links[number].close()
                    at, self.links[number] = index, self.state.source(index).link()
                self._attempt(index, self.links[number], segment, buffer)
        except Exception as error:
            self.state.fail(error)
        finally:
            if at is not None:
                self.links[number].close()
            buffer.close()

    def _next(self, number: int) -> Optional[tuple[int, Segment]]:
        """The next bytes for a connection, as soon as there are some to fetch; None when the file is whole."""
        with self.state.changed:
            while not self.state.over():
                index = self.state.pick()
                pause = self.shared.supply.wait(index) if index != PUBLISHED else 0.0
                alone = index in self.trying or (index in self.single and self.streaming.locked())
                busy = alone or number >= self.state.source(index).streams
                if not (pause or busy or self.shared.closed()):
                    self.shared.progress.source = self.state.source(index).label
                    segment = self.state.segments.take(self.state.limit(), time.monotonic())
                    if segment:
                        if index not in self.shared.ranged:
                            self.trying.add(index)
                        return index, segment
                self.state.changed.wait(min(pause, LOOK_AGAIN) if pause else LOOK_AGAIN)
        return None

    def _attempt(self, index: int, link: AnyLink, segment: Segment, buffer: Buffer) -> None:
        began = time.monotonic()
        try:
            self._fetch(index, link, segment, buffer)
        except RetryableError as error:
            link.close()
            if not self.state.finished:
                self._failed(index, error, began)
        except TransferError as error:
            link.close()
            self.state.refuse(index, str(error))
        finally:
            with self.state.changed:
                self.trying.discard(index)
                self.state.segments.give_back(segment)
                self.state.changed.notify_all()

    def _failed(self, index: int, error: RetryableError, began: float) -> None:
        if index == PUBLISHED:
            self.state.refuse(index, str(error))
            return
        if str(error) == "HTTP 416":
            self.single.add(index)
        label = self.state.source(index).label
        reason = (
            f"{self.state.item['path']}: {error}. {self.shared.supply.failures[index] + 1} attempts in a row brought nothing. "
            f"Check that {label} is up and reachable from this host (llama_proxy_env, llama_model_endpoint), "
            "then run again: it goes on from here."
        )
        if self.shared.supply.failed(index, reason, error.pause, began):
            self.state.tell_next(index, reason)
        else:
            self.shared.progress.note = str(error)

    def _fetch(self, index: int, link: AnyLink, segment: Segment, buffer: Buffer) -> None:
        source = self.state.source(index)
        if index in self.single:
            with link.open(self.state.item, 0, 0, "") as body:
                self._stream(index, body)
            return
        believed = self.changes.get(index, 0) < MOST_CHANGES
        known = self.state.part.journal.etags.get(source.key, "") if believed else ""
        with link.open(self.state.item, segment.position, segment.end, known) as body:
            if body.etag and believed and self.state.part.bind(source.key, body.etag):
                self.changes[index] = self.changes.get(index, 0) + 1
                self.state.lose_all()
                self.state.part.bind(source.key, body.etag)
                raise RetryableError(f"{self.state.item['path']} has changed at the source")
            if body.ranged:
                self._share(index)
                self._receive(index, body, segment, buffer)
            else:
                self.single.add(index)
                self._stream(index, body)

    def _share(self, index: int) -> None:
        """The source knows ranges, so the other connections may come."""
        if index in self.trying:
            with self.state.changed:
                self.shared.ranged.add(index)
                self.trying.discard(index)
                self.state.changed.notify_all()

    def _receive(self, index: int, body: Body, segment: Segment, buffer: Buffer) -> None:
        """The bytes of one segment, unless another connection takes a share of it or they are wanted no more."""
        patience = Patience(self.shared.timeout)
        position = segment.position
        buffer.clear()
        while True:
            room = min(self.shared.bucket.chunk(CHUNK), segment.end - position, body.end - position)
            if room <= 0 or self.shared.closed():
                break
            count = min(patience.fill(body, buffer, room), segment.end - position)
            if count <= 0:
                break
            if not self.state.part.write(position, buffer, count, lambda: self._wanted(index, segment)):
                return
            with self.state.changed:
                if segment.end <= segment.position:
                    return
                new = self.state.part.note(position, position + count)
                position += count
                segment.position = position
                self.state.arrived.notify()
            self._arrived(index, count, new, patience.worthwhile)
        self._arrived(index, 0, 0, position >= segment.end)

    def _wanted(self, index: int, segment: Segment) -> bool:
        """Whether a connection is still to bring the rest of its segment, and its source is still to be believed."""
        return segment.position < segment.end and index not in self.state.refused

    def _stream(self, index: int, body: Body) -> None:
        """All of the file in one answer, from a source that knows no ranges; what is there already is passed over."""
        if not self.streaming.acquire(blocking=False):
            return
        try:
            # Parts of a piece may be written, so it goes through memory.
            buffer, patience, position = Buffer(CHUNK, splices=False), Patience(self.shared.timeout), 0
            while position < self.state.size and not self._left(index):
                with self.state.changed:
                    while position + CHUNK > self.state.limit() < self.state.size and not self.state.finished:
                        self.state.changed.wait(LOOK_AGAIN)
                if self.state.finished:
                    return
                buffer.clear()
                count = patience.fill(body, buffer, min(self.shared.bucket.chunk(CHUNK), self.state.size - position))
                losses = self.state.part.losses
                self.state.part.write_missing(position, buffer.memory[:count])
                with self.state.changed:
                    if losses != self.state.part.losses:
                        return  # what was passed over may be what was found to be wrong
                    new = self.state.part.note(position, position + count)
                    self.state.segments.arrived(position, position + count)
                    self.state.arrived.notify()
                position += count
                self._arrived(index, count, new, new > 0 and patience.worthwhile)
        finally:
            self.streaming.release()

    def _left(self, index: int) -> bool:
        """Whether a source that gives all in one answer is read no further."""
        return self.state.restarted or index in self.state.refused or self.shared.closed()

    def _arrived(self, index: int, count: int, new: int, worthwhile: bool) -> None:
        self.shared.progress.add(new, moved=index == PUBLISHED, fetched=index != PUBLISHED)
        if worthwhile and index != PUBLISHED:
            self.shared.supply.arrived(index)
            self.shared.progress.note = ""
        self.state.part.save_if_due()
        if self.state.part.unsynced >= SYNC_BYTES:
            self.sync_wanted.set()
        if index != PUBLISHED and count:
            self.shared.spend(count)

    def _keep_synced(self) -> None:
        """Brings what has arrived to disk beside the transfer, so that the end does not wait for all of it."""
        try:
            while not self.state.finished:
                self.sync_wanted.wait(SYNC_SECONDS)
                self.sync_wanted.clear()
                if self.state.part.unsynced and not self.state.finished:
                    self.state.part.sync()
        except OSError as error:
            self.state.fail(error)
