# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where models lie on a host, and the one rename that makes a fetched one visible.

``<root>/<org>--<repo>/<commit>/<quant>/`` holds the shards and ``manifest.json``, owned by root and never changed again.
What is being fetched lies beside it in ``.<quant>.staging``, owned by the user that fetches. Sizes are bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import stat
import time
from typing import Any, Optional

from ansible_collections.onprem.llamacpp.plugins.module_utils._blocks import BLOCK, checked_document
from ansible_collections.onprem.llamacpp.plugins.module_utils._copies import MANIFEST, Copy, find_copies
from ansible_collections.onprem.llamacpp.plugins.module_utils._files import read_json, room_taken, size_of, sync_directory, write_json
from ansible_collections.onprem.llamacpp.plugins.module_utils._part import blocks_path
from ansible_collections.onprem.llamacpp.plugins.module_utils._quant import COMMIT, QUANT_NAME, REPO_ID, SHA256, QuantError, check_path

PLAIN_PATH = re.compile(r"^/[A-Za-z0-9._/@+=,-]*$")
PATTERNS = {"repo_id": REPO_ID, "commit": COMMIT, "quant": QUANT_NAME, "sha256": SHA256}


class StoreError(Exception):
    """One line for the user."""


def key_of(path: str) -> str:
    """Short, stable and unique on a host: names the units that work on the model of a directory."""
    return hashlib.sha256(path.encode()).hexdigest()[:8]


class Model:
    """One quant of one repository at one commit, and its places below ``root``."""

    def __init__(
        self, root: str, repo_id: str, commit: str, quant: str, files: list[dict[str, Any]], header: Optional[dict[str, Any]] = None
    ) -> None:
        for name, value in (("repo_id", repo_id), ("commit", commit), ("quant", quant)):
            if not PATTERNS[name].match(value):
                raise StoreError(f"{name} {value!r} is not usable: it must match {PATTERNS[name].pattern}.")
        root = os.path.normpath(root)
        if not PLAIN_PATH.match(root) or root == "/":
            # systemd's path lists know spaces, colons and percent signs as syntax.
            raise StoreError(f"The model root {root!r} is not usable: it must be an absolute path of plain characters.")
        self.repo_id, self.commit, self.quant = repo_id, commit, quant
        self.files = [_checked(item) for item in files]
        self.header = header
        self.owner = (0, 0)
        names = [os.path.basename(item["path"]) for item in self.files]
        if len(set(names)) != len(names):
            raise StoreError(f"Two files of {repo_id} {quant} have the same name.")
        self.root = root
        self.parent = os.path.join(root, repo_id.replace("/", "--"), commit)
        self.path = os.path.join(self.parent, quant)
        self.staging = os.path.join(self.parent, f".{quant}.staging")

    @property
    def bytes(self) -> int:
        return sum(item["size"] for item in self.files)

    @property
    def key(self) -> str:
        return key_of(self.path)

    def digest(self) -> str:
        """Changes when other files are wanted."""
        return hashlib.sha256(json.dumps(self.files, sort_keys=True).encode()).hexdigest()

    def complete(self) -> bool:
        """Whether the wanted files are published: told by the manifest and the sizes, without reading a weight."""
        manifest = read_json(os.path.join(self.path, MANIFEST))
        listed = manifest.get("files")
        if not isinstance(listed, list) or manifest.get("commit") != self.commit:
            return False
        known = [{name: item.get(name) for name in ("path", "size", "sha256")} for item in listed if isinstance(item, dict)]
        return known == self.files and all(
            size_of(os.path.join(self.path, os.path.basename(item["path"]))) == item["size"] for item in self.files
        )

    def copies(self) -> dict[str, Copy]:
        """Files of it that are published on this host, here or under another commit, by their path in the repository."""
        _free, where = self.free_bytes()
        return find_copies(self.root, self.path, self.files, os.stat(where).st_dev)

    def manifest(self, source: str, details: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """What is said of the model; ``details`` has {modified_ns, blocks} by name, blocks where they are known."""
        return {
            "schema_version": 2,
            "repo_id": self.repo_id,
            "commit": self.commit,
            "quant": self.quant,
            "source": source,
            "block_size": BLOCK,
            "files": [dict(item, name=name, **details[name]) for item in self.files for name in [os.path.basename(item["path"])]],
            "bytes": self.bytes,
            "header": self.header,
            "published_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }

    def listing(self) -> str:
        """The model as lines of text, for a diff."""
        return "".join(f"{self.path}/{os.path.basename(i['path'])} {i['size']} sha256:{i['sha256']}\n" for i in self.files)

    def make_parents(self) -> None:
        """The directories above, each 0755 where it is new; an existing one keeps its mode."""
        missing = []
        path = self.parent
        while not os.path.isdir(path):
            missing.append(path)
            path = os.path.dirname(path)
        for path in reversed(missing):
            os.mkdir(path)
            os.chmod(path, 0o755)  # noqa: S103 - weights are no secret, and the server runs as another user

    def make_staging(self, uid: int, gid: int) -> None:
        """The staging directory, empty or as an earlier attempt left it, writable for the user that fetches."""
        self.make_parents()
        with contextlib.suppress(FileExistsError):
            os.mkdir(self.staging, 0o750)
        os.chown(self.staging, uid, gid)

    def free_bytes(self) -> tuple[int, str]:
        """What the file system has left for it, and an existing directory on it."""
        path = self.parent
        while not os.path.isdir(path):
            path = os.path.dirname(path)
        found = os.statvfs(path)
        return found.f_bavail * found.f_frsize, path

    def room_taken(self) -> int:
        """Bytes of disk that the staging directory has already."""
        return sum(
            min(room_taken(os.path.join(self.staging, os.path.basename(item["path"]) + end)), item["size"])
            for item in self.files
            for end in ("", ".part")
        )

    def publish(self, source: str, copies: Optional[dict[str, Copy]] = None) -> None:
        """Take the staging directory from the user that filled it and rename it into place.

        A wanted file that is not in it is linked from ``copies``. Whatever is in it beyond the wanted files is thrown away; a
        wanted file must be a regular file with one name.
        """
        copies = copies or {}
        folder = os.open(self.staging, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fchown(folder, *self.owner)
            os.fchmod(folder, 0o755)
            blocks = {item["path"]: self._blocks(item) for item in self.files}
            wanted = {os.path.basename(item["path"]) for item in self.files}
            present = set(os.listdir(folder))
            for name in present - wanted:
                _remove_at(folder, name)
            details: dict[str, dict[str, Any]] = {}
            for item in self.files:
                name, copy = os.path.basename(item["path"]), copies.get(item["path"])
                linked = copy is not None and name not in present
                if copy and linked:
                    os.link(copy.path, name, dst_dir_fd=folder, follow_symlinks=False)
                details[name] = {"modified_ns": self._take(folder, name, item["size"], linked)}
                known = blocks[item["path"]] or (copy.blocks if copy else None)
                if known:
                    details[name]["blocks"] = known
            manifest = os.path.join(self.staging, MANIFEST)
            write_json(manifest, self.manifest(source, details), sync=True)
            os.chmod(manifest, 0o644)
            os.fsync(folder)
        finally:
            os.close(folder)
        old = self._set_aside()
        os.rename(self.staging, self.path)
        sync_directory(self.parent)
        if old:
            shutil.rmtree(old, ignore_errors=True)

    def _blocks(self, item: dict[str, Any]) -> Optional[list[str]]:
        """What the transfer has written down beside a file, as far as it can be true."""
        document = read_json(blocks_path(os.path.join(self.staging, os.path.basename(item["path"]))))
        return checked_document(document, item["size"], item["sha256"])

    def _take(self, folder: int, name: str, size: int, linked: bool) -> int:
        """Make a fetched file root's, for good and for all to read. Returns its modification time in nanoseconds."""
        handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        try:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode) or found.st_size != size or (found.st_nlink != 1 and not linked):
                raise StoreError(f"{self.staging}/{name} is not the file that was fetched. Remove {self.staging}, then run again.")
            os.fchown(handle, *self.owner)
            os.fchmod(handle, 0o644)
            os.fsync(handle)
            return found.st_mtime_ns
        finally:
            os.close(handle)

    def _set_aside(self) -> Optional[str]:
        """Make room where a damaged model has the name; a rename cannot replace a directory with content."""
        if not os.path.lexists(self.path):
            return None
        old = f"{self.parent}/.{self.quant}.removed"
        shutil.rmtree(old, ignore_errors=True)
        os.rename(self.path, old)
        return old

    def remove_staging(self) -> None:
        shutil.rmtree(self.staging, ignore_errors=True)

    def present(self) -> bool:
        """Whether anything of it is on the host."""
        return os.path.lexists(self.path) or os.path.lexists(self.staging)

    def remove(self) -> None:
        """Out of sight by a rename, then gone; parents that are empty after it go too."""
        self.remove_staging()
        old = self._set_aside()
        if old:
            shutil.rmtree(old)
        for path in (self.parent, os.path.dirname(self.parent)):
            with contextlib.suppress(OSError):
                os.rmdir(path)


def _remove_at(folder: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=folder)
    except IsADirectoryError:
        raise StoreError(f"There is an unexpected directory {name!r} among the fetched files. Remove it, then run again.") from None


def _checked(item: dict[str, Any]) -> dict[str, Any]:
    try:
        path = check_path(item["path"])
    except QuantError as error:
        raise StoreError(str(error)) from error
    if not path.endswith(".gguf"):
        raise StoreError(f"{path} is not a GGUF file.")
    size, sha256 = int(item["size"]), str(item["sha256"])
    if size <= 0 or not PATTERNS["sha256"].match(sha256):
        raise StoreError(f"{path} has no size or no SHA-256, so it could not be verified.")
    return {"path": path, "size": size, "sha256": sha256}
