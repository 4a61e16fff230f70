# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file's SHA-256, written down every 64 MiB, so that damage is found by block and repaired in the same pass. Pure.

Entry i of ``blocks`` is the digest of the file's first ``min((i + 1) * BLOCK, size)`` bytes: the running hash at each block's end.
The last one is the file's own. The first entry that differs names the first damaged block.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, Optional

BLOCK = 64 * 2**20
HEX64 = re.compile(r"^[0-9a-f]{64}$")


def count_of(size: int) -> int:
    return -(-size // BLOCK)


def bounds(block: int, size: int) -> tuple[int, int]:
    """First byte of a block, and the byte behind its last."""
    return block * BLOCK, min((block + 1) * BLOCK, size)


def checked(blocks: Any, size: int, sha256: str) -> Optional[list[str]]:
    """The list when it can be the blocks of that file, otherwise None. Only its last entry is proven by that."""
    if not isinstance(blocks, list) or len(blocks) != count_of(size) or blocks[-1:] != [sha256]:
        return None
    return blocks if all(isinstance(entry, str) and HEX64.match(entry) for entry in blocks) else None


def checked_document(document: Any, size: int, sha256: str) -> Optional[list[str]]:
    """The blocks from ``{size, block_size, blocks}`` as a mirror serves it, or None."""
    if not isinstance(document, dict) or document.get("block_size") != BLOCK or document.get("size") != size:
        return None
    return checked(document.get("blocks"), size, sha256)


def first_difference(ours: list[str], trusted: list[str]) -> Optional[int]:
    """The first damaged block, or None."""
    return next((index for index, (mine, theirs) in enumerate(zip(ours, trusted)) if mine != theirs), None)


class RunningHash:
    """SHA-256 of a file from its beginning, that can go back to the begin of any block."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.position = 0
        self.blocks: list[str] = []
        self._states = [hashlib.sha256()]  # at each block's begin; the last one is the present

    def room(self) -> int:
        """How many bytes the next update may have: an update does not go beyond its block."""
        return bounds(len(self.blocks), self.size)[1] - self.position

    def update(self, data: Any) -> bool:
        """Take the next bytes. True when a block has ended."""
        if len(data) > self.room():
            raise ValueError("an update may not go beyond its block")
        if self.position == len(self.blocks) * BLOCK:
            self._states[len(self.blocks) + 1 :] = [self._states[len(self.blocks)].copy()]
        self._states[-1].update(data)
        self.position += len(data)
        if self.room():
            return False
        self.blocks.append(self._states[-1].hexdigest())
        return True

    def rewind(self, block: int) -> None:
        """Go back to the begin of a block."""
        del self.blocks[block:]
        del self._states[block + 1 :]
        self.position = block * BLOCK
