# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the connections and the hash of one file share: its part, what is still to be fetched, and the sources that may be asked for it.

Everything that changes is guarded by the lock of ``changed`` and ``arrived``: those who fetch wait for the one, the one who hashes for
the other, so that nobody is woken for nothing. Sizes are bytes.
"""

from __future__ import annotations

import threading
from typing import Any, Optional

from ansible_collections.onprem.llamacpp.plugins.module_utils._part import Part
from ansible_collections.onprem.llamacpp.plugins.module_utils._segments import WINDOW, Segments
from ansible_collections.onprem.llamacpp.plugins.module_utils._shared import Shared, nothing_left
from ansible_collections.onprem.llamacpp.plugins.module_utils._sources import AnySource, PathSource

PUBLISHED = -1  # index of the published copy among the sources
LOOK_AGAIN = 0.5  # seconds


class FileState:
    """``{path, size, sha256}`` on its way to ``whole``; ``published`` is the path of a damaged copy. Raises OSError."""

    def __init__(self, item: dict[str, Any], whole: str, shared: Shared) -> None:
        self.item, self.shared = item, shared
        self.size: int = item["size"]
        self.copy = PathSource(item["published"], "", "", "", published=True) if item.get("published") else None
        self.refused: dict[int, str] = {} if self.copy else {PUBLISHED: ""}
        lock = threading.RLock()
        self.changed, self.arrived = threading.Condition(lock), threading.Condition(lock)
        self.part = Part(whole, item)
        self.segments = Segments(self.size, self.part.missing(0, self.size), shared.connections)
        self.resumed = self.part.end_from(0)
        self.front = 0  # bytes hashed
        self.restarted = False  # the hash must begin anew
        self.finished = False
        self.error: Optional[Exception] = None
        shared.progress.add(self.part.total())

    def over(self) -> bool:
        return self.finished or self.error is not None or self.shared.stop.is_set()

    def fail(self, error: Exception) -> None:
        """Whatever it is, the thread that hashes must hear of it."""
        with self.changed:
            self.error = self.error or error
            self.changed.notify_all()
            self.arrived.notify()

    def limit(self) -> int:
        """Nothing at or beyond it is fetched. While the hash reads what is on this host already, it is behind anyway."""
        behind = self.front < self.resumed or PUBLISHED not in self.refused
        return self.size if behind else min(self.size, self.front + WINDOW)

    def lose(self, begin: int, end: int) -> None:
        """These bytes are wrong; the hash is at ``begin`` again."""
        with self.changed:
            lost = self.part.lose(begin, end)
            self.segments.lost(begin, end)
            self.front = begin
            self.changed.notify_all()
        self.shared.progress.add(-lost)

    def lose_all(self) -> None:
        """All bytes are wrong, or of another file."""
        with self.changed:
            if self.finished:
                return
            lost = self.part.lose_all()
            self.segments.lost(0, self.size)
            self.front, self.restarted = 0, True
            self.changed.notify_all()
            self.arrived.notify()
        self.shared.progress.add(-lost)

    def source(self, index: int) -> AnySource:
        return self.copy if index == PUBLISHED and self.copy else self.shared.sources[index]

    def pick(self) -> int:
        """The source to ask. Raises TransferError when none is left."""
        if PUBLISHED not in self.refused:
            return PUBLISHED
        index = self.shared.supply.pick(self.refused)
        if index is None:
            known = {**self.shared.supply.given_up, **self.refused}
            raise nothing_left(self.item["path"], [known[number] for number in sorted(known) if known[number]])
        return index

    def refuse(self, index: int, reason: str) -> None:
        """The source is not asked for this file again. Raises TransferError when it was the last one."""
        with self.changed:
            if index in self.refused:
                return
            self.refused[index] = reason
            self.changed.notify_all()
        self.tell_next(index, reason)

    def tell_next(self, index: int, reason: str) -> None:
        self.shared.progress.note = ""
        following = self.source(self.pick()).label
        if index != PUBLISHED:
            self.shared.progress.tell(f"{self.source(index).label} was left ({reason[:160]}), going on from {following}")
