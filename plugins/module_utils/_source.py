# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The HTTP side of a transfer: reaches a Hub or a mirror, and tells what may pass by itself from what may not.

Standard library only, because it is part of the program that fetches on the host. Times are seconds.
"""

from __future__ import annotations

import json
import re
import threading
import urllib.parse
from typing import Any, NamedTuple, Optional

from ansible_collections.onprem.llamacpp.plugins.module_utils._http import Answer, Client, Link, RetryableError, TransferError, origin

LONGEST_RETRY_AFTER = 900.0
LARGEST_DOCUMENT = 16 * 2**20
HEX64 = re.compile(r"^[0-9a-f]{64}$")
CONTENT_RANGE = re.compile(r"^bytes (\d{1,18})-(\d{1,18})/(\d{1,18})$")
REDIRECTS = (301, 302, 303, 307, 308)
MOST_REDIRECTS = 10


class Options(NamedTuple):
    """How the transfer reaches its source; the token and the proxies are secrets."""

    token: str = ""
    environment: Optional[dict[str, str]] = None
    timeout: float = 60.0
    retries: int = 8  # attempts in a row that bring nothing


def file_url(endpoint: str, repo_id: str, commit: str, path: str) -> str:
    """Where the Hub, and a mirror of it, answers with the file."""
    return f"{endpoint.rstrip('/')}/{repo_id}/resolve/{commit}/{urllib.parse.quote(path)}"


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


def explain_file(path: str, directory: str, reasons: list[str]) -> str:
    """A directory that does not hold a file."""
    return (
        f"{path} is not in {directory} ({'; '.join(reasons)}). Put the model's files there, readable for all, or leave the directory out."
    )


class Source:
    """Opens files of one endpoint with the proxies, the CA bundle and the token it was given."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.client = Client(options.environment or {}, options.timeout)
        self.targets: dict[str, str] = {}  # where the endpoint redirected to, good until it is refused there
        self.lock = threading.Lock()

    def link(self) -> Link:
        return Link(self.client)

    def open(self, url: str, offset: int, validator: str, end: int = 0, link: Optional[Link] = None) -> Answer:
        """The response from byte ``offset`` on, if the file still has ``validator`` as its ETag; else from byte 0.

        With ``end`` only the bytes before it are asked for; a source that knows no ranges offers all of them anyway.
        """
        headers = {"User-Agent": "onprem.llamacpp", "Accept-Encoding": "identity"}
        if offset or end:
            headers["Range"] = f"bytes={offset}-{end - 1 if end else ''}"
            if validator:
                headers["If-Range"] = validator
        with self.lock:
            target = self.targets.get(url, url)
        answer = self._follow(link or self.link(), url, target, headers, link is None)
        if target != url and answer.status in (401, 403, 404, 410):
            # A signed URL that has expired is refused by the storage; asking the endpoint again makes a new one.
            answer.close()
            with self.lock:
                self.targets.pop(url, None)
            answer = self._follow(link or self.link(), url, url, headers, link is None)
        if answer.status not in (200, 206):
            answer.close()
            raise self._refusal(answer, url)
        if answer.url != url:
            with self.lock:
                self.targets[url] = answer.url
        return answer

    def _follow(self, link: Link, url: str, target: str, headers: dict[str, str], owns_link: bool) -> Answer:
        """Follows the Hub to its storage without taking the token along or leaving HTTPS."""
        linked = ""
        for _redirect in range(MOST_REDIRECTS):
            own = {"Authorization": f"Bearer {self.options.token}"} if self.options.token and origin(target) == origin(url) else {}
            answer = link.get(target, {**headers, **own}, owns_link)
            # The Hub says what it points to beside the redirect; the storage behind it does not know.
            linked = answer.linked = answer.headers.get("X-Linked-ETag") or linked
            if answer.status not in REDIRECTS:
                return answer
            place = urllib.parse.urljoin(target, answer.headers.get("Location") or "")
            answer.close()
            old, new = urllib.parse.urlsplit(target), urllib.parse.urlsplit(place)
            if new.scheme not in ("http", "https") or (old.scheme == "https" and new.scheme != "https"):
                raise TransferError(
                    f"{old.hostname} redirects to {new.scheme}://{new.hostname}, which is less safe than {old.scheme}. It was not followed."
                )
            target = urllib.parse.quote(place, safe="%/:=&?~#+!$,;'@()*[]")
        raise TransferError(f"{origin(url)[1]} redirects without end. Check llama_model_endpoint.")

    def _refusal(self, answer: Answer, url: str) -> Exception:
        redirected = origin(answer.url)[1] != origin(url)[1]
        code = answer.status
        if code == 416:
            return RetryableError("HTTP 416")
        if code in (408, 425, 429) or code >= 500 or (redirected and code in (401, 403, 404, 410)):
            pause = _retry_after(answer.headers.get("Retry-After"))
            if pause > LONGEST_RETRY_AFTER:
                return TransferError(f"{origin(url)[1]} asks to come back in {pause:.0f} s (HTTP {code}). Run again then.")
            return RetryableError(f"{origin(answer.url)[1]} answered HTTP {code}", pause)
        return TransferError(explain_status(code, url, bool(self.options.token)))

    def document(self, url: str) -> Any:
        """A JSON document, or None where there is none to be had for whatever reason."""
        try:
            with self.open(url, 0, "") as answer:
                return json.loads(answer.read(LARGEST_DOCUMENT))
        except (TransferError, RetryableError, ValueError):
            return None


def first_byte(response: Answer, item: dict[str, Any], offset: int, endpoint: str) -> int:
    """The byte at which the answer to a request from ``offset`` on begins; refuses an answer that is about another file."""
    linked = response.linked.strip('"').lower()
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


def last_byte(response: Answer, end: int) -> int:
    """The byte behind the last one of an answer with a range; a source may send less than it was asked for, never more."""
    found = CONTENT_RANGE.match(response.headers.get("Content-Range") or "")
    last = int(found.group(2)) + 1 if found else 0
    if last > end:
        raise RetryableError(f"the source answered with the range {response.headers.get('Content-Range')!r} instead of one up to {end - 1}")
    return last


def strong_etag(response: Answer) -> str:
    """The answer's ETag, or nothing where it is weak: that does not promise the same bytes, so it cannot guard a range."""
    etag = response.headers.get("ETag") or ""
    return "" if etag.startswith("W/") else etag


def _retry_after(value: Optional[str]) -> float:
    """Seconds from a Retry-After header; its date form counts as silence, since clocks differ."""
    return float(value) if value and value.strip().isdecimal() else 0.0
