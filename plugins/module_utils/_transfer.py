# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings the files of a model into a staging directory: resumable, every byte under a SHA-256.

This is the program of the transient unit that does the transfer as an unprivileged user; it and all that it imports need nothing but
the standard library. Sizes are bytes, times are seconds, rates bytes a second.

A job is ``{sources: [{transport, url}], repo_id, commit, quant, files: [{path, size, sha256, blocks, published}], staging, timeout,
retries, connections, files_at_once, rate_limit, window}``. A file that is whole and verified lies in the staging directory under its own
name; one under way is ``<name>.part`` beside its journal ``<name>.part.json``. A file with ``published`` is verified there, and comes to
the staging directory only when it had to be repaired. ``status.json`` tells how far things are.
"""

from __future__ import annotations

import errno
import json
import os
import queue
import sys
import threading
from typing import Any, Optional

from ansible_collections.onprem.llamacpp.plugins.module_utils._file_transfer import FileTransfer
from ansible_collections.onprem.llamacpp.plugins.module_utils._files import read_json, size_of, sync_directory
from ansible_collections.onprem.llamacpp.plugins.module_utils._http import TransferError, in_a_line
from ansible_collections.onprem.llamacpp.plugins.module_utils._pace import PaceError
from ansible_collections.onprem.llamacpp.plugins.module_utils._part import is_whole, write_blocks
from ansible_collections.onprem.llamacpp.plugins.module_utils._shared import Shared, Stopped
from ansible_collections.onprem.llamacpp.plugins.module_utils._verify import verify_published

FULL = (errno.ENOSPC, errno.EDQUOT)


class Fetcher:
    """Fetches the files of one job, several at once, in order."""

    def __init__(self, job: dict[str, Any], private: dict[str, Any]) -> None:
        self.shared = Shared(job, private)
        self.files: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        for item in job["files"]:
            self.files.put(item)
        self.lock = threading.Lock()
        self.error: Optional[BaseException] = None

    def run(self) -> None:
        """Fetch what is missing. Raises TransferError; what has arrived by then stays for the next attempt."""
        progress = self.shared.progress
        progress.start()
        threads = [threading.Thread(target=self._work, daemon=True) for _number in range(self.shared.files_at_once)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        try:
            if self.error:
                raise self.error
            sync_directory(self.shared.staging)
        except OSError as error:
            message = f"{self.shared.staging} cannot be written: {in_a_line(error)}."
            if error.errno in FULL:
                message = (
                    f"No space left in {self.shared.staging}: {progress.total - progress.done} bytes are still to come. "
                    "What has arrived is kept. Free that much, then run again."
                )
            progress.finish("failed", message)
            raise TransferError(message) from error
        except TransferError as error:
            progress.finish("failed", str(error))
            raise
        progress.finish("done")

    def _work(self) -> None:
        try:
            while not self.shared.stop.is_set():
                self._file(self.files.get_nowait())
        except (queue.Empty, Stopped):
            return
        except BaseException as error:  # told by run()
            with self.lock:
                self.error = self.error or error
            self.shared.stop.set()

    def _file(self, item: dict[str, Any]) -> None:
        progress = self.shared.progress
        whole = os.path.join(self.shared.staging, os.path.basename(item["path"]))
        if is_whole(whole, item):
            progress.add(item["size"])
            return
        with self.lock:
            progress.files.append(item["path"])
        if item.get("published"):
            blocks = verify_published(item, self.shared)
            if blocks:
                write_blocks(whole, item, blocks)
                progress.intact.append(item["path"])
        if item["path"] not in progress.intact:
            FileTransfer(item, whole, self.shared).run()
        with self.lock:
            progress.files.remove(item["path"])


def run_job(job: dict[str, Any], private: dict[str, Any]) -> None:
    """Fetch a job's files. ``private`` holds {tokens: {url: token}, environment}: what must not stand in argv or unit files."""
    os.umask(0o022)
    try:
        Fetcher(job, private).run()
    except PaceError as error:
        raise TransferError(str(error)) from error


def main(arguments: list[str]) -> int:
    """``transfer.pyz JOB``; secrets come as the systemd credential ``private``, a CA bundle as ``ca``."""
    with open(arguments[1], encoding="utf-8") as stream:
        job = json.load(stream)
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    try:
        private = read_json(os.path.join(folder, "private")) if folder else {}
        if folder and not private:
            raise TransferError(f"The credential {folder}/private cannot be read. Run again.")
        if folder and size_of(os.path.join(folder, "ca")):
            private["environment"] = {**private.get("environment", {}), "SSL_CERT_FILE": os.path.join(folder, "ca")}
        run_job(job, private)
    except TransferError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0
