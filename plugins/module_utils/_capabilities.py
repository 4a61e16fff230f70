# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one build of llama.cpp can do, read from what its own programs print.

The texts are those of ``llama-server --help``, ``--version`` and ``--list-devices``. Flags come and go between builds;
nothing here knows a build number, so a build that was never seen is read like any other.
"""

from __future__ import annotations

import re
from typing import Any, Optional

# The help text starts in this column, or on a line of its own where the option's names reach it.
HELP_COLUMN = 40
GAP = 3

_NAME = re.compile(r"(--?[A-Za-z][A-Za-z0-9._-]*)(,\s+|$|\s)")
_ENV = re.compile(r"\(env: ([A-Za-z0-9_]+)\)")
_BULLET = re.compile(r"^- ([A-Za-z0-9_+.-]+)(?: \(default\))?:", re.MULTILINE)
_ALLOWED = re.compile(r"allowed values: ([^()]*)")
_CHOICES = re.compile(r"^(?:[\[<]([\w.+-]+(?:\|[\w.+-]+)+)[\]>]|\{([\w.+-]+(?:,[\w.+-]+)+)\})$")
_VERSION = re.compile(
    r"version: (?:(?P<version>\d+\.\d+\.\d+\S*) \(build (?P<new_number>\d+), commit (?P<new_commit>\S+)\)"
    r"|(?P<old_number>\d+) \((?P<old_commit>\S+)\))"
)
_BUILT_WITH = re.compile(r"built with (.+)")
_DEVICE = re.compile(r"^  (\S+): (.+) \((\d+) MiB, (\d+) MiB free\)\s*$", re.MULTILINE)

MIB = 1024 * 1024


def parse_help(text: str) -> list[dict[str, Any]]:
    """Options of ``--help`` in its order: ``names``, ``env``, ``value`` and ``values``.

    ``env`` and ``value`` are empty where there is none, ``values`` is empty unless the help lists what may be given.
    Options that are kept only to say that they were removed are left out: passing one ends the program.
    """
    entries: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if _NAME.match(line):
            if line[HELP_COLUMN - GAP : HELP_COLUMN] == " " * GAP:
                entries.append((line[: HELP_COLUMN - GAP].rstrip(), [line[HELP_COLUMN:].strip()]))
            else:
                entries.append((line.rstrip(), []))
        elif entries and line.startswith(" "):
            entries[-1][1].append(line.strip())
    options = []
    for head, help_lines in entries:
        names, value = _split_head(head)
        description = "\n".join(help_lines)
        if "the argument has been removed" in description.replace("\n", " "):
            continue
        env = _ENV.search(description)
        options.append({"names": names, "env": env.group(1) if env else "", "value": value, "values": _values(value, description)})
    return options


def _split_head(head: str) -> tuple[list[str], str]:
    names: list[str] = []
    rest = head
    while True:
        match = _NAME.match(rest)
        if not match:
            return names, rest.strip()
        names.append(match.group(1))
        rest = rest[match.end() :]
        if not match.group(2).startswith(","):
            return names, rest.strip()


def _values(value: str, description: str) -> list[str]:
    choices = _CHOICES.match(value)
    if choices:
        return re.split(r"[|,]", choices.group(1) or choices.group(2))
    allowed = _ALLOWED.search(description)
    if allowed:
        return [item for item in re.split(r"[,\s]+", allowed.group(1)) if item]
    return _BULLET.findall(description)


def parse_version(text: str) -> Optional[dict[str, Any]]:
    """Build ``number``, ``commit``, ``version`` (empty before there were versions) and ``compiler``; None where no version is said.

    Both streams of the program may be given together, with other lines between.
    """
    match = _VERSION.search(text)
    if not match:
        return None
    compiler = _BUILT_WITH.search(text)
    return {
        "number": int(match.group("new_number") or match.group("old_number")),
        "commit": match.group("new_commit") or match.group("old_commit"),
        "version": match.group("version") or "",
        "compiler": compiler.group(1).strip() if compiler else "",
    }


def parse_devices(text: str) -> list[dict[str, Any]]:
    """Devices of ``--list-devices``: ``engine_name``, ``name``, and ``total`` and ``free`` in bytes. Processors are not among them."""
    return [
        {"engine_name": name, "name": description, "total": int(total) * MIB, "free": int(free) * MIB}
        for name, description, total, free in _DEVICE.findall(text)
    ]


def missing_libraries(text: str) -> list[str]:
    """Shared libraries that the dynamic linker said it could not open."""
    return re.findall(r"error while loading shared libraries: ([^:\s]+): cannot open shared object file", text)
