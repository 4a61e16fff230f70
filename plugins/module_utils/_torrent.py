# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Torrents (BEP 3) of a quant at a commit: made from its files, and read again. Sizes are bytes.

The name is the commit and the paths are those of the repository, so that the web seed (BEP 19) ``<Hub>/<org>/<repo>/resolve/`` maps onto
the URLs of the Hub and of every mirror. Torrents are private: no peer is looked for by any means but those that it was told of.
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

from ansible_collections.onprem.llamacpp.plugins.module_utils._quant import COMMIT, QuantError, check_path

SMALLEST_PIECE = 2**20
LARGEST_PIECE = 2**24
MOST_PIECES = 8192  # with pieces between the two: a torrent is read by every host, and a lost piece is fetched again
LARGEST_DEPTH = 16


class TorrentError(Exception):
    """One line for the user."""


class Torrent(NamedTuple):
    """What its ``info`` says: SHA-1 of each piece, and the files (path in the repository, size) that the pieces run through."""

    commit: str
    piece_length: int
    pieces: list[bytes]
    files: list[tuple[str, int]]

    @property
    def size(self) -> int:
        return sum(size for _path, size in self.files)

    def bounds(self, piece: int) -> tuple[int, int]:
        """First byte of a piece and the byte after its last, in all files laid end to end."""
        begin = piece * self.piece_length
        return begin, min(begin + self.piece_length, self.size)

    def spans(self, begin: int, end: int) -> list[tuple[str, int, int]]:
        """The same bytes as (path, first byte, byte after the last) of files."""
        found, base = [], 0
        for path, size in self.files:
            first, last = max(begin - base, 0), min(end - base, size)
            if first < last:
                found.append((path, first, last))
            base += size
        return found

    def is_piece(self, piece: int, data: bytes) -> bool:
        return hashlib.sha1(data, usedforsecurity=False).digest() == self.pieces[piece]


def encode(value: Any) -> bytes:
    """Bencode: integers, bytes, text, lists, and dictionaries in the order of their keys."""
    if isinstance(value, bool):
        raise TypeError("bencode knows no truth values")
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return b"%d:%s" % (len(value), value)
    if isinstance(value, list):
        return b"l" + b"".join(encode(item) for item in value) + b"e"
    pairs = sorted((key.encode(), item) for key, item in value.items())
    return b"d" + b"".join(encode(key) + encode(item) for key, item in pairs) + b"e"


def decode(data: bytes) -> Any:
    """The reverse; keys are text. Raises TorrentError for anything else than one whole value."""
    try:
        value, end = _decoded(data, 0, 0)
    except (IndexError, ValueError):
        raise TorrentError("The torrent is damaged: it is not bencoded.") from None
    if end != len(data):
        raise TorrentError("The torrent is damaged: something follows its end.")
    return value


def _decoded(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    kind = data[at : at + 1]
    if depth > LARGEST_DEPTH:
        raise ValueError("too deep")
    if kind == b"i":
        end = data.index(b"e", at)
        return int(data[at + 1 : end]), end + 1
    if kind in (b"l", b"d"):
        items, at = [], at + 1
        while data[at : at + 1] != b"e":
            item, at = _decoded(data, at, depth + 1)
            items.append(item)
        if kind == b"l":
            return items, at + 1
        return {key.decode(): item for key, item in zip(items[::2], items[1::2])}, at + 1
    colon = data.index(b":", at)
    end = colon + 1 + int(data[at:colon])
    if not data[at:colon].isdigit() or end > len(data):
        raise ValueError("no length")
    return data[colon + 1 : end], end


def piece_length(size: int) -> int:
    """Small pieces spread faster, few of them are told in less: 1 MiB up to 8 GiB of files, 16 MiB from 64 GiB on."""
    length = SMALLEST_PIECE
    while length < LARGEST_PIECE and size > length * MOST_PIECES:
        length *= 2
    return length


def hash_pieces(sources: list[tuple[str, int]], length: int) -> list[bytes]:
    """SHA-1 of each piece of files (path on disk, size) laid end to end. Raises TorrentError when one has another size."""
    found, digest, room = [], hashlib.sha1(usedforsecurity=False), length
    for path, size in sources:
        left = size
        with open(path, "rb") as stream:
            while left:
                block = stream.read(min(room, left, SMALLEST_PIECE))
                if not block:
                    raise TorrentError(f"{path} ends after {size - left} of {size} bytes. Bring the model anew.")
                digest.update(block)
                left, room = left - len(block), room - len(block)
                if not room:
                    found.append(digest.digest())
                    digest, room = hashlib.sha1(usedforsecurity=False), length
    if room < length:
        found.append(digest.digest())
    return found


def make(commit: str, files: list[dict[str, Any]], sources: list[str], web_seeds: list[str]) -> bytes:
    """The torrent of ``files`` ({path, size}), each of which is read from the path at its place in ``sources``."""
    length = piece_length(sum(item["size"] for item in files))
    hashes = hash_pieces([(source, item["size"]) for source, item in zip(sources, files)], length)
    info = {
        "name": commit,
        "piece length": length,
        "pieces": b"".join(hashes),
        "private": 1,
        "files": [{"length": item["size"], "path": item["path"].split("/")} for item in files],
    }
    return encode({"info": info, **({"url-list": web_seeds} if web_seeds else {})})


def read(data: bytes) -> Torrent:
    """A torrent from its bytes, which nobody vouches for. Raises TorrentError."""
    try:
        info = decode(data)["info"]
        files = [(check_path(b"/".join(item["path"]).decode()), int(item["length"])) for item in info["files"]]
        commit, length, hashes = info["name"].decode(), int(info["piece length"]), bytes(info["pieces"])
    except (KeyError, TypeError, ValueError, AttributeError, QuantError) as error:
        raise TorrentError(f"The torrent does not describe a model ({error}). Run the role llama_mirror again.") from None
    pieces = [hashes[at : at + 20] for at in range(0, len(hashes), 20)]
    torrent = Torrent(commit, length, pieces, files)
    if not COMMIT.match(commit) or info.get("private") != 1 or length < 2**14 or any(size <= 0 for _path, size in files):
        raise TorrentError("The torrent is not a private one of a commit. Run the role llama_mirror again.")
    if len(hashes) % 20 or len(pieces) != -(-torrent.size // length):
        raise TorrentError("The torrent is damaged: its pieces are not those of its files. Run the role llama_mirror again.")
    return torrent
