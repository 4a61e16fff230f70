# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A BitTorrent peer that claims to have everything and answers every request with wrong bytes.

``wrong_peer.py INFO_HASH PIECES PORT``; prints a line for each block that it has sent. For tests, on a host with Python only.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import threading

BITFIELD, UNCHOKE, REQUEST, PIECE = 5, 1, 6, 7


def message(kind: int, payload: bytes = b"") -> bytes:
    return struct.pack(">IB", 1 + len(payload), kind) + payload


def exactly(stream: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        block = stream.recv(count - len(data))
        if not block:
            raise ConnectionError
        data += block
    return data


def lie(stream: socket.socket, info_hash: bytes, pieces: int) -> None:
    """Speak to one peer until it has had enough."""
    exactly(stream, 68)
    stream.sendall(b"\x13BitTorrent protocol" + bytes(8) + info_hash + b"-WP0001-" + os.urandom(12))
    field = bytearray(-(-pieces // 8))
    for piece in range(pieces):
        field[piece // 8] |= 0x80 >> piece % 8
    stream.sendall(message(BITFIELD, bytes(field)) + message(UNCHOKE))
    while True:
        (length,) = struct.unpack(">I", exactly(stream, 4))
        body = exactly(stream, length) if length else b""
        if body and body[0] == REQUEST:
            piece, begin, size = struct.unpack(">III", body[1:13])
            stream.sendall(message(PIECE, struct.pack(">II", piece, begin) + os.urandom(size)))
            print(piece, begin, size, flush=True)


def serve(stream: socket.socket, info_hash: bytes, pieces: int) -> None:
    try:
        lie(stream, info_hash, pieces)
    except OSError:
        stream.close()


def main(arguments: list[str]) -> None:
    info_hash, pieces, port = bytes.fromhex(arguments[1]), int(arguments[2]), int(arguments[3])
    with socket.create_server(("", port)) as server:
        while True:
            stream, _address = server.accept()
            threading.Thread(target=serve, args=(stream, info_hash, pieces), daemon=True).start()


if __name__ == "__main__":
    main(sys.argv)
