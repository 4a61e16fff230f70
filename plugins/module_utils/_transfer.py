# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings the files of a model into a staging directory: resumable, every byte under a SHA-256.

With ``_source`` it is also the program of the transient unit that does the transfer as an unprivileged user, so it
needs nothing but the standard library. Sizes are bytes, times are seconds.

A job is ``{endpoint, repo_id, commit, files: [{path, size, sha256}], staging, retries, timeout}``. A file that is whole
and verified lies in the staging directory under its own name; one under way is ``<name>.part`` beside ``<name>.part.json``,
which says what it was fetched from. ``status.json`` tells how far things are.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import random
import stat
import sys
import time
from typing import Any, BinaryIO, Callable

from ansible_collections.onprem.llamacpp.plugins.module_utils._source import (
    Options,
    RetryableError,
    Source,
    TransferError,
    file_url,
    first_byte,
    in_a_line,
    strong_etag,
)

STATUS = "status.json"
CHUNK = 1024 * 1024
SYNC_BYTES = 256 * 1024 * 1024  # what a power cut may cost
STATUS_SECONDS = 1.0
RATE_SECONDS = 15.0
BACKOFF_SECONDS = 1.0
LONGEST_PAUSE = 60.0


def read_json(path: str, limit: int = 16 * CHUNK) -> dict[str, Any]:
    """A JSON object from a regular file that is no link; an empty one when there is none or it is garbled."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(handle, "rb") as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                return {}
            document = json.loads(stream.read(limit))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def write_json(path: str, document: dict[str, Any], mode: int = 0o644) -> None:
    """Replace ``path`` at once, so that a reader sees the old document or the new one."""
    handle = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with open(handle, "w", encoding="utf-8") as stream:
        json.dump(document, stream, ensure_ascii=False, sort_keys=True)
    os.replace(path + ".new", path)


def sync_directory(path: str) -> None:
    """Make the names in a directory survive a power cut."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def size_of(path: str) -> int:
    """Bytes of a regular file; 0 for everything else, links too."""
    try:
        found = os.lstat(path)
    except OSError:
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def bytes_present(staging: str, files: list[dict[str, Any]]) -> int:
    """What of ``files`` is in the staging directory already, whole or in part."""
    total = 0
    for item in files:
        whole = os.path.join(staging, os.path.basename(item["path"]))
        total += min(size_of(whole) or size_of(whole + ".part"), item["size"])
    return total


def boot_id() -> str:
    """Changes with every boot, so that what was written before a crash is not taken for what is on disk."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
            return stream.read().strip()
    except OSError:
        return ""


class Progress:
    """Counts bytes and keeps ``status.json`` fresh for whoever watches."""

    def __init__(self, staging: str, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.path = os.path.join(staging, STATUS)
        self.total = total
        self.clock = clock
        self.done = 0
        self.fetched = 0  # over the wire by this process
        self.file = ""
        self.note = ""
        self.samples: list[tuple[float, int]] = [(clock(), 0)]

    def add(self, count: int, fetched: bool) -> None:
        self.done += count
        if fetched:
            self.fetched += count
        if self.clock() - self.samples[-1][0] >= STATUS_SECONDS:
            self.write("running")

    def rate(self) -> float:
        """Bytes a second over the last seconds, by a clock that nobody sets."""
        elapsed = self.samples[-1][0] - self.samples[0][0]
        return (self.samples[-1][1] - self.samples[0][1]) / elapsed if elapsed > 0 else 0.0

    def write(self, state: str, error: str = "") -> None:
        now = self.clock()
        self.samples.append((now, self.fetched))
        while len(self.samples) > 2 and now - self.samples[0][0] > RATE_SECONDS:
            self.samples.pop(0)
        rate = int(self.rate())
        left = self.total - self.done
        with contextlib.suppress(OSError):  # a full disk must not hide the reason for stopping
            write_json(
                self.path,
                {
                    "state": state,
                    "error": error,
                    "note": self.note,
                    "file": self.file,
                    "bytes_done": self.done,
                    "bytes_total": self.total,
                    "bytes_fetched": self.fetched,
                    "rate": rate,
                    "eta_seconds": int(left / rate) if rate else None,
                },
            )


class Fetcher:
    """Fetches the files of one job, one after the other."""

    def __init__(self, job: dict[str, Any], options: Options, pause: Callable[[float], None] = time.sleep) -> None:
        self.job = job
        self.staging = job["staging"]
        self.options = options
        self.source = Source(options)
        self.pause = pause
        self.progress = Progress(self.staging, sum(item["size"] for item in job["files"]))

    def run(self) -> None:
        """Fetch what is missing. Raises TransferError; what has arrived by then stays for the next attempt."""
        self.progress.write("running")
        try:
            for item in self.job["files"]:
                self.progress.file = item["path"]
                self._file(item)
            sync_directory(self.staging)
        except OSError as error:
            message = f"{self.staging} cannot be written: {in_a_line(error)}."
            if error.errno == 28:  # ENOSPC
                left = self.progress.total - self.progress.done
                message = f"No space left in {self.staging}: {left} bytes are still to come. Free that much, then run again."
            self.progress.write("failed", message)
            raise TransferError(message) from error
        except TransferError as error:
            self.progress.write("failed", str(error))
            raise
        self.progress.write("done")

    def _file(self, item: dict[str, Any]) -> None:
        whole = os.path.join(self.staging, os.path.basename(item["path"]))
        part = whole + ".part"
        if size_of(whole) == item["size"]:
            self.progress.add(item["size"], fetched=False)  # its name says that it was verified
            return
        resumed = self._until_whole(item, part)
        digest = self.digest.hexdigest()
        if digest != item["sha256"] and resumed:
            # What was there before may have been the damage, so one clean attempt tells the source's fault from ours.
            self.progress.note = f"{item['path']} did not match after resuming and is fetched again"
            self._discard(part, item["size"])
            self._until_whole(item, part)
            digest = self.digest.hexdigest()
        if digest != item["sha256"]:
            self._discard(part, item["size"])
            raise TransferError(
                f"{item['path']} from {self.job['endpoint']} is not the published file: sha256 {digest}, expected {item['sha256']}. "
                "It was removed and nothing was published. Repair the source, or set llama_model_endpoint to another one."
            )
        os.rename(part, whole)
        with contextlib.suppress(FileNotFoundError):
            os.remove(part + ".json")
        sync_directory(self.staging)

    def _discard(self, part: str, counted: int) -> None:
        self.progress.done -= counted
        for path in (part, part + ".json"):
            with contextlib.suppress(FileNotFoundError):
                os.remove(path)

    def _until_whole(self, item: dict[str, Any], part: str) -> bool:
        """Attempt until the part has its full size and is on disk. Returns whether earlier bytes were kept."""
        failures = 0
        url = file_url(self.job["endpoint"], self.job["repo_id"], self.job["commit"], item["path"])
        journal = self._journal(part, url, item)
        with open(os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644), "r+b") as stream:
            kept = self._load(stream, item["size"])
            resumed = kept > 0
            while stream.tell() < item["size"]:
                before = stream.tell()
                try:
                    self._attempt(url, item, stream, part, journal)
                except RetryableError as error:
                    failures = 0 if stream.tell() > before else failures + 1
                    if failures > self.options.retries:
                        raise TransferError(
                            f"{item['path']}: {error}. {failures} attempts in a row brought nothing. "
                            f"Check that {self.job['endpoint']} is up and reachable "
                            "from this host (llama_proxy_env, llama_model_endpoint), then run again: it goes on from here."
                        ) from error
                    self.progress.note = str(error)
                    self.progress.write("running")
                    self.pause(error.pause or min(BACKOFF_SECONDS * 2**failures, LONGEST_PAUSE) * random.uniform(0.8, 1.2))  # noqa: S311
                    resumed = resumed or stream.tell() > 0
                else:
                    self.progress.note = ""
            stream.flush()
            os.fsync(stream.fileno())
            os.fchmod(stream.fileno(), 0o644)
        return resumed

    def _journal(self, part: str, url: str, item: dict[str, Any]) -> dict[str, Any]:
        """What is known of a part on disk. One of another file is thrown away, an unsynced tail too."""
        journal = read_json(part + ".json")
        if journal.get("sha256") != item["sha256"] or journal.get("size") != item["size"] or journal.get("url") != url:
            for path in (part, part + ".json"):
                with contextlib.suppress(FileNotFoundError):
                    os.remove(path)
            journal = {"url": url, "sha256": item["sha256"], "size": item["size"], "etag": "", "synced": 0}
        elif journal.get("boot") != boot_id() and size_of(part) > int(journal.get("synced") or 0):
            os.truncate(part, int(journal.get("synced") or 0))
        journal["boot"] = boot_id()
        write_json(part + ".json", journal)
        return journal

    def _load(self, stream: BinaryIO, size: int) -> int:
        """Hash what is there and stand at its end."""
        self.digest = hashlib.sha256()
        if os.fstat(stream.fileno()).st_size > size:
            stream.truncate(0)
        stream.seek(0)
        while True:
            block = stream.read(CHUNK)
            if not block:
                return stream.tell()
            self.digest.update(block)
            self.progress.add(len(block), fetched=False)

    def _restart(self, stream: BinaryIO) -> None:
        self.progress.done -= stream.tell()
        stream.seek(0)
        stream.truncate()
        self.digest = hashlib.sha256()

    def _attempt(self, url: str, item: dict[str, Any], stream: BinaryIO, part: str, journal: dict[str, Any]) -> None:
        """One request, read to its end. Raises RetryableError when it ends early."""
        offset = stream.tell()
        try:
            response = self.source.open(url, offset, str(journal.get("etag") or ""))
        except RetryableError as error:
            if str(error) == "HTTP 416":
                self._restart(stream)  # the source's file is shorter than what we hold
            raise
        with response:
            begin = first_byte(response, item, offset, self.job["endpoint"])
            if begin != offset:
                self._restart(stream)
            journal["etag"] = strong_etag(response)
            write_json(part + ".json", journal)
            unsynced = 0
            while stream.tell() < item["size"]:
                try:
                    block = response.read(min(CHUNK, item["size"] - stream.tell()))
                except (http.client.HTTPException, OSError) as error:
                    raise RetryableError(f"the connection broke: {in_a_line(error)}") from error
                if not block:
                    raise RetryableError(f"the answer ended after {stream.tell()} of {item['size']} bytes")
                stream.write(block)
                self.digest.update(block)
                self.progress.add(len(block), fetched=True)
                unsynced += len(block)
                if unsynced >= SYNC_BYTES:
                    stream.flush()
                    os.fdatasync(stream.fileno())
                    journal["synced"], unsynced = stream.tell(), 0
                    write_json(part + ".json", journal)


def run_job(job: dict[str, Any], private: dict[str, Any]) -> None:
    """Fetch a job's files. ``private`` holds {token, environment}: what must not stand in argv or unit files."""
    options = Options(
        token=str(private.get("token") or ""),
        environment={str(name): str(value) for name, value in (private.get("environment") or {}).items()},
        timeout=float(job.get("timeout") or 60.0),
        retries=int(job.get("retries", 8)),
    )
    os.umask(0o022)
    Fetcher(job, options).run()


def main(arguments: list[str]) -> int:
    """``transfer.pyz JOB``; secrets come as the systemd credential ``private``."""
    with open(arguments[1], encoding="utf-8") as stream:
        job = json.load(stream)
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    try:
        private = read_json(os.path.join(folder, "private")) if folder else {}
        if folder and not private:
            raise TransferError(f"The credential {folder}/private cannot be read. Run again.")
        run_job(job, private)
    except TransferError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0
