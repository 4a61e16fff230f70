# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import hashlib

import pytest

from ansible_collections.onprem.llamacpp.plugins.module_utils import _torrent
from ansible_collections.onprem.llamacpp.plugins.module_utils._torrent import Torrent, TorrentError

COMMIT = "c" * 40
MIB = 2**20


def made(tmp_path, *sizes, web_seeds=()):
    files, sources = [], []
    for number, size in enumerate(sizes):
        path = tmp_path / f"{number}.gguf"
        path.write_bytes(bytes([number + 1]) * size)
        files.append({"path": f"quant/{number}.gguf", "size": size})
        sources.append(str(path))
    return _torrent.make(COMMIT, files, sources, list(web_seeds))


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        pytest.param(-3, b"i-3e", id="integer"),
        pytest.param("höhe", b"5:h\xc3\xb6he", id="text"),
        pytest.param(b"\x00\xff", b"2:\x00\xff", id="bytes"),
        pytest.param([1, ["a"]], b"li1el1:aee", id="lists"),
        pytest.param({"b": 1, "a": {}}, b"d1:ade1:bi1ee", id="keys in order"),
    ],
)
def test_bencode(value, encoded):
    assert _torrent.encode(value) == encoded
    assert _torrent.encode(_torrent.decode(encoded)) == encoded


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"i1", id="integer without end"),
        pytest.param(b"5:abc", id="bytes that are not there"),
        pytest.param(b"-1:a", id="negative length"),
        pytest.param(b"i1ei2e", id="two values"),
        pytest.param(b"l" * 5000, id="depth that would exhaust the stack"),
        pytest.param(b"d1:ae", id="key without value"),
        pytest.param(b"<html>404</html>", id="a web page"),
    ],
)
def test_what_is_no_bencode_is_refused(data):
    with pytest.raises(TorrentError):
        _torrent.read(data)


@pytest.mark.parametrize(
    ("size", "length"),
    [
        pytest.param(200 * 10**6, MIB, id="200 MB"),
        pytest.param(8 * 2**30, MIB, id="8 GiB"),
        pytest.param(8 * 2**30 + 1, 2 * MIB, id="a byte more"),
        pytest.param(245 * 10**9, 16 * MIB, id="245 GB"),
        pytest.param(732 * 10**9, 16 * MIB, id="732 GB"),
    ],
)
def test_piece_length(size, length):
    assert _torrent.piece_length(size) == length


def test_a_torrent_is_read_as_it_was_made(tmp_path):
    torrent = _torrent.read(made(tmp_path, MIB + 5, 2 * MIB, 7))
    assert torrent.commit == COMMIT
    assert torrent.files == [("quant/0.gguf", MIB + 5), ("quant/1.gguf", 2 * MIB), ("quant/2.gguf", 7)]
    content = b"\x01" * (MIB + 5) + b"\x02" * 2 * MIB + b"\x03" * 7
    assert torrent.pieces == [hashlib.sha1(content[at : at + MIB]).digest() for at in range(0, len(content), MIB)]
    assert torrent.is_piece(3, content[3 * MIB :])
    assert not torrent.is_piece(3, b"x" + content[3 * MIB + 1 :])


def test_the_same_files_make_the_same_swarm(tmp_path):
    with_seed = _torrent.decode(made(tmp_path, 9, web_seeds=["http://mirror/org/repo/resolve/"]))
    assert with_seed["url-list"] == [b"http://mirror/org/repo/resolve/"]
    assert with_seed["info"] == _torrent.decode(made(tmp_path, 9))["info"]
    assert with_seed["info"]["private"] == 1


def test_a_file_that_is_too_short_is_told(tmp_path):
    (tmp_path / "0.gguf").write_bytes(b"abc")
    with pytest.raises(TorrentError, match="ends after 3 of 4 bytes"):
        _torrent.make(COMMIT, [{"path": "0.gguf", "size": 4}], [str(tmp_path / "0.gguf")], [])


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"private": 0}, id="not private"),
        pytest.param({"name": b"model"}, id="no commit"),
        pytest.param({"name": b"../" + b"c" * 37}, id="a name that leaves the directory"),
        pytest.param({"pieces": b"x" * 40}, id="more pieces than bytes"),
        pytest.param({"pieces": b"x" * 19}, id="half a hash"),
        pytest.param({"piece length": 0}, id="pieces of nothing"),
        pytest.param({"files": [{"length": 9, "path": [b"..", b"0.gguf"]}]}, id="a path that leaves the directory"),
        pytest.param({"files": [{"length": -9, "path": [b"0.gguf"]}]}, id="negative size"),
        pytest.param({"files": 3}, id="no files"),
    ],
)
def test_a_torrent_of_something_else_is_refused(tmp_path, change):
    document = _torrent.decode(made(tmp_path, 9))
    document["info"].update(change)
    with pytest.raises(TorrentError):
        _torrent.read(_torrent.encode(document))


def test_pieces_run_through_files():
    torrent = Torrent(COMMIT, 10, [b""] * 3, [("a", 4), ("b", 3), ("c", 15)])
    assert torrent.bounds(2) == (20, 22)
    assert torrent.spans(0, 10) == [("a", 0, 4), ("b", 0, 3), ("c", 0, 3)]
    assert torrent.spans(10, 22) == [("c", 3, 15)]
