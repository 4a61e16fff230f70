# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the server's log says of the memory that it took, and how that compares with the plan. Bytes throughout."""

from __future__ import annotations

import re

from .files import Document
from .host import MIB

BUFFER_LINE = re.compile(r"\b(?P<buffer>[\w.:\[\]-]+)\s+(?P<kind>\w+)\s+buffer size\s*=\s*(?P<mib>[0-9.]+) MiB")
HOST_BUFFER = re.compile(r"CPU(_\w+)?$|.*_Host$")
# The plan's own margin absorbs less than this; more is worth a word.
LARGEST_ERROR = 256 * MIB


def buffers(lines: list[str]) -> dict[str, dict[str, int]]:
    """Bytes for each buffer and kind (model, KV, compute, …) that the server's log reports."""
    found: dict[str, dict[str, int]] = {}
    for line in lines:
        match = BUFFER_LINE.search(line)
        if match:
            kinds = found.setdefault(match["buffer"], {})
            size = round(float(match["mib"]) * MIB)
            # Scratch memory is reserved anew when the graph changes, everything else once for each of its parts.
            kinds[match["kind"]] = size if match["kind"] == "compute" else kinds.get(match["kind"], 0) + size
    return found


def compared(planned: list[Document], found: dict[str, dict[str, int]]) -> list[Document]:
    """Bytes planned and taken on each device that the log tells of, and how far the plan was off in percent."""
    told = []
    for share in planned:
        taken = sum(sum(kinds.values()) for name, kinds in found.items() if sees(share["engine_name"], [name]))
        told += _told(share["engine_name"], share, taken, int(share.get("capacity", 0)))
    return told


def compared_host(planned: Document, found: dict[str, dict[str, int]]) -> list[Document]:
    """The same of the host's memory, as ``host``; nothing for a mapped model, of which the system keeps in memory what it likes."""
    if any(name.endswith("_Mapped") for name in found):
        return []
    return _told("host", planned, sum(sum(kinds.values()) for name, kinds in found.items() if HOST_BUFFER.match(name)), 0)


def _told(name: str, planned: Document, taken: int, capacity: int) -> list[Document]:
    wanted = sum(int(planned.get(part, 0)) for part in ("weights", "context", "compute"))
    if not taken or not wanted:
        return []
    error = round(100 * (taken - wanted) / wanted, 1)
    return [{"engine_name": name, "planned": wanted, "actual": taken, "capacity": capacity, "error_percent": error}]


def too_much(devices: list[Document]) -> tuple[list[str], list[str]]:
    """What breaks the plan's promise to the other programs on a device, and what only misses the plan, in words."""
    broken, missed = [], []
    for share in devices:
        said = f"{share['engine_name']} took {share['actual'] / 1e9:.2f} GB, planned were {share['planned'] / 1e9:.2f} GB"
        if share["capacity"] and share["actual"] > share["capacity"]:
            broken.append(f"{said}, and what may be used of it is {share['capacity'] / 1e9:.2f} GB")
        elif share["actual"] > share["planned"] + LARGEST_ERROR:
            missed.append(said)
    return broken, missed


def sees(name: str, seen: list[str]) -> bool:
    """Whether a device is among names such as ``CUDA0``, ``CUDA0_Split`` or ``RPC0[127.0.0.1:50052]``."""
    return any(re.match(re.escape(name) + r"(?!\w*\d)", other) for other in seen)
