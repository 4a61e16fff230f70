# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""GGUF files put together byte by byte, so that every part of them can be wrong."""

from __future__ import annotations

import struct
from collections.abc import Sequence

U8, U16, U32, I32, F32, BOOL, STRING, ARRAY, U64 = 0, 2, 4, 5, 6, 7, 8, 9, 10
FORMS = {U8: "B", U16: "H", U32: "I", I32: "i", F32: "f", BOOL: "?", U64: "Q"}


def string(text: str | bytes, length: int | None = None) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data) if length is None else length) + data


def scalar(key: str | bytes, kind: int, value: float) -> bytes:
    return string(key) + struct.pack(f"<I{FORMS[kind]}", kind, value)


def text(key: str | bytes, value: str | bytes, length: int | None = None) -> bytes:
    return string(key) + struct.pack("<I", STRING) + string(value, length)


def array(key: str | bytes, element: int, values: Sequence, count: int | None = None) -> bytes:
    body = b"".join(string(value) for value in values) if element == STRING else struct.pack(f"<{len(values)}{FORMS[element]}", *values)
    return string(key) + struct.pack("<IIQ", ARRAY, element, len(values) if count is None else count) + body


def tensor(name: str | bytes, shape: Sequence[int], kind: int = 0, offset: int = 0, dimensions: int | None = None) -> bytes:
    count = len(shape) if dimensions is None else dimensions
    return string(name) + struct.pack(f"<I{len(shape)}QIQ", count, *shape, kind, offset)


def header(
    keys: Sequence[bytes] = (),
    tensors: Sequence[bytes] = (),
    version: int = 3,
    magic: bytes = b"GGUF",
    key_count: int | None = None,
    tensor_count: int | None = None,
) -> bytes:
    counts = (len(tensors) if tensor_count is None else tensor_count, len(keys) if key_count is None else key_count)
    return magic + struct.pack("<IQQ", version, *counts) + b"".join(keys) + b"".join(tensors)


def whole(head: bytes, data: int, alignment: int = 32) -> bytes:
    """The header, its padding and ``data`` bytes of weights."""
    return head + bytes(-len(head) % alignment) + bytes(data)


MODEL = [text("general.architecture", "llama"), scalar("llama.block_count", U32, 1)]
ONE = [tensor("output.weight", (8, 4))]  # 128 bytes
