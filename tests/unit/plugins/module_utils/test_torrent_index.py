# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import hashlib
import json

import pytest

from ansible_collections.onprem.llamacpp.plugins.module_utils import _torrent, _torrent_index

COMMIT = "c" * 40
REPO = "org/repo"


@pytest.fixture
def index(tmp_path):
    """An index with one whole quant of two shards, one that lacks a shard, and a README."""
    names = ["Q8_0/m-Q8_0-00001-of-00002.gguf", "Q8_0/m-Q8_0-00002-of-00002.gguf", "Q2_K/m-Q2_K-00001-of-00002.gguf", "README.md"]
    tree = []
    (tmp_path / "blobs").mkdir()
    for name in names:
        digest = hashlib.sha256(name.encode()).hexdigest()
        (tmp_path / "blobs" / digest).write_bytes(name.encode())
        tree.append({"path": name, "size": len(name), "lfs": {"oid": digest}})
    folder = tmp_path / "api" / REPO / COMMIT
    folder.mkdir(parents=True)
    (folder / "tree.json").write_text(json.dumps(tree))
    return tmp_path


def test_every_whole_quant_is_to_have_a_torrent(index):
    (wish,) = _torrent_index.wishes(str(index))
    assert (wish.repo_id, wish.name, len(wish.files)) == (REPO, f"{COMMIT}/Q8_0.torrent", 2)


def test_a_torrent_is_made_once(index):
    root = str(index)
    wanted = _torrent_index.wishes(root)
    assert _torrent_index.missing(root, wanted) == wanted
    read = _torrent_index.write(root, wanted[0], "http://mirror/")
    assert read == sum(item["size"] for item in wanted[0].files)
    assert _torrent_index.missing(root, wanted) == []
    path = index / "torrents" / COMMIT / "Q8_0.torrent"
    assert _torrent.decode(path.read_bytes())["url-list"] == [b"http://mirror/org/repo/resolve/"]
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("content", [b"", b"d4:infodee"], ids=["empty", "of nothing"])
def test_a_damaged_torrent_is_missing(index, content):
    root = str(index)
    wanted = _torrent_index.wishes(root)
    _torrent_index.write(root, wanted[0], "")
    (index / "torrents" / COMMIT / "Q8_0.torrent").write_bytes(content)
    assert _torrent_index.missing(root, wanted) == wanted


def test_what_the_index_no_longer_holds_is_removed(index):
    root = str(index)
    _torrent_index.write(root, _torrent_index.wishes(root)[0], "")
    assert _torrent_index.stray(root, []) == [f"{COMMIT}/Q8_0.torrent"]
    _torrent_index.remove(root, _torrent_index.stray(root, []))
    assert not (index / "torrents" / COMMIT).exists()


def test_module_makes_what_is_missing_and_nothing_twice(index, run_module):
    name = f"{COMMIT}/Q8_0.torrent"
    status, made = run_module("model_torrents", root=str(index), url="http://mirror")
    assert (status, made["changed"], made["made"], made["torrents"]) == (0, True, [name], [name])
    _status, again = run_module("model_torrents", root=str(index), url="http://mirror")
    assert (again["changed"], again["made"], again["hashed_bytes"]) == (False, [], 0)


def test_module_tells_of_a_blob_that_is_gone(index, run_module):
    for blob in (index / "blobs").iterdir():
        blob.unlink()
    status, told = run_module("model_torrents", root=str(index))
    assert status == 1 and str(index / "blobs") in told["msg"]
