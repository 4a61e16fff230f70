# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The new model is read into the page cache while the old one serves, so that its load does not wait for the disk. Bytes, seconds."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import subprocess
import time
from collections.abc import Iterator
from typing import Callable, NamedTuple

from .files import Document
from .host import MIB, part

BLOCK = 16 * MIB
SHARD = re.compile(r"-\d{5}-of-\d{5}(?=\.gguf$)")
# What the new server takes beyond its weights.
BESIDE = ("context", "compute", "cache")
GB = 1e9


class Choice(NamedTuple):
    """How many bytes of a model are read ahead, and why."""

    size: int
    why: str


def choose(size: int, available: int, mapped: int, beside: int, load_mode: str, seconds: float) -> Choice:
    """How much of a model may be read while another one serves.

    :param size: the model's bytes
    :param available: what the kernel could give without swapping; pages of files that are in use count as available
    :param mapped: what the running server has in such pages, which must stay
    :param beside: what the new server takes beyond its weights
    :param seconds: how long reading may take; 0 for not at all
    """
    if not seconds:
        return Choice(0, "llama_server_warm_seconds is 0")
    if load_mode == "dio":
        return Choice(0, "it is loaded past the page cache")
    room = available - mapped - beside
    told = f"{available / GB:.1f} GB are available, less {mapped / GB:.1f} GB that the server uses and {beside / GB:.1f} GB planned"
    if room >= size:
        return Choice(size, told)
    return Choice(max(room, 0), f"{'only a part fits' if room > 0 else 'no room'}: {told}")


def available_memory(proc: pathlib.Path = pathlib.Path("/proc")) -> int:
    """MemAvailable; 0 where the kernel does not tell."""
    return _counted(proc / "meminfo", "MemAvailable:")


def mapped_memory(pid: int, proc: pathlib.Path = pathlib.Path("/proc")) -> int:
    """What a process has of its mapped files in memory."""
    return _counted(proc / str(pid) / "status", "RssFile:")


def own_memory(pid: int, proc: pathlib.Path = pathlib.Path("/proc")) -> int:
    """What a process has in memory that is nobody else's and no file's."""
    return _counted(proc / str(pid) / "status", "RssAnon:")


def _counted(path: pathlib.Path, name: str) -> int:
    """A line of kilobytes in a file of the kernel's."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in path.read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024
    return 0


def planned_beside(plan: Document) -> int:
    """What a plan gives to the host's memory beside weights."""
    host = plan.get("memory", {}).get("host", {})
    return sum(int(host.get(part) or 0) for part in BESIDE)


def shards(first: pathlib.Path) -> list[pathlib.Path]:
    """The files of a model in the order in which they are loaded, from its first one."""
    if not SHARD.search(first.name):
        return [first]
    stem = SHARD.sub("", first.name)
    return sorted(path for path in first.parent.glob("*.gguf") if SHARD.search(path.name) and SHARD.sub("", path.name) == stem)


@contextlib.contextmanager
def behind_everybody() -> Iterator[None]:
    """Let this process read when nobody else wants to; disks whose scheduler knows no priorities read as ever."""
    _priority("3")
    try:
        yield
    finally:
        _priority("0")


def _priority(scheduling_class: str) -> None:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        subprocess.run(["ionice", "-c", scheduling_class, "-p", str(os.getpid())], capture_output=True, timeout=10, check=False)


def warm(first: pathlib.Path, size: int, seconds: float, tell: Callable[[str], None]) -> int:
    """Read the first bytes of a model, for so many seconds at most; how many were read. A file that cannot be read ends it."""
    done, end = 0, time.monotonic() + seconds
    buffer = bytearray(BLOCK)
    with behind_everybody(), contextlib.suppress(OSError):
        for path in shards(first):
            with open(path, "rb", buffering=0) as handle:
                while done < size and time.monotonic() < end:
                    # The disk works on the next block while this one is copied.
                    os.posix_fadvise(handle.fileno(), handle.tell() + BLOCK, BLOCK, os.POSIX_FADV_WILLNEED)
                    count = handle.readinto(buffer)
                    if not count:
                        break
                    done += count
                    tell(f"reading the model ahead, {part(done, size)}")
    return min(done, size)
