# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads pieces of a torrent from a mirror by HTTP ranges, over one connection. A mirror is of the site, so there is no proxy on the way.

Sizes are bytes, times seconds.
"""

from __future__ import annotations

import http.client
import ssl
import time
import urllib.parse
from collections.abc import Iterator
from typing import Any, NamedTuple, Optional

from ansible_collections.onprem.llamacpp.plugins.module_utils._pace import TokenBucket
from ansible_collections.onprem.llamacpp.plugins.module_utils._torrent import Torrent

CHUNK = 2**18
LARGEST_TORRENT = 64 * 2**20


class SourceError(Exception):
    """One line for the user."""


class Mirror(NamedTuple):
    """Where a mirror answers; the token is a secret, the CA file may be empty."""

    url: str
    token: str = ""
    ca_file: str = ""
    timeout: float = 60.0


class Source:
    """One connection to a mirror, made anew when it breaks."""

    def __init__(self, mirror: Mirror, rate_limit: int = 0) -> None:
        self.mirror = mirror
        self.bucket = TokenBucket(rate_limit)
        self.parts = urllib.parse.urlsplit(mirror.url)
        self.headers = {"User-Agent": "onprem.llamacpp"}
        if mirror.token:
            self.headers["Authorization"] = f"Bearer {mirror.token}"
        self.connection: Optional[http.client.HTTPConnection] = None

    def torrent(self, repo_id: str, commit: str, quant: str) -> bytes:
        """The mirror's torrent of a quant. Raises SourceError, also where it has none."""
        path = f"/api/torrents/{repo_id}/{commit}/{quant}.torrent"
        answer = self._ask(path, {})
        if answer.status != 200:
            self.close()
            raise SourceError(f"{self.mirror.url} has no torrent of {repo_id} {quant} (HTTP {answer.status})")
        data = answer.read(LARGEST_TORRENT + 1)
        if len(data) > LARGEST_TORRENT:
            self.close()
            raise SourceError(f"{self.mirror.url}{path} is larger than any torrent")
        return data

    def pieces(self, torrent: Torrent, repo_id: str, run: list[int]) -> Iterator[tuple[int, bytes]]:
        """The pieces of a run without a gap, each as soon as it is there and is what the torrent says. Raises SourceError."""
        blocks = self._bytes(torrent, repo_id, torrent.bounds(run[0])[0], torrent.bounds(run[-1])[1])
        held = bytearray()
        for piece in run:
            begin, end = torrent.bounds(piece)
            while len(held) < end - begin:
                block = next(blocks, b"")
                if not block:
                    raise SourceError(f"{self.mirror.url} ended before piece {piece} was whole")
                held += block
            data, held = bytes(held[: end - begin]), held[end - begin :]
            if not torrent.is_piece(piece, data):
                self.close()
                raise SourceError(f"piece {piece} from {self.mirror.url} is not the torrent's")
            yield piece, data

    def _bytes(self, torrent: Torrent, repo_id: str, begin: int, end: int) -> Iterator[bytes]:
        for path, first, last in torrent.spans(begin, end):
            url = f"/{repo_id}/resolve/{torrent.commit}/{urllib.parse.quote(path)}"
            answer = self._ask(url, {"Range": f"bytes={first}-{last - 1}"})
            if answer.status != 206 or not str(answer.getheader("Content-Range")).startswith(f"bytes {first}-{last - 1}/"):
                self.close()
                raise SourceError(f"{self.mirror.url} answers {path} with HTTP {answer.status} instead of the range")
            left = last - first
            while left:
                block = self._read(answer, min(left, CHUNK))
                left -= len(block)
                yield block
                time.sleep(self.bucket.spend(len(block)))

    def _read(self, answer: http.client.HTTPResponse, count: int) -> bytes:
        try:
            block = answer.read(count)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise SourceError(f"the connection to {self.mirror.url} broke: {error}") from error
        if not block:
            self.close()
            raise SourceError(f"the answer of {self.mirror.url} ended early")
        return block

    def _ask(self, path: str, headers: dict[str, str]) -> http.client.HTTPResponse:
        """One request; a connection that the mirror has closed meanwhile is made anew once."""
        for fresh in (self.connection is None, True):
            try:
                self.connection = self.connection or self._connect()
                self.connection.request("GET", self.parts.path.rstrip("/") + path, headers={**self.headers, **headers})
                return self.connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                self.close()
                if fresh:
                    raise SourceError(f"{self.mirror.url} cannot be reached: {error}") from error
        raise AssertionError  # not reached: the second round returns or raises

    def _connect(self) -> http.client.HTTPConnection:
        host, port = str(self.parts.hostname), self.parts.port
        if self.parts.scheme == "https":
            context: Any = ssl.create_default_context(cafile=self.mirror.ca_file or None)
            return http.client.HTTPSConnection(host, port, timeout=self.mirror.timeout, context=context)
        return http.client.HTTPConnection(host, port, timeout=self.mirror.timeout)

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()
        self.connection = None
