# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a mirror has to serve: directories of files, and models that gguf_download has published.

Files of directories are hashed once; hashes are kept and trusted while a file keeps its size, inode and modification
time. Published models are not read at all, their manifests say what they are. Sizes are bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from typing import Any, Callable, NamedTuple, Optional

from ansible_collections.onprem.llamacpp.plugins.module_utils._blocks import BLOCK
from ansible_collections.onprem.llamacpp.plugins.module_utils._files import read_json, size_of, write_json
from ansible_collections.onprem.llamacpp.plugins.module_utils._quant import COMMIT, REPO_ID, QuantError, check_path, repo_quants

CHUNK = 4 * 1024 * 1024
REVISION = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*$")


class HubIndexError(Exception):
    """One line for the user."""


class Hashes(NamedTuple):
    """SHA-256 of a file, and of everything up to each block's end; the last of ``blocks`` is that of the file."""

    sha256: str
    blocks: list[str]


class File(NamedTuple):
    """A file as clients see it (``path``) and where it lies (``source``); hashes are None before they are known."""

    path: str
    size: int
    sha256: Optional[str]
    source: str
    blocks: Optional[list[str]] = None


class Snapshot(NamedTuple):
    """One commit of one repository, the names under which it can be asked for, and the quants that are whole."""

    repo_id: str
    commit: str
    revisions: list[str]
    files: list[File]
    quants: list[str]
    published_at: str = ""  # the newest of its quants, where gguf_download has published them


def scan_directory(folder: str) -> list[File]:
    """Every regular file below ``folder``; links and names that begin with a dot are left out."""
    if not os.path.isdir(folder):
        raise HubIndexError(f"The directory {folder} does not exist on this host. Put the files there, or correct llama_mirror_repos.")
    found = []
    for top, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            source = os.path.join(top, name)
            state = os.lstat(source)
            if name.startswith(".") or not stat.S_ISREG(state.st_mode):
                continue
            try:
                path = check_path(os.path.relpath(source, folder))
            except QuantError as error:
                raise HubIndexError(f"{folder}: {error}") from error
            if not state.st_mode & stat.S_IROTH:
                raise HubIndexError(f"{source} is not readable for the web server. Give others the right to read it (chmod o+r).")
            found.append(File(path, state.st_size, None, source))
    if not found:
        raise HubIndexError(f"The directory {folder} holds no files. Put the repository's files there, or correct llama_mirror_repos.")
    return found


def snapshot_directory(repo_id: str, folder: str, revisions: list[str], hash_of: Callable[[str], Optional[Hashes]]) -> Snapshot:
    """A directory as one commit of ``repo_id``; the commit is empty when a hash is not known."""
    if not REPO_ID.match(repo_id):
        raise HubIndexError(f"{repo_id!r} is not a repository's name: it is written <organisation>/<name>.")
    for name in revisions:
        if not REVISION.match(name):
            raise HubIndexError(f"{name!r} of {repo_id} is not usable as a revision: letters, digits, dots, dashes and underscores only.")
    files = []
    for item in scan_directory(folder):
        known = hash_of(item.source)
        files.append(item._replace(sha256=known.sha256, blocks=known.blocks) if known else item)
    whole = all(item.sha256 for item in files)
    return Snapshot(repo_id, commit_of(repo_id, files) if whole else "", revisions, files, _quants(files))


def _quants(files: list[File]) -> list[str]:
    found, _other = repo_quants([{"path": item.path, "size": item.size, "sha256": item.sha256} for item in files], hashed=False)
    return sorted(name for name, quant in found.items() if quant["complete"])


def commit_of(repo_id: str, files: list[File]) -> str:
    """A commit for a directory: 40 hexadecimal digits that change with any name or byte."""
    document = [repo_id, [[item.path, item.size, item.sha256] for item in files]]
    return hashlib.sha256(json.dumps(document, separators=(",", ":")).encode()).hexdigest()[:40]


def scan_models(root: str, named: dict[str, dict[str, str]]) -> list[Snapshot]:
    """What gguf_download has published below ``root``; the manifests carry commits and hashes, so nothing is read.

    ``named`` says which commit stands for which name of a repository's revisions. Where it does not say it of main,
    main is what was published last. A model whose files are not all there in their full size is left out.
    """
    commits: dict[tuple[str, str], dict[str, File]] = {}
    quants: dict[tuple[str, str], dict[str, str]] = {}
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if "manifest.json" not in names:
            continue
        manifest = read_json(os.path.join(folder, "manifest.json"))
        repo_id, commit = str(manifest.get("repo_id")), str(manifest.get("commit"))
        if not REPO_ID.match(repo_id) or not COMMIT.match(commit):
            continue
        files = [_published(folder, item) for item in manifest.get("files", [])]
        if any(size_of(item.source) != item.size for item in files):
            continue
        commits.setdefault((repo_id, commit), {}).update({item.path: item for item in files})
        quants.setdefault((repo_id, commit), {})[str(manifest.get("quant"))] = str(manifest.get("published_at"))
    meant: dict[str, dict[str, str]] = {}
    for repo_id, commit in sorted(commits, key=lambda key: (max(quants[key].values()), key)):
        meant.setdefault(repo_id, {})["main"] = commit
    for repo_id, told in meant.items():
        told.update({name: stands for name, stands in named.get(repo_id, {}).items() if (repo_id, stands) in commits})
    found = []
    for (repo_id, commit), known in sorted(commits.items()):
        revisions = sorted(name for name, stands in meant[repo_id].items() if stands == commit)
        published = quants[repo_id, commit]
        found.append(
            Snapshot(repo_id, commit, revisions, [known[path] for path in sorted(known)], sorted(published), max(published.values()))
        )
    return found


def _published(folder: str, item: dict[str, Any]) -> File:
    """A file of a manifest; one of schema version 1 has no blocks."""
    path = check_path(item["path"])
    return File(path, item["size"], item["sha256"], os.path.join(folder, os.path.basename(path)), item.get("blocks") or None)


def merged(given: list[Snapshot], found: list[Snapshot]) -> list[Snapshot]:
    """Directories that were named, then published models, which yield their commit and revisions to a directory."""
    commits = {(item.repo_id, item.commit) for item in given}
    claimed = {(item.repo_id, name) for item in given for name in item.revisions}
    extra = [
        item._replace(revisions=[name for name in item.revisions if (item.repo_id, name) not in claimed])
        for item in found
        if (item.repo_id, item.commit) not in commits
    ]
    return [*given, *extra]


class HashCache:
    """Hashes of files, computed once for each state of a file."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.known = read_json(path)
        self.used: dict[str, Any] = {}
        self.hashed_bytes = 0

    def lookup(self, source: str) -> Optional[Hashes]:
        """The hashes of a file as it is now, if they were computed before."""
        entry = self.known.get(source)
        if isinstance(entry, dict) and entry.get("state") == self._state(source) and entry.get("blocks"):
            self.used[source] = entry
            return Hashes(str(entry["sha256"]), list(entry["blocks"]))
        return None

    def compute(self, source: str) -> Hashes:
        known = self.lookup(source)
        if known:
            return known
        state = self._state(source)
        found, size = hash_file(source)
        self.hashed_bytes += size
        if self._state(source) != state:
            raise HubIndexError(f"{source} changed while it was read. Run again when it is written completely.")
        self.used[source] = {"state": state, **found._asdict()}
        return found

    def save(self) -> None:
        if self.used != self.known:
            write_json(self.path, self.used, mode=0o600)

    @staticmethod
    def _state(source: str) -> list[int]:
        found = os.stat(source)
        return [found.st_size, found.st_mtime_ns, found.st_ino]


def hash_file(source: str) -> tuple[Hashes, int]:
    """The hashes of a file and how many bytes were read for them. Chunks divide blocks evenly."""
    digest, blocks, size = hashlib.sha256(), [], 0
    with open(source, "rb") as stream:
        while True:
            chunk = stream.read(CHUNK)
            if not chunk:
                break
            digest.update(chunk)
            size += len(chunk)
            if size % BLOCK == 0:
                blocks.append(digest.hexdigest())
    if size % BLOCK or not blocks:
        blocks.append(digest.hexdigest())
    return Hashes(digest.hexdigest(), blocks), size
