# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Turns directories of files into the documents with which a plain web server answers like a Hugging Face Hub.

Below the index's root lie ``api/<org>/<repo>/<commit>/{model,tree}.json``, ``blobs/<sha256>`` (links to the files) and
``maps.conf``, from which nginx knows what a URL stands for. Hashes are kept in ``cache.json``, trusted while a file keeps
its size, inode and modification time. Sizes are bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
from typing import Any, Callable, NamedTuple, Optional

from ansible_collections.onprem.llamacpp.plugins.module_utils._files import read_json, write_json
from ansible_collections.onprem.llamacpp.plugins.module_utils._quant import COMMIT, REPO_ID, QuantError, check_path

CHUNK = 4 * 1024 * 1024
REVISION = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
POINTER_SIZE = 135  # of a Git LFS pointer file; clients want the field, nobody reads it


class HubIndexError(Exception):
    """One line for the user."""


class File(NamedTuple):
    """A file as clients see it (``path``) and where it lies (``source``); sha256 is None before it is known."""

    path: str
    size: int
    sha256: Optional[str]
    source: str


class Snapshot(NamedTuple):
    """One commit of one repository, and the names under which it can be asked for."""

    repo_id: str
    commit: str
    revisions: list[str]
    files: list[File]


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


def scan_models(root: str) -> list[Snapshot]:
    """What gguf_download has published below ``root``; the manifests carry commits and hashes, so nothing is read."""
    commits: dict[tuple[str, str], dict[str, File]] = {}
    newest: dict[str, tuple[str, str]] = {}
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if "manifest.json" not in names:
            continue
        manifest = read_json(os.path.join(folder, "manifest.json"))
        repo_id, commit = str(manifest.get("repo_id")), str(manifest.get("commit"))
        if not REPO_ID.match(repo_id) or not COMMIT.match(commit):
            continue
        for item in manifest.get("files", []):
            path = check_path(item["path"])
            commits.setdefault((repo_id, commit), {})[path] = File(
                path, item["size"], item["sha256"], os.path.join(folder, os.path.basename(path))
            )
        newest[repo_id] = max(newest.get(repo_id, ("", "")), (str(manifest.get("published_at")), commit))
    return [
        Snapshot(repo_id, commit, ["main"] if newest[repo_id][1] == commit else [], sorted(files.values()))
        for (repo_id, commit), files in sorted(commits.items())
    ]


class HashCache:
    """SHA-256 of files, computed once for each state of a file."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.known = read_json(path)
        self.used: dict[str, Any] = {}
        self.hashed_bytes = 0

    def lookup(self, source: str) -> Optional[str]:
        """The hash of a file as it is now, if it was computed before."""
        state = self._state(source)
        entry = self.known.get(source)
        if isinstance(entry, dict) and entry.get("state") == state:
            self.used[source] = entry
            return str(entry["sha256"])
        return None

    def compute(self, source: str) -> str:
        known = self.lookup(source)
        if known:
            return known
        state = self._state(source)
        digest = hashlib.sha256()
        with open(source, "rb") as stream:
            while True:
                block = stream.read(CHUNK)
                if not block:
                    break
                digest.update(block)
                self.hashed_bytes += len(block)
        if self._state(source) != state:
            raise HubIndexError(f"{source} changed while it was read. Run again when it is written completely.")
        self.used[source] = {"state": state, "sha256": digest.hexdigest()}
        return digest.hexdigest()

    def save(self) -> None:
        if self.used != self.known:
            write_json(self.path, self.used, mode=0o600)

    @staticmethod
    def _state(source: str) -> list[int]:
        found = os.stat(source)
        return [found.st_size, found.st_mtime_ns, found.st_ino]


def commit_of(repo_id: str, files: list[File]) -> str:
    """A commit for a directory: 40 hexadecimal digits that change with any name or byte."""
    document = [repo_id, [[item.path, item.size, item.sha256] for item in files]]
    return hashlib.sha256(json.dumps(document, separators=(",", ":")).encode()).hexdigest()[:40]


def snapshot_directory(repo_id: str, folder: str, revisions: list[str], hash_of: Callable[[str], Optional[str]]) -> Snapshot:
    """A directory as one commit of ``repo_id``; the commit is empty when a hash is not known."""
    if not REPO_ID.match(repo_id):
        raise HubIndexError(f"{repo_id!r} is not a repository's name: it is written <organisation>/<name>.")
    for name in revisions:
        if not REVISION.match(name):
            raise HubIndexError(f"{name!r} of {repo_id} is not usable as a revision: letters, digits, dots, dashes and underscores only.")
    files = [item._replace(sha256=hash_of(item.source)) for item in scan_directory(folder)]
    whole = all(item.sha256 for item in files)
    return Snapshot(repo_id, commit_of(repo_id, files) if whole else "", revisions, files)


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


def check_snapshots(snapshots: list[Snapshot]) -> None:
    """Raise when two snapshots claim the same revision of a repository."""
    owners: dict[tuple[str, str], str] = {}
    for item in snapshots:
        for name in item.revisions:
            if owners.setdefault((item.repo_id, name), item.commit) != item.commit:
                raise HubIndexError(f"Two directories claim the revision {name} of {item.repo_id}. Correct llama_mirror_repos.")


def model_document(item: Snapshot) -> dict[str, Any]:
    """The answer to ``/api/models/<repo>``."""
    return {
        "id": item.repo_id,
        "modelId": item.repo_id,
        "author": item.repo_id.split("/")[0],
        "sha": item.commit,
        "private": False,
        "gated": False,
        "disabled": False,
        "tags": ["gguf"],
        "siblings": [
            {
                "rfilename": file.path,
                "size": file.size,
                "blobId": str(file.sha256)[:40],
                "lfs": {"sha256": file.sha256, "size": file.size, "pointerSize": POINTER_SIZE},
            }
            for file in item.files
        ],
    }


def tree_document(item: Snapshot) -> list[dict[str, Any]]:
    """The answer to ``/api/models/<repo>/tree/<revision>?recursive=true``."""
    return [
        {
            "type": "file",
            "path": file.path,
            "size": file.size,
            "oid": str(file.sha256)[:40],
            "lfs": {"oid": file.sha256, "size": file.size, "pointerSize": POINTER_SIZE},
        }
        for file in item.files
    ]


def nginx_maps(snapshots: list[Snapshot]) -> str:
    """nginx maps from what stands in a URL to commit, hash and size. The template of the site says how they are used."""
    known = {item.repo_id: "" for item in snapshots}
    commits, hashes, sizes = {}, {}, {}
    for item in snapshots:
        for name in [*item.revisions, item.commit]:
            commits[f"{item.repo_id}@{name}"] = item.commit
        if "main" in item.revisions:
            commits[f"{item.repo_id}@"] = item.commit
        for file in item.files:
            hashes[f"{item.repo_id}@{item.commit}/{file.path}"] = str(file.sha256)
            sizes[str(file.sha256)] = str(file.size)
    return "# Written by onprem.llamacpp.hub_index; changes are lost.\n" + "".join(
        (
            _map("$llama_mirror_repo", "$llama_mirror_unknown", "RepoNotFound", known),
            _map("$llama_mirror_repo@$llama_mirror_revision", "$llama_mirror_commit", "", commits),
            _map("$llama_mirror_repo@$llama_mirror_commit/$llama_mirror_path", "$llama_mirror_sha256", "none", hashes),
            _map("$llama_mirror_sha256", "$llama_mirror_size", "", sizes),
        )
    )


def _map(source: str, target: str, otherwise: str, entries: dict[str, str]) -> str:
    lines = "".join(f"    {_quote(key)} {_quote(value)};\n" for key, value in sorted(entries.items()))
    return f"map {_quote(source)} {target} {{\n    default {_quote(otherwise)};\n{lines}}}\n"


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def documents(snapshots: list[Snapshot]) -> dict[str, str]:
    """Every document of the index by its path below the root."""
    made = {"maps.conf": nginx_maps(snapshots)}
    for item in snapshots:
        folder = f"api/{item.repo_id}/{item.commit}"
        made[f"{folder}/model.json"] = json.dumps(model_document(item), indent=1) + "\n"
        made[f"{folder}/tree.json"] = json.dumps(tree_document(item), indent=1) + "\n"
    return made


def links(snapshots: list[Snapshot]) -> dict[str, str]:
    """Name of the blob to the file that holds it."""
    return {f"blobs/{file.sha256}": file.source for item in reversed(snapshots) for file in item.files}


def present(root: str) -> tuple[dict[str, str], dict[str, str]]:
    """The documents and links that are there now."""
    there: dict[str, str] = {}
    linked: dict[str, str] = {}
    for top, _folders, names in os.walk(root):
        for name in names:
            path = os.path.join(top, name)
            relative = os.path.relpath(path, root)
            if os.path.islink(path):
                linked[relative] = os.readlink(path)
            elif relative != "cache.json":
                with open(path, encoding="utf-8", errors="replace") as stream:
                    there[relative] = stream.read()
    return there, linked


def write_index(root: str, wanted: dict[str, str], wanted_links: dict[str, str]) -> None:
    """Make the directory hold exactly the documents and links; each is replaced at once, what is new comes first."""
    there, linked = present(root)
    for relative, source in wanted_links.items():
        if linked.get(relative) != source:
            path = _parent_made(root, relative)
            with contextlib.suppress(FileNotFoundError):
                os.remove(path + ".new")
            os.symlink(source, path + ".new")
            os.replace(path + ".new", path)
    for relative, text in wanted.items():
        if there.get(relative) != text:
            path = _parent_made(root, relative)
            with open(path + ".new", "w", encoding="utf-8") as stream:
                stream.write(text)
            os.chmod(path + ".new", 0o644)
            os.replace(path + ".new", path)
    for relative in (set(there) - set(wanted)) | (set(linked) - set(wanted_links)):
        os.remove(os.path.join(root, relative))
        folder = os.path.dirname(relative)
        while folder:
            with contextlib.suppress(OSError):
                os.rmdir(os.path.join(root, folder))
            folder = os.path.dirname(folder)


def _parent_made(root: str, relative: str) -> str:
    path = root
    for part in os.path.dirname(relative).split("/"):
        path = os.path.join(path, part)
        if not os.path.isdir(path):
            os.mkdir(path)
            os.chmod(path, 0o755)  # noqa: S103 - the web server reads it as another user
    return os.path.join(root, relative)
