# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bytes of one connection between its source and the disk. Sizes are bytes.

What comes over plain HTTP goes through a pipe: the kernel moves its pages from the socket to the page cache, and this program never
touches them. Python 3.9 has no splice(2), and what is encrypted must be read; then it goes through memory.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from typing import Optional

from ansible_collections.onprem.llamacpp.plugins.module_utils._sources import Body

SET_PIPE_SIZE = getattr(fcntl, "F_SETPIPE_SZ", 1031)  # fcntl names it from Python 3.10 on


class Buffer:
    """Holds ``size`` bytes at most: first those in memory, then those in the pipe. One thread uses it."""

    def __init__(self, size: int, splices: bool = True) -> None:
        self.memory = memoryview(bytearray(size))
        self.read = self.spliced = 0  # how many bytes are in memory, and in the pipe
        self.ends: Optional[tuple[int, int]] = None
        self.splices = splices and hasattr(os, "splice")

    def take(self, body: Body, most: int) -> int:
        """What one read of a source brings, after what is held already; 0 at the end of its answer, and when no more goes in."""
        if self.splices and body.spliceable():
            count = body.splice_into(self._pipe()[1], most)
            if count is not None:
                self.spliced += count
                return count
            if self.spliced:
                return 0  # it is full, for a small piece takes a whole page
        if self.spliced:
            return 0
        count = body.read_into(self.memory[self.read : self.read + most])
        self.read += count
        return count

    def _pipe(self) -> tuple[int, int]:
        if self.ends is None:
            self.ends = os.pipe()
            with contextlib.suppress(OSError):  # a user may have so much in pipes and no more; a small one is good too
                fcntl.fcntl(self.ends[1], SET_PIPE_SIZE, len(self.memory))
        return self.ends

    def write(self, handle: int, position: int, count: int) -> None:
        """The first ``count`` bytes that it holds, to a file. Raises OSError."""
        first = min(count, self.read)
        write_all(handle, position, self.memory[:first])
        end, position, self.read = position + count, position + first, 0
        while position < end:
            moved = self._move(handle, position, end - position)
            position, self.spliced = position + moved, self.spliced - moved

    def _move(self, handle: int, position: int, most: int) -> int:
        """Bytes from the pipe to a file."""
        source = self._pipe()[0]
        if self.splices:
            try:
                return os.splice(source, handle, most, offset_dst=position)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                self.splices = False  # a file system that cannot
        count = os.readv(source, [self.memory[:most]])
        write_all(handle, position, self.memory[:count])
        return count

    def clear(self) -> None:
        """What it still holds is not wanted."""
        self.read = 0
        while self.spliced:
            self.spliced -= os.readv(self._pipe()[0], [self.memory[: self.spliced]])

    def close(self) -> None:
        for end in self.ends or ():
            os.close(end)
        self.ends, self.read, self.spliced = None, 0, 0


def write_all(handle: int, position: int, view: memoryview) -> None:
    while view:
        count = os.pwrite(handle, view, position)
        position, view = position + count, view[count:]
