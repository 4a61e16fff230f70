# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""HTTP with connections that are kept, through proxies where they are set, for many threads at a time.

Standard library only, because it is part of the program that fetches on the host. Times are seconds.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import select
import socket
import ssl
import urllib.parse
import urllib.request
from typing import Any, Optional

PROXY_NAMES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")
CA_NAMES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
# What a server that has closed a kept connection in the meantime looks like.
STALE = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError, http.client.BadStatusLine)


class TransferError(Exception):
    """Final: one line with the cause and what to do about it."""


class RetryableError(Exception):
    """May pass by itself. ``pause`` is what the source asked for, in seconds; 0 when it said nothing."""

    def __init__(self, message: str, pause: float = 0.0) -> None:
        super().__init__(message)
        self.pause = pause


def in_a_line(error: object) -> str:
    if isinstance(error, (socket.timeout, TimeoutError)):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())[:200] or type(error).__name__


def origin(url: str) -> tuple[str, str]:
    found = urllib.parse.urlsplit(url)
    return found.scheme, found.netloc


def proxies_of(environment: dict[str, str]) -> dict[str, str]:
    """Proxies by scheme, and ``no``; the name in small letters wins, as everywhere else."""
    found: dict[str, str] = {}
    for small in (False, True):
        for name, value in environment.items():
            if name.lower().endswith("_proxy") and name.islower() == small and value:
                found[name.lower()[: -len("_proxy")]] = value
    return found


class Client:
    """The proxies, the CA bundle and the patience with which servers are asked."""

    def __init__(self, environment: dict[str, str], timeout: float) -> None:
        self.timeout = timeout
        self.proxies = proxies_of({**os.environ, **environment})
        bundle = next((environment[name] for name in CA_NAMES if environment.get(name)), None)
        try:
            self.context = ssl.create_default_context(cafile=bundle)
        except OSError as error:
            raise TransferError(f"The CA bundle {bundle} cannot be read: {error.strerror or error}. Check llama_proxy_env.") from error

    def proxy(self, scheme: str, netloc: str) -> Optional[urllib.parse.SplitResult]:
        found = self.proxies.get(scheme) or self.proxies.get("all")
        if not found or urllib.request.proxy_bypass_environment(netloc, self.proxies):  # type: ignore[attr-defined]
            return None
        return urllib.parse.urlsplit(found if "://" in found else f"http://{found}")

    def connect(self, scheme: str, netloc: str) -> http.client.HTTPConnection:
        """A connection that is opened by its first request."""
        proxy = self.proxy(scheme, netloc)
        near = proxy or urllib.parse.urlsplit(f"//{netloc}")
        if not near.hostname:
            raise TransferError(f"{scheme}://{netloc} names no host.")
        if scheme == "http":
            return http.client.HTTPConnection(near.hostname, near.port or 80, timeout=self.timeout)
        port = near.port or (80 if proxy else 443)
        made = http.client.HTTPSConnection(near.hostname, port, timeout=self.timeout, context=self.context)
        if proxy:
            far = urllib.parse.urlsplit(f"//{netloc}")
            made.set_tunnel(str(far.hostname), far.port or 443, headers=proxy_authorization(proxy))
        return made

    def explain(self, scheme: str, netloc: str, error: object) -> Exception:
        """Why a server could not be asked; the proxy is named without its password, since it is what must be looked at then."""
        if isinstance(error, ssl.SSLCertVerificationError):
            return TransferError(
                f"The certificate of {netloc} is not trusted: {error.verify_message}. Name the CA bundle in llama_model_ca_file, "
                "or in llama_proxy_env as SSL_CERT_FILE."
            )
        proxy = self.proxy(scheme, netloc)
        through = f" through the proxy {proxy.netloc.rpartition('@')[2]}" if proxy else ""
        return RetryableError(f"{netloc} cannot be reached{through}: {in_a_line(error)}")


def proxy_authorization(proxy: urllib.parse.SplitResult) -> dict[str, str]:
    if not proxy.username:
        return {}
    pair = f"{urllib.parse.unquote(proxy.username)}:{urllib.parse.unquote(proxy.password or '')}"
    return {"Proxy-Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


class Answer:
    """A response, whose body is read once and in order. Reading raises RetryableError when the connection breaks."""

    def __init__(self, link: Link, response: http.client.HTTPResponse, url: str, owns_link: bool) -> None:
        self.link, self.response, self.url, self.owns_link = link, response, url, owns_link
        self.status, self.headers = response.status, response.headers
        self.linked = ""  # the ETag of what a redirect on the way pointed to
        length = self.headers.get("Content-Length") or ""
        self.left = int(length) if length.isdecimal() and len(length) <= 18 and not response.chunked else -1
        self.drained = False  # nothing of the body lies in http.client's own buffer

    def read_into(self, view: memoryview) -> int:
        """What one read of the socket brings, at most as much as fits; 0 at the end of the body."""
        if self.left == 0:
            return 0
        try:
            if self.left < 0 or self.response.fp is None:
                data = self.response.read1(len(view))
                view[: len(data)] = data
                return len(data)
            # HTTPResponse.readinto() waits until all of the view is full, which hides a source that drips.
            asked = view[: self.left]
            count = self.response.fp.readinto1(asked)
            self.drained = count < len(asked)
        except (http.client.HTTPException, OSError, ValueError, AttributeError) as error:
            # The last two: another thread has closed the connection.
            raise RetryableError(f"the connection broke: {in_a_line(error)}") from error
        self.left -= count
        return int(count)

    def spliceable(self) -> bool:
        """Whether the rest of the body is what comes out of the socket, once reads have brought what came along with the headers."""
        return self.drained and self.left > 0 and self.url.startswith("http://")

    def splice_into(self, pipe: int, most: int) -> Optional[int]:
        """As ``read_into``, to a pipe; None when nothing more goes into it."""
        try:
            source = self.response.fileno()
            waiting = select.poll()
            waiting.register(source, select.POLLIN)
            if not waiting.poll(self.link.client.timeout * 1000):
                raise TimeoutError
            count = os.splice(source, pipe, min(most, self.left), flags=os.SPLICE_F_NONBLOCK)
        except BlockingIOError:
            return None
        except (OSError, ValueError, AttributeError) as error:
            raise RetryableError(f"the connection broke: {in_a_line(error)}") from error
        self.left -= count
        return count

    def read(self, size: int) -> bytes:
        """The next bytes, as many as asked for unless the body ends."""
        buffer = bytearray(size)
        view, filled = memoryview(buffer), 0
        while filled < size:
            count = self.read_into(view[filled:])
            if not count:
                break
            filled += count
        return bytes(view[:filled])

    def close(self) -> None:
        whole = self.left == 0
        with contextlib.suppress(OSError):
            self.response.close()
        if not whole or self.owns_link:
            self.link.close()

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


class Link:
    """One connection, kept from request to request as long as they go to the same server."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.origin: tuple[str, str] = ("", "")
        self.connection: Optional[http.client.HTTPConnection] = None

    def get(self, url: str, headers: dict[str, str], owns_link: bool = False) -> Answer:
        """One request; a redirect is an answer like any other. Raises RetryableError and TransferError."""
        scheme, netloc = origin(url)
        if (scheme, netloc) != self.origin:
            self.close()
        found = urllib.parse.urlsplit(url)
        target = urllib.parse.urlunsplit(("", "", found.path or "/", found.query, ""))
        proxy = self.client.proxy(scheme, netloc)
        if proxy and scheme == "http":
            target, headers = url, {**headers, **proxy_authorization(proxy)}
        for kept in (self.connection is not None, False):
            try:
                if self.connection is None:
                    self.connection, self.origin = self.client.connect(scheme, netloc), (scheme, netloc)
                self.connection.request("GET", target, headers=headers)
                return Answer(self, self.connection.getresponse(), url, owns_link)
            except (http.client.HTTPException, OSError, ValueError, AttributeError) as error:
                self.close()
                if not (kept and isinstance(error, STALE)):
                    raise self.client.explain(scheme, netloc, error) from error
        raise AssertionError("the second attempt returns or raises")

    def abort(self) -> None:
        """Ends a read that another thread is waiting in."""
        with contextlib.suppress(OSError, AttributeError):
            self.connection.sock.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]

    def close(self) -> None:
        connection: Any = self.connection
        self.connection = None
        if connection is not None:
            connection.close()
