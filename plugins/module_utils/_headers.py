# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the headers of a quant's shards, all at the same time: over HTTP by ranges, from a directory, or from a cache.

Used on the controller. Sizes are bytes, times are seconds.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Optional, Union

from ansible_collections.onprem.llamacpp.plugins.module_utils._gguf import Budget, GgufError, Header, read_header
from ansible_collections.onprem.llamacpp.plugins.module_utils._http import in_a_line
from ansible_collections.onprem.llamacpp.plugins.module_utils._profile import profile
from ansible_collections.onprem.llamacpp.plugins.module_utils._quant import check_path
from ansible_collections.onprem.llamacpp.plugins.module_utils._source import (
    RetryableError,
    Source,
    TransferError,
    file_url,
    first_byte,
    strong_etag,
)

BLOCK = 256 * 2**10
THREADS = 16
LONGEST_PAUSE = 30.0


class HeaderError(Exception):
    """A directory that cannot be used, in one line: the one with the files, or the one of the cache."""


class RemoteFile:
    """One file of a repository. A source that knows no ranges is read as one stream, and only as far as is wanted."""

    def __init__(self, source: Source, endpoint: str, url: str, item: dict[str, Any], pause: Callable[[float], None] = time.sleep) -> None:
        self.source = source
        self.endpoint = endpoint
        self.url = url
        self.item = item
        self.pause = pause
        self.etag = ""
        self.response: Any = None
        self.position = 0  # of the response

    def fetch(self, begin: int, end: int) -> Iterator[bytes]:
        """The bytes from ``begin`` up to ``end``. Raises TransferError after too many attempts that brought nothing."""
        failures = 0
        while begin < end:
            try:
                for block in self._attempt(begin, end):
                    begin += len(block)
                    failures = 0
                    yield block
            except RetryableError as error:
                failures += 1
                if failures > self.source.options.retries or error.pause > LONGEST_PAUSE:
                    asked = f" and asks to come back in {error.pause:.0f} s" if error.pause else ""
                    raise TransferError(
                        f"The header of {self.item['path']} cannot be read: {error}{asked} "
                        f"(attempt {failures} of {self.source.options.retries + 1}). Check that {self.endpoint} is up and reachable "
                        "from the controller (llama_proxy_env, llama_model_endpoint)."
                    ) from error
                self.pause(error.pause or min(2.0 ** (failures - 1), 8.0))

    def _attempt(self, begin: int, end: int) -> Iterator[bytes]:
        """One request, or what comes next of the stream. Raises RetryableError when it ends early."""
        try:
            if self.response is None:
                self._open(begin, end)
            while self.position < end:
                behind = self.position < begin  # an answer from byte 0 on, when more was held already
                block = self.response.read(min(BLOCK, (begin if behind else end) - self.position))
                if not block:
                    raise RetryableError(f"the answer ended after {self.position} bytes")
                self.position += len(block)
                if not behind:
                    yield block
            if self.response.status == 206:
                self.close()
        except RetryableError:
            self.close()
            raise

    def _open(self, begin: int, end: int) -> None:
        self.response = self.source.open(self.url, begin, self.etag, end)
        self.position = first_byte(self.response, self.item, begin, self.endpoint)
        etag = strong_etag(self.response)
        if self.etag and etag != self.etag:
            raise TransferError(f"{self.item['path']} at {self.endpoint} changed while its header was read. Run again.")
        self.etag = etag

    def close(self) -> None:
        """End the request under way, so that the rest of the file does not come."""
        if self.response is not None:
            self.response.close()
            self.response = None


class LocalFile:
    """One file that is there."""

    def __init__(self, path: str) -> None:
        try:
            self.stream = open(path, "rb")  # noqa: SIM115 - closed by close()
        except OSError as error:
            raise HeaderError(f"{path} cannot be read: {in_a_line(error)}.") from error

    def fetch(self, begin: int, end: int) -> Iterator[bytes]:
        """The bytes from ``begin`` up to ``end``, fewer where the file ends."""
        self.stream.seek(begin)
        while begin < end:
            block = self.stream.read(min(BLOCK, end - begin))
            if not block:
                return
            begin += len(block)
            yield block

    def close(self) -> None:
        self.stream.close()


Opened = Union[RemoteFile, LocalFile]


def default_cache() -> str:
    """The user's own cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or ""
    return os.path.join(base if os.path.isabs(base) else os.path.expanduser("~/.cache"), "onprem-llamacpp", "headers")


class HeaderCache:
    """Headers of one commit as files: ``<path in the repository>.header`` with a ``.json`` beside it that vouches for it."""

    def __init__(self, root: str, repo_id: str, commit: str) -> None:
        self.folder = os.path.join(root, repo_id.replace("/", "--"), commit)

    def path(self, item: dict[str, Any]) -> str:
        return os.path.join(self.folder, check_path(item["path"]) + ".header")

    def load(self, item: dict[str, Any]) -> Optional[bytes]:
        """The header as it was saved; None when it is not there, is damaged, or was another file's."""
        try:
            with open(self.path(item) + ".json", "rb") as stream:
                voucher = stream.read(4096)
            with open(self.path(item), "rb") as stream:
                data = stream.read()
        except OSError:
            return None
        return data if voucher == self._voucher(item, data) else None

    def save(self, item: dict[str, Any], data: Union[bytes, bytearray]) -> None:
        """Keep a header. Each file appears whole or not at all, also when two runs write the same one. Raises HeaderError."""
        path = self.path(item)
        try:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            _replace(path, data)
            _replace(path + ".json", self._voucher(item, data))
        except OSError as error:
            raise HeaderError(f"The cache {self.folder} cannot be written: {in_a_line(error)}. Set cache_dir to another folder.") from error

    @staticmethod
    def _voucher(item: dict[str, Any], data: Union[bytes, bytearray]) -> bytes:
        found = {"size": item["size"], "sha256": item["sha256"], "header_sha256": hashlib.sha256(data).hexdigest()}
        return json.dumps(found, sort_keys=True).encode()


def _replace(path: str, data: Union[bytes, bytearray]) -> None:
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".new-")
    try:
        with open(handle, "wb") as stream:
            stream.write(data)
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.remove(temporary)
        raise


def read_profile(files: list[dict[str, Any]], opened: Callable[[dict[str, Any]], Opened], cache: HeaderCache) -> dict[str, Any]:
    """The summary of the quant that ``files``, ``{path, size, sha256}`` in shard order, make up.

    ``opened`` opens one of them where it is not in the cache. Raises GgufError, TransferError and HeaderError.
    """
    budget = Budget()

    def read(item: dict[str, Any]) -> tuple[Header, int]:
        held = cache.load(item)
        if held is not None:
            with contextlib.suppress(GgufError):  # a header that another release of this collection accepted
                return _read_held(held, item, budget)
        with contextlib.closing(opened(item)) as file:
            header, data = read_header(file.fetch, item["size"], item["path"], budget)
        cache.save(item, data)
        return header, len(data)

    with ThreadPoolExecutor(max_workers=min(THREADS, len(files))) as pool:
        futures = [pool.submit(read, item) for item in files]
        try:
            found = [future.result() for future in futures]
        except Exception:
            for future in futures:
                future.cancel()
            raise
    records = [
        {"path": item["path"], "size": item["size"], "header_bytes": count, "header": cache.path(item)}
        for item, (_header, count) in zip(files, found)
    ]
    return profile(records, [header for header, _count in found])


def _read_held(held: bytes, item: dict[str, Any], budget: Budget) -> tuple[Header, int]:
    header, data = read_header(lambda begin, end: [held[begin:end]], item["size"], item["path"], budget)
    return header, len(data)


def remote_files(source: Source, endpoint: str, repo_id: str, commit: str) -> Callable[[dict[str, Any]], Opened]:
    """How the files of a repository at one commit are opened."""
    return lambda item: RemoteFile(source, endpoint, file_url(endpoint, repo_id, commit, item["path"]), item)


def local_files(directory: str) -> Callable[[dict[str, Any]], Opened]:
    """How the files of a directory are opened."""
    return lambda item: LocalFile(os.path.join(directory, item["path"]))


def scan(directory: str) -> tuple[str, list[dict[str, Any]]]:
    """The files of a directory as a listing without hashes, and 40 hex digits that change when one of them does.

    Links to files count as files, names that begin with a dot do not. Raises HeaderError.
    """
    if not os.path.isdir(directory):
        raise HeaderError(f"The directory {directory} does not exist on the controller.")
    files, states = [], []
    try:
        for top, folders, names in os.walk(directory, onerror=_refuse):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(names):
                source = os.path.join(top, name)
                if name.startswith(".") or not os.path.isfile(source):
                    continue
                found = os.stat(source)
                path = os.path.relpath(source, directory)
                files.append({"path": path, "size": found.st_size, "sha256": None})
                states.append([path, found.st_size, found.st_mtime_ns, found.st_ino])
    except OSError as error:
        raise HeaderError(f"The directory {directory} cannot be read: {in_a_line(error)}.") from error
    state = json.dumps([os.path.realpath(directory), states])
    return hashlib.sha256(state.encode()).hexdigest()[:40], files


def _refuse(error: OSError) -> None:
    raise error
