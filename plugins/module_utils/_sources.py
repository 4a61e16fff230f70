# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The transports: a Hub or a mirror over HTTP, a directory, the copy that is already published. All are read the same way.

A source has a ``label`` for people, a ``key`` for the journal and ``streams``, the number of connections that are of use. Its links
open a file ``{path, size, sha256}`` from one byte on up to another. Sizes are bytes.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import Any, Optional, Union

from ansible_collections.onprem.llamacpp.plugins.module_utils._blocks import checked_document
from ansible_collections.onprem.llamacpp.plugins.module_utils._http import Answer, RetryableError, TransferError, in_a_line
from ansible_collections.onprem.llamacpp.plugins.module_utils._source import (
    Options,
    Source,
    explain_file,
    file_url,
    first_byte,
    last_byte,
    strong_etag,
)

MANY = 1 << 16


class Body:
    """Bytes of a file, from ``begin`` on up to ``end``. ``ranged`` is false when the source knows no ranges."""

    def __init__(self, reader: Any, begin: int, end: int, etag: str = "", ranged: bool = True) -> None:
        self.reader, self.begin, self.end, self.etag, self.ranged = reader, begin, end, etag, ranged

    def read_into(self, view: memoryview) -> int:
        return int(self.reader.read_into(view))

    def spliceable(self) -> bool:
        return isinstance(self.reader, Answer) and self.reader.spliceable()

    def splice_into(self, pipe: int, most: int) -> Optional[int]:
        return self.reader.splice_into(pipe, most)

    def __enter__(self) -> Body:
        return self

    def __exit__(self, *_error: object) -> None:
        self.reader.close()


class HubSource:
    """A Hub or a mirror of one."""

    streams = MANY
    published = False

    def __init__(self, url: str, repo_id: str, commit: str, options: Options) -> None:
        self.label = self.key = url.rstrip("/")
        self.repo_id, self.commit = repo_id, commit
        self.source = Source(options)

    def link(self) -> HubLink:
        return HubLink(self)

    def blocks(self, item: dict[str, Any]) -> Optional[list[str]]:
        """The digests of a file's blocks, where the source knows them."""
        found = self.source.document(f"{self.label}/api/blocks/{item['sha256']}.json")
        return checked_document(found, item["size"], item["sha256"])


class HubLink:
    """One connection to a Hub."""

    def __init__(self, hub: HubSource) -> None:
        self.hub = hub
        self.link = hub.source.link()

    def open(self, item: dict[str, Any], begin: int, end: int, etag: str) -> Body:
        """Raises RetryableError and TransferError. With ``end`` 0 the whole file is asked for, as one stream."""
        url = file_url(self.hub.label, self.hub.repo_id, self.hub.commit, item["path"])
        answer: Answer = self.hub.source.open(url, begin, etag, end, self.link)
        try:
            first = first_byte(answer, item, begin, self.hub.label)
            ranged = answer.status == 206
            last = last_byte(answer, end) if ranged else item["size"]
        except (RetryableError, TransferError):
            answer.close()
            raise
        return Body(answer, first, last, strong_etag(answer), ranged)

    def abort(self) -> None:
        self.link.abort()

    def close(self) -> None:
        self.link.close()


class PathSource:
    """Files below a directory; or one file, the published copy that is to be repaired."""

    streams = 1  # what is read in order is read fastest

    def __init__(self, path: str, repo_id: str, commit: str, quant: str, published: bool = False) -> None:
        self.label = self.key = path
        self.below = os.path.join(repo_id.replace("/", "--"), commit, quant)
        self.published = published

    def candidates(self, path: str) -> list[str]:
        """Where a file of the repository may lie: as in the repository, all in one folder, or as in a store of models."""
        if self.published:
            return [self.label]
        name = os.path.basename(path)
        return list(dict.fromkeys(os.path.join(self.label, place) for place in (path, name, os.path.join(self.below, name))))

    def link(self) -> PathLink:
        return PathLink(self)

    def blocks(self, _item: dict[str, Any]) -> Optional[list[str]]:
        return None


class PathLink:
    """Nothing is kept open between two reads."""

    def __init__(self, source: PathSource) -> None:
        self.source = source

    def open(self, item: dict[str, Any], begin: int, end: int, _etag: str) -> Body:
        reasons = []
        for path in self.source.candidates(item["path"]):
            try:
                handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError as error:
                reasons.append(f"{path}: {in_a_line(error)}")
                continue
            found = os.fstat(handle)
            if stat.S_ISREG(found.st_mode) and found.st_size == item["size"]:
                return Body(PathReader(handle, begin, end or item["size"]), begin, end or item["size"])
            os.close(handle)
            reasons.append(f"{path}: {found.st_size} bytes instead of {item['size']}")
        raise TransferError(explain_file(item["path"], self.source.label, reasons))

    def abort(self) -> None:
        """A read of a file ends by itself."""

    def close(self) -> None:
        """See above."""


class PathReader:
    """Reads an open file in order."""

    def __init__(self, handle: int, begin: int, end: int) -> None:
        self.handle, self.position, self.end = handle, begin, end

    def read_into(self, view: memoryview) -> int:
        try:
            count = os.preadv(self.handle, [view[: max(self.end - self.position, 0)]], self.position)
        except OSError as error:
            raise RetryableError(f"it cannot be read: {in_a_line(error)}") from error
        self.position += count
        return count

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self.handle)


AnySource = Union[HubSource, PathSource]
AnyLink = Union[HubLink, PathLink]


def sources_of(job: dict[str, Any], private: dict[str, Any]) -> list[AnySource]:
    """The sources of a job in their order; ``private`` has ``{tokens: {url: token}, environment}``."""
    made: list[AnySource] = []
    for entry in job["sources"]:
        if entry["transport"] == "directory":
            made.append(PathSource(entry["url"], job["repo_id"], job["commit"], job.get("quant", "")))
            continue
        options = Options(
            token=str((private.get("tokens") or {}).get(entry["url"]) or ""),
            environment={str(name): str(value) for name, value in (private.get("environment") or {}).items()},
            timeout=float(job.get("timeout") or 60.0),
            retries=int(job.get("retries", 8)),
        )
        made.append(HubSource(entry["url"], job["repo_id"], job["commit"], options))
    return made
