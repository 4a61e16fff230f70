# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Small files that survive crashes, and large ones that get their room at once. Sizes are bytes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import stat
from typing import Any

LARGEST_DOCUMENT = 16 * 2**20
CHUNK = 2**20


def read_json(path: str, limit: int = LARGEST_DOCUMENT) -> dict[str, Any]:
    """A JSON object from a regular file that is no link; an empty one when there is none or it is garbled."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(handle, "rb") as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                return {}
            document = json.loads(stream.read(limit))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def write_json(path: str, document: dict[str, Any], mode: int = 0o644, sync: bool = False) -> None:
    """Replace ``path`` at once, so that a reader sees the old document or the new one; with ``sync`` a power cut too."""
    handle = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with open(handle, "w", encoding="utf-8") as stream:
        json.dump(document, stream, ensure_ascii=False, sort_keys=True)
        if sync:
            stream.flush()
            os.fsync(stream.fileno())
    os.replace(path + ".new", path)


def remove(*paths: str) -> None:
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)


def sync_directory(path: str) -> None:
    """Make the names in a directory survive a power cut."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_of(path: str) -> str:
    """SHA-256 of a file's content, in hexadecimal digits. Raises OSError."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(CHUNK), b""):
            digest.update(block)
    return digest.hexdigest()


def size_of(path: str) -> int:
    """Bytes of a regular file; 0 for everything else, links too."""
    try:
        found = os.lstat(path)
    except OSError:
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def room_taken(path: str) -> int:
    """Bytes that a regular file occupies on its disk: less than its size where it has holes, all of it where it was preallocated."""
    try:
        found = os.lstat(path)
    except OSError:
        return 0
    return min(found.st_blocks * 512, found.st_size) if stat.S_ISREG(found.st_mode) else 0


def preallocate(handle: int, size: int) -> bool:
    """Give an open file its room on disk. False where the file system cannot; raises OSError where the room is not there.

    The system call itself, because posix_fallocate(3) writes every block where the file system cannot allocate.
    """
    try:
        import ctypes  # noqa: PLC0415 - may be missing, or refused by a hardened system (MemoryError)

        call = ctypes.CDLL(None, use_errno=True).fallocate64
    except (ImportError, MemoryError, OSError, AttributeError):
        return False
    call.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    while call(handle, 0, 0, size) != 0:
        code = ctypes.get_errno()
        if code == errno.EINTR:
            continue
        if code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
            raise OSError(code, os.strerror(code))
        return False
    return True


def boot_id() -> str:
    """Changes with every boot, so that what was written before a crash is not taken for what is on disk."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
            return stream.read().strip()
    except OSError:
        return ""
