# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The torrents of a mirror: ``<index root>/torrents/<commit>/<quant>.torrent`` for every whole quant of its index. Sizes are bytes."""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any, NamedTuple

from ansible_collections.onprem.llamacpp.plugins.module_utils._quant import COMMIT, QUANT_NAME, REPO_ID, repo_quants
from ansible_collections.onprem.llamacpp.plugins.module_utils._torrent import TorrentError, make, read

FOLDER = "torrents"


class Wish(NamedTuple):
    """A quant that is to have a torrent; ``files`` are {path, size, sha256}."""

    repo_id: str
    commit: str
    quant: str
    files: list[dict[str, Any]]

    @property
    def name(self) -> str:
        return f"{self.commit}/{self.quant}.torrent"


def wishes(root: str) -> list[Wish]:
    """Every whole quant of every commit that the index at ``root`` describes."""
    found = []
    top = os.path.join(root, "api")
    for folder, _folders, names in sorted(os.walk(top)):
        repo_id, _slash, commit = os.path.relpath(folder, top).rpartition("/")
        if "tree.json" not in names or not COMMIT.match(commit) or not REPO_ID.match(repo_id):
            continue
        with open(os.path.join(folder, "tree.json"), encoding="utf-8") as stream:
            tree = json.load(stream)
        listing = [{"path": item["path"], "size": item["size"], "sha256": item["lfs"]["oid"]} for item in tree]
        quants, _other = repo_quants(listing)
        found += [
            Wish(repo_id, commit, name, item["files"]) for name, item in quants.items() if item["complete"] and QUANT_NAME.match(name)
        ]
    return found


def missing(root: str, wanted: list[Wish]) -> list[Wish]:
    """Those without a torrent, or with one of other files."""
    return [wish for wish in wanted if not _is_of(os.path.join(root, FOLDER, wish.name), wish)]


def _is_of(path: str, wish: Wish) -> bool:
    try:
        with open(path, "rb") as stream:
            return read(stream.read()).files == [(item["path"], item["size"]) for item in wish.files]
    except (OSError, TorrentError):
        return False


def stray(root: str, wanted: list[Wish]) -> list[str]:
    """Torrents, by name, of what the index no longer holds."""
    top = os.path.join(root, FOLDER)
    there = [os.path.relpath(os.path.join(folder, name), top) for folder, _folders, names in os.walk(top) for name in names]
    return sorted(set(there) - {wish.name for wish in wanted})


def write(root: str, wish: Wish, url: str) -> int:
    """Make one torrent, whose web seed is the mirror at ``url`` (none when empty). Returns the bytes that were read for it."""
    sources = [os.path.join(root, "blobs", item["sha256"]) for item in wish.files]
    seeds = [f"{url.rstrip('/')}/{wish.repo_id}/resolve/"] if url else []
    path = os.path.join(root, FOLDER, wish.name)
    data = make(wish.commit, wish.files, sources, seeds)
    for folder in (os.path.join(root, FOLDER), os.path.dirname(path)):
        if not os.path.isdir(folder):
            os.mkdir(folder)
            os.chmod(folder, 0o755)  # noqa: S103 - the web server reads it as another user
    with open(path + ".new", "wb") as stream:
        stream.write(data)
    os.chmod(path + ".new", 0o644)
    os.replace(path + ".new", path)
    return sum(item["size"] for item in wish.files)


def remove(root: str, names: list[str]) -> None:
    for name in names:
        os.remove(os.path.join(root, FOLDER, name))
        with contextlib.suppress(OSError):
            os.rmdir(os.path.dirname(os.path.join(root, FOLDER, name)))
