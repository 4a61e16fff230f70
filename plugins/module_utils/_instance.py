# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of a server instance on its host: deployments, links, records and the key file.

Sizes are bytes. Everything written here is on disk, not only in the page cache, when a function returns.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Sequence
from typing import Any, Optional

from ansible_collections.onprem.llamacpp.plugins.module_utils._files import sync_directory
from ansible_collections.onprem.llamacpp.plugins.module_utils._host import read_json

CONFIG_ROOT = "/etc/llamacpp/instances"
STATE_ROOT = "/var/lib/llamacpp/instances"
DOCUMENTS = ("deployment.json", "server.env", "unit.conf")
NAME = re.compile(r"[a-z][a-z0-9-]{0,30}$")
NAME_RULE = "use at most 31 lower-case letters, digits and dashes, starting with a letter"

Document = dict[str, Any]


def to_json(document: Document) -> str:
    """A JSON document as it lies on disk: sorted and indented, so that two of them can be compared line by line."""
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def read_text(path: str) -> Optional[str]:
    """The text of a file, or nothing when there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as handle:
            return handle.read()
    except (FileNotFoundError, NotADirectoryError):
        return None


def linked(path: str) -> str:
    """The last component of where a link points to, or an empty string."""
    try:
        return os.path.basename(os.readlink(path))
    except OSError:
        return ""


def write_file(path: str, text: str, mode: int = 0o644) -> None:
    """Replace a file in one step; whoever reads it sees the old text or the new one."""
    folder = os.path.dirname(path)
    handle, temporary = tempfile.mkstemp(dir=folder, prefix="." + os.path.basename(path) + ".")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            os.fchmod(stream.fileno(), mode)
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync_directory(folder)


def make_directory(path: str, mode: int = 0o755) -> bool:
    """Make a directory and those above it, whatever the umask; whether anything was missing."""
    if os.path.isdir(path):
        return False
    make_directory(os.path.dirname(path), mode)
    os.mkdir(path)
    os.chmod(path, mode)
    sync_directory(os.path.dirname(path))
    return True


class Instance:
    """One instance's files below two roots."""

    def __init__(self, name: str, config_root: str = CONFIG_ROOT, state_root: str = STATE_ROOT) -> None:
        self.name = name
        self.config = os.path.join(config_root, name)
        self.state = os.path.join(state_root, name)
        self.api_keys = os.path.join(self.config, "api-keys")

    def deployment(self, identity: str) -> str:
        """The directory of a deployment."""
        return os.path.join(self.config, "deployments", identity)

    def record(self, identity: str, name: str) -> str:
        """A file about what happened to a deployment."""
        return os.path.join(self.state, identity, name)

    def current(self) -> str:
        """The id of the deployment that the server is started from."""
        return linked(os.path.join(self.config, "current"))

    def previous(self) -> str:
        """The id of the deployment before that."""
        return linked(os.path.join(self.config, "previous"))

    def model(self, identity: str) -> str:
        """The directory of a deployment's model, whether it is still there or not; empty when the deployment does not say."""
        return self._linked(identity, "model")

    def engine(self, identity: str) -> str:
        """The directory of a deployment's engine, in the same way."""
        return self._linked(identity, "engine")

    def _linked(self, identity: str, name: str) -> str:
        link = os.path.join(self.deployment(identity), name)
        return os.path.realpath(link) if os.path.islink(link) else ""

    def journal(self) -> Document:
        """The journal of the last switch."""
        return read_json(os.path.join(self.state, "switch.json"))

    def proven(self) -> bool:
        """Whether the current deployment passed its gate the last time; a switch that is under way changes nothing yet."""
        current, journal = self.current(), self.journal()
        return bool(current) and journal.get("committed") == current and journal.get("state") != "failed"

    def documents(self, identity: str) -> dict[str, str]:
        """The texts of a deployment by file name; those that are missing are empty."""
        return {name: read_text(os.path.join(self.deployment(identity), name)) or "" for name in DOCUMENTS} if identity else {}

    def intact(self, identity: str, documents: dict[str, str], links: dict[str, str]) -> bool:
        """Whether a deployment lies on disk exactly as it is described."""
        folder = self.deployment(identity)
        return self.documents(identity) == documents and all(
            os.path.islink(os.path.join(folder, name)) and os.readlink(os.path.join(folder, name)) == target
            for name, target in links.items()
        )

    def publish(self, identity: str, documents: dict[str, str], links: dict[str, str]) -> None:
        """Put a deployment in place in one step; one that was damaged is mended file by file, since C(current) may name it."""
        final = self.deployment(identity)
        parent = os.path.dirname(final)
        make_directory(parent)
        for leftover in os.listdir(parent):
            if leftover.startswith(".new-"):
                shutil.rmtree(os.path.join(parent, leftover), ignore_errors=True)
        temporary = tempfile.mkdtemp(dir=parent, prefix=".new-")
        os.chmod(temporary, 0o755)  # noqa: S103 - nothing in a deployment is secret
        for name, text in documents.items():
            write_file(os.path.join(temporary, name), text)
        for name, target in links.items():
            os.symlink(target, os.path.join(temporary, name))
        sync_directory(temporary)
        if os.path.isdir(final) and not os.path.islink(final):
            # Never out of its place: a server that is started meanwhile would find nothing.
            for name in (*documents, *links):
                _make_way(os.path.join(final, name))
                os.replace(os.path.join(temporary, name), os.path.join(final, name))
            os.chmod(final, 0o755)  # noqa: S103 - as above
            sync_directory(final)
            os.rmdir(temporary)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(final)
            os.rename(temporary, final)
        sync_directory(parent)

    def has_keys(self, keys: Sequence[str] = ()) -> bool:
        """Whether the key file holds these keys, or any where none are given."""
        text = read_text(self.api_keys) or ""
        return text == _lines(keys) if keys else bool(text.strip())

    def key_file_is_right(self, keys: Sequence[str] = ()) -> bool:
        """Whether the key file is there, root's alone, and holds these keys, or any where none are given."""
        try:
            status = os.stat(self.api_keys)
        except OSError:
            return False
        return status.st_mode & 0o777 == 0o600 and status.st_uid == os.geteuid() and self.has_keys(keys)

    def ensure_key_file(self, keys: Sequence[str] = ()) -> None:
        """Write these keys, or make one when there is none, and close the file to everybody else. A key that is made is seen by nobody."""
        make_directory(self.config)
        if not self.has_keys(keys):
            write_file(self.api_keys, _lines(keys or [secrets.token_hex(32)]), 0o600)
        os.chown(self.api_keys, os.geteuid(), os.getegid())
        os.chmod(self.api_keys, 0o600)

    def key_file_is_newer(self, started_monotonic: float) -> bool:
        """Whether the keys were written after the server was started, which reads them once.

        :param started_monotonic: seconds of the monotonic clock
        """
        try:
            age = time.time() - os.stat(self.api_keys).st_mtime
        except OSError:
            return False
        # A file of the future is a clock that was set back, and says nothing.
        return started_monotonic > 0 and 0 <= age < time.monotonic() - started_monotonic


def _make_way(path: str) -> None:
    """Remove a directory, which no file and no link can replace."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)


def _lines(keys: Sequence[str]) -> str:
    return "".join(f"{key}\n" for key in keys)


def model_uses(config_root: str = CONFIG_ROOT) -> list[dict[str, str]]:
    """What the instances of a host need of its models: the C(path) of each C(current) and C(previous) deployment's, empty if unknown."""
    return [{"instance": name, "link": link, "path": instance.model(identity)} for name, link, instance, identity in _deployed(config_root)]


def engine_uses(config_root: str = CONFIG_ROOT) -> list[dict[str, str]]:
    """What they need of its engines, in the same form."""
    return [
        {"instance": name, "link": link, "path": instance.engine(identity)} for name, link, instance, identity in _deployed(config_root)
    ]


def _deployed(config_root: str) -> list[tuple[str, str, Instance, str]]:
    """The deployments that may serve: instance and link by name, the instance's files, and the id."""
    found = []
    for name in instances(config_root):
        instance = Instance(name, config_root)
        both = (("current", instance.current()), ("previous", instance.previous()))
        found += [(name, link, instance, identity) for link, identity in both if identity]
    return found


def instances(config_root: str = CONFIG_ROOT) -> list[str]:
    """The names of the instances that are declared on this host."""
    try:
        return sorted(name for name in os.listdir(config_root) if os.path.isdir(os.path.join(config_root, name)))
    except OSError:
        return []
