# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the server's log says: of the memory that it took, how that compares with the plan (bytes throughout), and of its end."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .files import Document
from .host import MIB

BUFFER_LINE = re.compile(r"\b(?P<buffer>[\w.:\[\]-]+)\s+(?P<kind>\w+)\s+buffer size\s*=\s*(?P<mib>[0-9.]+) MiB")
HOST_BUFFER = re.compile(r"CPU(_\w+)?$|.*_Host$")
# The plan's own margin absorbs less than this; more is worth a word.
LARGEST_ERROR = 256 * MIB

# An engine that gives up prints a line for each of its calls, by itself or with gdb's help, after the one line that says why.
BACKTRACE = re.compile(
    r"""\s*(?:
        \S*\([^()\s]*\)\s*\[0x[0-9a-f]+\]\s*$ | \[0x[0-9a-f]+\]\s*$
        | \#\d+\s | 0x[0-9a-f]+\ in\  | __\w+\ \( | at\ \S+:\d+$ | \d+\s+\S+:\ No\ such\ file
        | \[(?:New\ LWP|New\ Thread|Thread|Switching\ to|Inferior|Detaching|answered)\s
        | Using\ host\ libthread_db | This\ GDB\  | Enable\ debuginfod | Debuginfod\ has | To\ make\ this\ setting | <https://debuginfod
        | Could\ not\ attach | (?:the\ target\ )?(?:process,\ )?check\ the\ setting | again\ as\ the\ root | warning:\ process\ \d
        | ptrace: | No\ stack\. | The\ program\ is\ not\ being | warning:\ \d+\s+\S+:\ No\ such
        | WARNING:\ (?:Using\ native\ backtrace|GGML_BACKTRACE_LLDB) | See:\ https://github\.com/ggml-org/
    )""",
    re.VERBOSE,
)
ABORT = re.compile(r"(?:^|\s)(?P<place>\S+\.(?:c|cc|cpp|cu|cuh|h|hpp|m|mm):\d+): (?P<what>\S.*)$")
TROUBLE = re.compile(r"\berror\b[^:]*:|\bfailed to\b|\bwhat\(\):", re.IGNORECASE)
WHY_LENGTH = 200
LOG_LINES = 12  # that are shown


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


def without_secrets(lines: Sequence[str], secrets: Sequence[str]) -> list[str]:
    """A log without the lines in which any of the keys stands, or that speak of them."""
    return [line for line in lines if "api_keys:" not in line and not any(secret in line for secret in secrets)]


def last_words(lines: Sequence[str], count: int) -> list[str]:
    """The last lines of a log that are no backtrace, with the one that says why the server gave up among them."""
    said = [line for line in lines if line.strip() and not BACKTRACE.match(line)]
    shown = said[-count:]
    reasons = [line for line in said[:-count] if ABORT.search(line)]
    return shown if not reasons or any(map(ABORT.search, shown)) else [reasons[-1], *shown[1:]]


def why(lines: Sequence[str], count: int = LOG_LINES) -> str:
    """What a server that has ended gave as the reason, among the last lines of its log; empty when it gave none."""
    shown = last_words(lines, count)
    aborted = [match for match in map(ABORT.search, shown) if match]
    if aborted:
        what = aborted[-1]["what"].strip()
        # "CUDA error" stands where the engine gave up, and what kind of error in a line before.
        details = [line[line.index(f"{what}: ") :] for line in shown if f"{what}: " in line]
        return f"{(details or [what])[-1][:WHY_LENGTH]} at {aborted[-1]['place']}"
    # The first thing that failed makes others fail.
    return next((line.strip()[:WHY_LENGTH] for line in shown if TROUBLE.search(line)), "")
