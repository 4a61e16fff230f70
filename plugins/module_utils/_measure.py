# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Short measurements of a host's memory and disks, made only when asked. Speeds are bytes per second."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import glob
import mmap
import os
import threading
import time
from typing import Optional

from ansible_collections.onprem.llamacpp.plugins.module_utils import _disks

MIB = 2**20

MEMORY_SECONDS = 0.8
DISK_SECONDS = 1.5
WRITE_SECONDS = 0.5
BLOCK = 8 * MIB
# Two buffers of this size for each thread are more than the caches of its core and its part of the shared one.
BUFFER = 48 * MIB
THREADS = 32
# A file that is read for the measurement: enough blocks for the time, or it would say little.
FILE = 256 * MIB


def memory(available: int, seconds: float = MEMORY_SECONDS, buffer: int = BUFFER) -> Optional[int]:
    """Copies between buffers on all processors at once; None where there is too little memory to do it.

    A copy counts twice: what it reads and what it writes.

    Args:
        available: bytes; an eighth of them at most is taken.
        seconds: for how long.
        buffer: bytes of one buffer.
    """
    count = min(len(os.sched_getaffinity(0)), THREADS, available // 8 // (2 * buffer))
    if count < 1:
        return None
    speeds = [0.0] * count
    deadline = 0.0

    def begin() -> None:
        nonlocal deadline
        deadline = time.monotonic() + seconds

    start = threading.Barrier(count, action=begin)

    def copy(index: int) -> None:
        try:
            # Made and touched by the thread that uses them, so that they lie in the memory next to it.
            source, target = ctypes.create_string_buffer(buffer), ctypes.create_string_buffer(buffer)
            ctypes.memset(source, 1, buffer)
            ctypes.memset(target, 1, buffer)
            start.wait()
        except (MemoryError, threading.BrokenBarrierError):
            start.abort()
            return
        began, done = time.monotonic(), 0
        while time.monotonic() < deadline:
            ctypes.memmove(target, source, buffer)
            done += buffer
        speeds[index] = 2 * done / (time.monotonic() - began)

    threads = [threading.Thread(target=copy, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return int(sum(speeds)) or None


def _large_file(folder: str) -> str:
    """The largest of the models that a folder holds, as published or plain, if it is large enough to measure with."""
    sizes = []
    # Depths that are known: a walk through any folder may have no end.
    for pattern in ("*.gguf", "*/*/*/*.gguf"):
        for path in glob.iglob(os.path.join(glob.escape(folder), pattern)):
            with contextlib.suppress(OSError):
                entry = os.stat(path)
                # Holes are read from no disk.
                sizes.append((min(entry.st_size, entry.st_blocks * 512), path))
    size, path = max(sizes, default=(0, ""))
    return path if size >= FILE else ""


def _past_the_cache(handle: int) -> None:
    """Reads and writes go to the disk itself from now on, where the filesystem can do that."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(handle, fcntl.F_SETFL, fcntl.fcntl(handle, fcntl.F_GETFL) | os.O_DIRECT)


def _read(handle: int, seconds: float) -> Optional[int]:
    size = os.fstat(handle).st_size // BLOCK * BLOCK
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    done = 0
    with mmap.mmap(-1, BLOCK) as block:  # aligned to a page, as reading past the cache needs it
        began = time.monotonic()
        while done < size and time.monotonic() - began < seconds:
            got = os.preadv(handle, [block], done)
            if got <= 0:
                break
            done += got
        took = time.monotonic() - began
    return int(done / took) if done else None


def _write(handle: int, seconds: float) -> None:
    with mmap.mmap(-1, BLOCK) as block:
        block.write(os.urandom(4096) * (BLOCK // 4096))
        began = time.monotonic()
        for at in range(0, FILE, BLOCK):
            os.pwrite(handle, block, at)
            os.fdatasync(handle)
            if time.monotonic() - began > seconds:
                break


def disk(path: str, may_write: bool) -> Optional[int]:
    """Reads one file in order, past the cache as far as that can be done; None where there is nothing to read.

    Args:
        path: a folder of models, whose largest is read. Else a file is made beside it, or where it would be, and removed at once.
        may_write: whether that file may be made.
    """
    model = _large_file(path)
    made = "" if model else os.path.join(_disks.existing(path), f".llamacpp-measure-{os.getpid()}")
    if made and not may_write:
        return None
    try:
        handle = os.open(model or made, os.O_RDONLY if model else os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError:
        return None
    try:
        if made:
            os.unlink(made)
        _past_the_cache(handle)
        if made:
            _write(handle, WRITE_SECONDS)
        return _read(handle, DISK_SECONDS)
    except OSError:
        return None
    finally:
        os.close(handle)
