# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Memory modules from the SMBIOS tables (structures of type 17), and the peak bandwidth that they make together."""

from __future__ import annotations

import re
from typing import NamedTuple, Optional

MB = 10**6
TABLES = "/sys/firmware/dmi/tables/DMI"

_MEMORY_DEVICE = 17
_END = 127


class Module(NamedTuple):
    """One module in its socket: bytes, transfers per second, width of its data in bits, and where it says it sits."""

    size: int
    speed: int
    width: int
    locator: str
    bank: str


def read_tables(path: str = TABLES) -> bytes:
    """The tables as the kernel has them; nothing where there are none or only root may read them."""
    try:
        with open(path, "rb") as handle:
            return handle.read(2**20)
    except OSError:
        return b""


def structures(tables: bytes) -> list[tuple[int, bytes, list[str]]]:
    """Type, formatted area and strings of every structure; ends at the first one that does not hold together."""
    found = []
    at = 0
    while at + 4 <= len(tables):
        kind, length = tables[at], tables[at + 1]
        end = tables.find(b"\0\0", at + length)
        if length < 4 or end < 0:
            break
        strings = tables[at + length : end].decode("latin-1").split("\0")
        found.append((kind, tables[at : at + length], strings))
        at = end + 2
        if kind == _END:
            break
    return found


def modules(tables: bytes) -> list[Module]:
    """The modules that are there; empty sockets and modules without a speed are left out."""
    found = []
    for kind, area, strings in structures(tables):
        if kind != _MEMORY_DEVICE:
            continue

        def number(at: int, length: int, area: bytes = area) -> int:
            return int.from_bytes(area[at : at + length], "little") if at + length <= len(area) else 0

        def string(at: int, area: bytes = area, strings: Optional[list[str]] = None) -> str:
            index = area[at] if at < len(area) else 0
            return strings[index - 1].strip() if strings and 0 < index <= len(strings) else ""

        size = number(0x0C, 2)
        if size == 0x7FFF:
            size = number(0x1C, 4) & 0x7FFFFFFF
        elif size & 0x8000 and size != 0xFFFF:
            size = (size & 0x7FFF) // 1024
        # The speed that the module is run at, then the one that it can do.
        speeds = [value for at in (0x20, 0x15) for value in [number(at, 2)] if value not in (0, 0xFFFF)]
        # Beyond 65,535 MT/s the numbers have fields of their own.
        speed = next(iter(speeds), 0) or number(0x58, 4) or number(0x54, 4)
        width = number(0x0A, 2)
        if size not in (0, 0xFFFF) and speed:
            where = string(0x10, strings=strings), string(0x11, strings=strings)
            found.append(Module(size * 2**20, speed * MB, width if width not in (0, 0xFFFF) else 64, *where))
    return found


# A channel's name in what board makers write: "P0 CHANNEL B", "ChannelA-DIMM0", "Node0_Channel3_Dimm1", "CPU1_DIMM_A1",
# "P1-DIMMA1", "DIMM_P0_A0". A bare "A1" names a processor with some makers and a channel with others: it does not tell.
_CHANNEL = re.compile(r"CHANNEL[ _]*([A-Z]|\d+)(?![A-Z0-9])|DIMM[ _]?(?:P\d+[ _])?([A-Z])\d{0,2}(?![A-Z0-9])")
_SOCKET = re.compile(r"(?:CONTROLLER|CPU|PROC|SOCKET|NODE|P)[ _]*(\d+)")


def channel(module: Module) -> tuple[str, str]:
    """Socket and channel of a module by the names of its place; no channel where they do not tell."""
    places = (module.bank.upper(), module.locator.upper())
    name = next(filter(None, map(_CHANNEL.search, places)), None)
    socket = next(filter(None, map(_SOCKET.search, places)), None)
    return socket[1] if socket else "", (name[1] or name[2]) if name else ""


def bandwidth(found: list[Module]) -> int:
    """Bytes per second of all channels in use at once; 0 where the tables do not say which channels those are.

    Two modules on one channel are no faster than one; the slowest module sets the speed of all.
    """
    widths: dict[tuple[str, str], int] = {}
    for module in found:
        place = channel(module)
        if not place[1]:
            return 0
        widths[place] = max(widths.get(place, 0), module.width)
    speed = min((module.speed for module in found), default=0)
    return sum(widths.values()) // 8 * speed
