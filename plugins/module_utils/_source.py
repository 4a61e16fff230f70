# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The HTTP side of a transfer: reaches a Hub or a mirror, and tells what may pass by itself from what may not.

Standard library only, because it is part of the program that fetches on the host. Times are seconds.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import socket
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any, NamedTuple, Optional

LONGEST_RETRY_AFTER = 900.0
PROXY_NAMES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")
CA_NAMES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
HEX64 = re.compile(r"^[0-9a-f]{64}$")
STORED = re.compile(r"^(?P<root>/.*|)/(?P<org>[^/]+)/(?P<name>[^/]+)/resolve/(?P<commit>[0-9a-f]{40})/(?P<path>.+)$")
CONTENT_RANGE = re.compile(r"^bytes (\d{1,18})-(\d{1,18})/(\d{1,18})$")


class TransferError(Exception):
    """Final: one line with the cause and what to do about it."""


class RetryableError(Exception):
    """May pass by itself. ``pause`` is what the source asked for, in seconds; 0 when it said nothing."""

    def __init__(self, message: str, pause: float = 0.0) -> None:
        super().__init__(message)
        self.pause = pause


class Options(NamedTuple):
    """How the transfer reaches its source; the token and the proxies are secrets."""

    token: str = ""
    environment: Optional[dict[str, str]] = None
    timeout: float = 60.0
    retries: int = 8  # attempts in a row that bring nothing


def file_url(endpoint: str, repo_id: str, commit: str, path: str) -> str:
    """Where the Hub, and a mirror of it, answers with the file."""
    return f"{endpoint.rstrip('/')}/{repo_id}/resolve/{commit}/{urllib.parse.quote(path)}"


def stored_file(location: str) -> str:
    """The file that a Hub's location means below a directory laid out like a host's models; an empty string when there is none."""
    location = urllib.parse.unquote(location)
    asked = STORED.match(location)
    if not asked or ".." in location.split("/"):
        return ""
    folder = os.path.join(asked["root"], f"{asked['org']}--{asked['name']}", asked["commit"])
    quants = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    paths = (os.path.join(folder, quant, os.path.basename(asked["path"])) for quant in quants if not quant.startswith("."))
    return next((path for path in paths if os.path.isfile(path)), "")


class StoredAnswer:
    """A file of a directory, as the answer to a request from ``offset`` on."""

    status = 206

    def __init__(self, location: str, offset: int) -> None:
        path = stored_file(location)
        if not path:
            raise TransferError(f"{os.path.basename(location)} is not in {location.rsplit('/resolve/', 1)[0]}, or may not be read there.")
        try:
            self.stream = open(path, "rb")  # noqa: SIM115 - closed by close()
        except OSError as error:
            raise TransferError(f"{path} cannot be read by the user that transfers: {in_a_line(error)}.") from error
        size = os.fstat(self.stream.fileno()).st_size
        self.stream.seek(offset)
        self.read = self.stream.read
        self.headers = {"Content-Range": f"bytes {offset}-{size - 1}/{size}"}

    def __enter__(self) -> StoredAnswer:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        self.stream.close()


def token_step(with_token: bool) -> str:
    """What to do about the token when a source refuses."""
    if with_token:
        return "set llama_model_token to another token, for the one given may not read it"
    return "set llama_model_token to a token that may read this repository"


def explain_status(code: int, url: str, with_token: bool) -> str:
    """The cause of a refusal that will not pass by itself, with the next step."""
    source = urllib.parse.urlsplit(url)
    shown = f"{source.scheme}://{source.hostname}{':' + str(source.port) if source.port else ''}{source.path}"
    step = token_step(with_token)
    if code == 401:
        return f"{shown} was refused (HTTP 401): the repository does not exist or is private. Check the name, then {step}."
    if code == 403:
        return f"{shown} was refused (HTTP 403). Accept the repository's terms or ask its owner for access, then {step}."
    if code in (404, 410):
        return f"{shown} does not exist (HTTP {code}). The commit is gone, or a mirror lacks it: run again with a fresh listing."
    return f"{shown} answered HTTP {code}. Try again later, or set llama_model_endpoint to a mirror."


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows the Hub to its storage without taking the token along or leaving HTTPS."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        old, new = urllib.parse.urlsplit(req.full_url), urllib.parse.urlsplit(newurl)
        if new.scheme not in ("http", "https") or (old.scheme == "https" and new.scheme != "https"):
            raise TransferError(
                f"{old.hostname} redirects to {new.scheme}://{new.hostname}, which is less safe than {old.scheme}. It was not followed."
            )
        made = super().redirect_request(req, fp, code, msg, headers, newurl)
        # The token is an unredirected header, so only the very same origin gets it again.
        if made is not None and (old.scheme, old.netloc) == (new.scheme, new.netloc) and req.has_header("Authorization"):
            made.add_unredirected_header("Authorization", req.get_header("Authorization"))
        return made


class Source:
    """Opens files of one endpoint with the proxies, the CA bundle and the token it was given."""

    def __init__(self, options: Options) -> None:
        self.options = options
        environment = options.environment or {}
        with _environment(environment):
            self.proxies = urllib.request.getproxies_environment()
        bundle = next((environment[name] for name in CA_NAMES if environment.get(name)), None)
        try:
            context = ssl.create_default_context(cafile=bundle)
        except OSError as error:
            raise TransferError(f"The CA bundle {bundle} cannot be read: {error.strerror or error}. Check llama_proxy_env.") from error
        self.environment = {name: value for name, value in environment.items() if name.lower() in PROXY_NAMES}
        self.opener = urllib.request.OpenerDirector()  # no file:, ftp: or data: handlers
        for handler in (
            urllib.request.ProxyHandler(self.proxies),
            urllib.request.HTTPHandler(),
            urllib.request.HTTPSHandler(context=context),
            _Redirects(),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPErrorProcessor(),
            urllib.request.UnknownHandler(),
        ):
            self.opener.add_handler(handler)

    def open(self, url: str, offset: int, validator: str, end: int = 0) -> Any:
        """The response from byte ``offset`` on, if the file still has ``validator`` as its ETag; else from byte 0.

        With ``end`` only the bytes before it are asked for; a source that knows no ranges offers all of them anyway.
        """
        if url.startswith("/"):
            return StoredAnswer(url, offset)
        request = urllib.request.Request(url, headers={"User-Agent": "onprem.llamacpp", "Accept-Encoding": "identity"})
        if self.options.token:
            request.add_unredirected_header("Authorization", f"Bearer {self.options.token}")
        if offset or end:
            request.add_header("Range", f"bytes={offset}-{end - 1 if end else ''}")
            if validator:
                request.add_header("If-Range", validator)
        with _environment(self.environment):  # no_proxy is looked up at every request
            try:
                return self.opener.open(request, timeout=self.options.timeout)
            except urllib.error.HTTPError as error:
                with error:
                    raise self._refusal(error, url) from None
            except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
                reason = getattr(error, "reason", error)
                if isinstance(reason, ssl.SSLCertVerificationError):
                    raise TransferError(
                        f"The certificate of {urllib.parse.urlsplit(url).hostname} is not trusted: {reason.verify_message}. "
                        "Name the CA bundle in llama_proxy_env as SSL_CERT_FILE."
                    ) from error
                raise RetryableError(
                    f"{urllib.parse.urlsplit(url).netloc} cannot be reached{self._through(url)}: {in_a_line(reason)}"
                ) from error

    def _through(self, url: str) -> str:
        """Which proxy a URL goes through, without its password, since that is what must be looked at then."""
        found = urllib.parse.urlsplit(url)
        proxy = self.proxies.get(found.scheme) or self.proxies.get("all")
        if not proxy or urllib.request.proxy_bypass(found.netloc):
            return ""
        return f" through the proxy {urllib.parse.urlsplit(proxy).netloc.rpartition('@')[2] or proxy.rpartition('@')[2]}"

    def _refusal(self, error: urllib.error.HTTPError, url: str) -> Exception:
        redirected = urllib.parse.urlsplit(error.url or url).netloc != urllib.parse.urlsplit(url).netloc
        if error.code == 416:
            return RetryableError("HTTP 416")
        if error.code in (408, 425, 429) or error.code >= 500 or (redirected and error.code in (401, 403, 404, 410)):
            # A signed URL that has expired is refused by the storage; asking the endpoint again makes a new one.
            pause = _retry_after(error.headers.get("Retry-After"))
            if pause > LONGEST_RETRY_AFTER:
                return TransferError(
                    f"{urllib.parse.urlsplit(url).netloc} asks to come back in {pause:.0f} s (HTTP {error.code}). Run again then."
                )
            return RetryableError(f"{urllib.parse.urlsplit(error.url or url).netloc} answered HTTP {error.code}", pause)
        return TransferError(explain_status(error.code, url, bool(self.options.token)))


def first_byte(response: Any, item: dict[str, Any], offset: int, endpoint: str) -> int:
    """The byte at which the answer to a request from ``offset`` on begins; refuses an answer that is about another file."""
    linked = (response.headers.get("X-Linked-ETag") or "").strip('"').lower()
    if HEX64.match(linked) and linked != item["sha256"]:
        raise TransferError(
            f"{item['path']}: {endpoint} now offers another file, sha256 {linked}, expected {item['sha256']}. "
            "Run again to plan with a fresh listing."
        )
    if response.status == 206:
        found = CONTENT_RANGE.match(response.headers.get("Content-Range") or "")
        if not found or int(found.group(1)) != offset:
            raise RetryableError(f"the source answered with the range {response.headers.get('Content-Range')!r} instead of {offset}-")
        size = int(found.group(3))
    else:
        offset = 0
        length = response.headers.get("Content-Length") or ""
        size = int(length) if length.isdecimal() and len(length) <= 18 else item["size"]
    if size != item["size"]:
        raise TransferError(
            f"{item['path']}: {endpoint} offers {size} bytes, expected {item['size']}. Run again to plan with a fresh listing."
        )
    return offset


def strong_etag(response: Any) -> str:
    """The answer's ETag, or nothing where it is weak: that does not promise the same bytes, so it cannot guard a range."""
    etag = response.headers.get("ETag") or ""
    return "" if etag.startswith("W/") else etag


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """urllib reads proxies from the process's environment only."""
    kept = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in kept.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _retry_after(value: Optional[str]) -> float:
    """Seconds from a Retry-After header; its date form counts as silence, since clocks differ."""
    return float(value) if value and value.strip().isdigit() else 0.0


def in_a_line(error: object) -> str:
    if isinstance(error, (socket.timeout, TimeoutError)):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())[:200] or type(error).__name__
