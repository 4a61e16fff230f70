# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the header of a GGUF file: its settings, and which tensors lie where. Pure; sizes and offsets are bytes.

The bytes come from whoever calls, as far as they are needed: a header says early how long it is at least, and a fifth more
than that is asked for at a time, so never more than a fifth of a long header is read in vain. Nothing in a header is
trusted: what it announces is compared with the size of the file and paid from a Budget before it is read. Vocabularies
are counted, not built. What the engine would refuse is refused here too, always as one GgufError.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterable
from typing import Any, Callable, NamedTuple

Fetch = Callable[[int, int], Iterable[bytes]]  # the bytes from an offset up to another one, in order, in blocks of any size

FIRST = 64 * 2**10  # bytes that are asked for first: most headers of a set are shorter
LONGEST_STRING = 64 * 2**10  # of those that are kept
LONGEST_ARRAY = 4096  # elements, of those that are kept
LONGEST_KEY = 256  # bytes; published ones have up to 60
LONGEST_NAME = 63  # of a tensor, in bytes; the engine's limit
MOST_DIMENSIONS = 4
LARGEST_ALIGNMENT = 2**20
DEFAULT_ALIGNMENT = 32

# What Python objects cost, generously.
KEY_COST, CHARACTER_COST, NUMBER_COST, TENSOR_COST = 512, 4, 40, 768
# The fewest bytes of a key with its value, and of a tensor's entry.
LEAST_KEY, LEAST_TENSOR = 8 + 1 + 4 + 1, 8 + 1 + 4 + 8 + 4 + 8

START = struct.Struct("<4sI")
COUNTS = struct.Struct("<QQ")
U32 = struct.Struct("<I")
U64 = struct.Struct("<Q")
ARRAY_START = struct.Struct("<IQ")
TENSOR_END = struct.Struct("<IQ")
STRING, ARRAY = 8, 9
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}

# Name, elements in a block, bytes of a block.
TYPES = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 36),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
    42: ("Q2_0", 64, 18),
}


class GgufError(Exception):
    """A file that cannot be used: which one, what is wrong with its header, and at which byte."""


class Tensor(NamedTuple):
    """One entry of the tensor table; ``offset`` counts from the start of the data."""

    name: str
    type: str
    shape: tuple[int, ...]  # columns first
    offset: int
    bytes: int


class Header(NamedTuple):
    """What a file says about itself. ``keys`` lacks long strings and arrays; ``lengths`` counts every array's elements."""

    version: int
    keys: dict[str, Any]
    lengths: dict[str, int]
    tensors: list[Tensor]
    end: int  # of the header itself
    data_start: int  # the same, aligned


class Budget:
    """Memory that the headers of one set may take together, in bytes. Threads share it."""

    def __init__(self, limit: int = 128 * 2**20) -> None:
        self.limit = limit
        self.left = limit
        self.lock = threading.Lock()

    def take(self, count: int) -> bool:
        """Whether there was that much left."""
        with self.lock:
            self.left -= count
            return self.left >= 0


class _Cursor:
    """Stands in a header and steps over its parts, having fetched what it steps over."""

    def __init__(self, fetch: Fetch, size: int, name: str, budget: Budget) -> None:
        self.fetch = fetch
        self.size = size
        self.name = name
        self.budget = budget
        self.data = bytearray()
        self.position = 0
        self.owed = 0  # bytes that are certain to follow what is being read

    def error(self, what: str) -> GgufError:
        return GgufError(f"{self.name} is not a usable GGUF file: {what} (byte {self.position} of {self.size}).")

    def pay(self, cost: int) -> None:
        if not self.budget.take(cost):
            raise self.error(f"the header and those read with it would take more than {self.budget.limit >> 20} MiB of memory")

    def need(self, end: int) -> None:
        """Have the bytes before ``end``, and refuse a header that cannot lie in its file."""
        least = end + self.owed
        if least > self.size:
            raise self.error(f"it ends too early, for what is announced here takes at least {least} bytes")
        held = len(self.data)
        if end <= held:
            return
        wanted = min(max(FIRST, least + least // 5), self.size)
        self.pay(wanted - held)
        for block in self.fetch(held, wanted):
            self.data += block
        if len(self.data) < end:
            raise self.error(f"it is cut off after {len(self.data)} bytes")

    def unpack(self, form: struct.Struct) -> tuple[Any, ...]:
        self.need(self.position + form.size)
        found = form.unpack_from(self.data, self.position)
        self.position += form.size
        return found

    def skip(self, count: int) -> None:
        self.need(self.position + count)
        self.position += count

    def text(self, what: str, longest: int) -> str:
        """A name: printable UTF-8, not empty."""
        (length,) = self.unpack(U64)
        if not 0 < length <= longest:
            raise self.error(f"{what} has {length} bytes, allowed are 1 to {longest}")
        begin = self.position
        self.skip(length)
        try:
            found = self.data[begin : self.position].decode("utf-8")
        except UnicodeDecodeError:
            raise self.error(f"{what} is not UTF-8") from None
        if not found.isprintable():
            raise self.error(f"{what} holds characters that cannot be printed")
        return found

    def skip_strings(self, count: int) -> None:
        """Step over ``count`` strings, of which there may be hundreds of thousands."""
        unpack = U64.unpack_from
        self.need(self.position + 8 * count)  # even if all of them are empty
        left = count
        while left:
            data, position = self.data, self.position
            try:
                for left in range(left, 0, -1):  # noqa: B007, B020 - where it stops is where it goes on
                    position += 8 + unpack(data, position)[0]
                left = 0
            except (struct.error, OverflowError):  # the next length has not been fetched, or lies nowhere
                pass
            self.need(position + 8 * left)
            self.position = position


def read_header(fetch: Fetch, size: int, name: str, budget: Budget) -> tuple[Header, bytearray]:
    """The header of the file ``name`` with ``size`` bytes, and the bytes it was read from.

    Raises GgufError. Whatever ``fetch`` raises passes through; where it yields less than was asked for, the file ends.
    """
    cursor = _Cursor(fetch, size, name, budget)
    version = _version(cursor)
    tensor_count, key_count = cursor.unpack(COUNTS)
    cursor.need(cursor.position + key_count * LEAST_KEY + tensor_count * LEAST_TENSOR)
    keys: dict[str, Any] = {}
    lengths: dict[str, int] = {}
    for number in range(key_count):
        cursor.owed = (key_count - number - 1) * LEAST_KEY + tensor_count * LEAST_TENSOR
        _read_key(cursor, keys, lengths)
    alignment = _alignment(cursor, keys)
    cursor.pay(tensor_count * TENSOR_COST)
    tensors = _read_tensors(cursor, tensor_count, alignment)
    end = cursor.position
    del cursor.data[end:]
    header = Header(version, keys, lengths, tensors, end, _align(end, alignment))
    _check_size(cursor, header, alignment)
    return header, cursor.data


def _align(offset: int, alignment: int) -> int:
    return -(-offset // alignment) * alignment


def _version(cursor: _Cursor) -> int:
    magic, version = cursor.unpack(START)
    cursor.position = 0
    if magic != b"GGUF":
        raise cursor.error(f"it begins with {bytes(magic)!r} instead of b'GGUF'")
    cursor.position = 4
    if version and version & 0xFFFF == 0:
        raise cursor.error("it is written for big-endian machines")
    if version not in (2, 3):
        raise cursor.error(f"its format is version {version}, and only 2 and 3 can be read")
    cursor.position = START.size
    return int(version)


def _read_key(cursor: _Cursor, keys: dict[str, Any], lengths: dict[str, int]) -> None:
    key = cursor.text("the name of a setting", LONGEST_KEY)
    if key in keys or key in lengths:
        raise cursor.error(f"the setting {key} stands there twice")
    cursor.pay(KEY_COST + CHARACTER_COST * len(key))
    (kind,) = cursor.unpack(U32)
    if kind == STRING:
        (length,) = cursor.unpack(U64)
        begin = cursor.position
        cursor.skip(length)
        if length > LONGEST_STRING:
            keys[key] = None  # known, not kept
            return
        cursor.pay(CHARACTER_COST * length)
        keys[key] = cursor.data[begin : cursor.position].decode("utf-8", "replace")
    elif kind == ARRAY:
        element, count = cursor.unpack(ARRAY_START)
        lengths[key] = count
        if element == STRING:
            cursor.skip_strings(count)
        elif element in SCALARS:
            numbers = struct.Struct(f"<{count if count <= LONGEST_ARRAY else 0}{SCALARS[element]}")
            begin = cursor.position
            cursor.skip(count * struct.calcsize(f"<{SCALARS[element]}"))
            if count <= LONGEST_ARRAY:
                cursor.pay(NUMBER_COST * count)
                keys[key] = list(numbers.unpack_from(cursor.data, begin))
        else:
            raise cursor.error(f"the setting {key} is an array of the type {element}, which arrays cannot hold")
    elif kind in SCALARS:
        (keys[key],) = cursor.unpack(struct.Struct(f"<{SCALARS[kind]}"))
    else:
        raise cursor.error(f"the setting {key} has the type {kind}, which does not exist")


def _alignment(cursor: _Cursor, keys: dict[str, Any]) -> int:
    found = keys.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(found, int) or isinstance(found, bool) or not 0 < found <= LARGEST_ALIGNMENT or found & (found - 1):
        raise cursor.error(f"its alignment is {repr(found)[:40]}, which is no power of two up to {LARGEST_ALIGNMENT}")
    return found


def _read_tensors(cursor: _Cursor, count: int, alignment: int) -> list[Tensor]:
    """The tensor table. The engine wants tensors one behind the other in the table's order, each aligned; so do we."""
    tensors: list[Tensor] = []
    names: set[str] = set()
    expected = 0
    for number in range(count):
        cursor.owed = (count - number - 1) * LEAST_TENSOR
        name = cursor.text("the name of a tensor", LONGEST_NAME)
        if name in names:
            raise cursor.error(f"the tensor {name} stands there twice")
        names.add(name)
        (dimensions,) = cursor.unpack(U32)
        if not 0 < dimensions <= MOST_DIMENSIONS:
            raise cursor.error(f"the tensor {name} has {dimensions} dimensions, allowed are 1 to {MOST_DIMENSIONS}")
        shape = cursor.unpack(struct.Struct(f"<{dimensions}Q"))
        kind, offset = cursor.unpack(TENSOR_END)
        if kind not in TYPES:
            raise cursor.error(f"the tensor {name} has the type {kind}, which does not exist or no longer")
        label, block, block_bytes = TYPES[kind]
        if 0 in shape or shape[0] % block:
            raise cursor.error(f"the tensor {name} has the shape {list(shape)}, which {label} in blocks of {block} cannot have")
        length = shape[0] // block * block_bytes
        for extent in shape[1:]:
            length *= extent
        if offset != expected:
            raise cursor.error(f"the tensor {name} lies at byte {offset} of the data instead of {expected}, right behind the one before")
        if offset + length > cursor.size:
            raise cursor.error(f"the tensor {name} takes {length} bytes, and the file does not hold them")
        expected = _align(offset + length, alignment)
        tensors.append(Tensor(name, label, shape, offset, length))
    return tensors


def _check_size(cursor: _Cursor, header: Header, alignment: int) -> None:
    """The tensors end where the file ends, give or take the last one's padding; otherwise the header is another file's."""
    end = header.end
    if header.tensors:
        last = header.tensors[-1]
        end = header.data_start + last.offset + last.bytes
    if not end <= cursor.size <= _align(end, alignment):
        raise cursor.error(f"its tensors end at byte {end}, so the header does not belong to a file of this size")
