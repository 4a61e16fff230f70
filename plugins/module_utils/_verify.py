# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads a published file and compares it with its SHA-256, at the pace of the job. Sizes are bytes."""

from __future__ import annotations

import os
from typing import Any, Optional

from ansible_collections.onprem.llamacpp.plugins.module_utils._blocks import RunningHash, checked
from ansible_collections.onprem.llamacpp.plugins.module_utils._http import in_a_line
from ansible_collections.onprem.llamacpp.plugins.module_utils._shared import CHUNK, Shared, Stopped


def verify_published(item: dict[str, Any], shared: Shared) -> Optional[list[str]]:
    """The digests of the blocks of ``item["published"]`` when it is right; None, and the damage told, when it is not."""
    trusted = checked(item.get("blocks"), item["size"], item["sha256"])
    found = RunningHash(item["size"])
    try:
        handle = os.open(item["published"], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            told = _read(handle, item, found, trusted, shared)
        finally:
            os.close(handle)
    except OSError as error:
        told = in_a_line(error)
    if not told:
        return found.blocks
    shared.progress.add(-found.position)
    shared.progress.tell(f"{item['published']} is damaged ({told}) and is repaired")
    return None


def _read(handle: int, item: dict[str, Any], found: RunningHash, trusted: Optional[list[str]], shared: Shared) -> str:
    """What is wrong with the file, or nothing."""
    if os.fstat(handle).st_size != item["size"]:
        return f"{os.fstat(handle).st_size} bytes instead of {item['size']}"
    buffer = memoryview(bytearray(CHUNK))
    while found.position < item["size"]:
        if shared.stop.is_set():
            raise Stopped
        count = os.preadv(handle, [buffer[: min(shared.bucket.chunk(CHUNK), found.room())]], found.position)
        if not count:
            return "it ends too early"
        ended = found.update(buffer[:count])
        shared.progress.add(count, moved=True)
        shared.spend(count)
        if ended:
            # What was read only to be compared shall not push what a server uses out of the page cache; mapped pages stay.
            os.posix_fadvise(handle, 0, found.position, os.POSIX_FADV_DONTNEED)
            block = len(found.blocks) - 1
            if trusted and found.blocks[block] != trusted[block]:
                return f"block {block + 1} of {len(trusted)}"
    return "" if found.blocks[-1] == item["sha256"] else f"sha256 {found.blocks[-1]}"
