# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a switch keeps on disk: the links, the journal and the records of an instance. All of it survives a power loss."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import pathlib
from typing import Any

SCHEMA_VERSION = 1

Document = dict[str, Any]


class SwitchError(Exception):
    """A reason, in a sentence or two, why a deployment cannot or must not serve."""


class Busy(Exception):
    """Another switch of this instance holds the lock."""


def now() -> str:
    """The time as the journal writes it: UTC, whole seconds."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def sync_directory(path: pathlib.Path) -> None:
    """Make renames and new names in a directory durable."""
    handle = os.open(str(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_directory(path: pathlib.Path) -> None:
    """Make a directory and those above it, durably."""
    if not path.is_dir():
        make_directory(path.parent)
        path.mkdir(exist_ok=True)
        sync_directory(path.parent)


def write_text(path: pathlib.Path, text: str, durable: bool = True) -> None:
    """Replace a file in one step, so that a reader never sees half of it.

    :param durable: False only for what a boot forgets anyway; a file that is renamed before it is on disk may be empty after a power loss
    """
    make_directory(path.parent)
    temporary = path.with_name("." + path.name + ".new")
    try:
        with open(temporary, "w", encoding="utf-8") as handle:
            handle.write(text)
            handle.flush()
            if durable:
                os.fsync(handle.fileno())
        os.replace(temporary, path)
        if durable:
            sync_directory(path.parent)
    except OSError as error:
        error.filename = str(path)  # a full disk names none
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def write_json(path: pathlib.Path, document: Document) -> None:
    """Replace a JSON file in one step."""
    write_text(path, json.dumps(document, indent=2, sort_keys=True) + "\n")


def remove_file(path: pathlib.Path) -> None:
    """Make sure that there is no file, now and after a power loss."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
        sync_directory(path.parent)


def read_json(path: pathlib.Path) -> Document:
    """A JSON object from a file; empty when there is none or it is not readable as one."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def set_link(path: pathlib.Path, target: str) -> None:
    """Point a symbolic link somewhere (or remove it when the target is empty) in one step."""
    make_directory(path.parent)
    if not target:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
    elif not path.is_symlink() or os.readlink(path) != target:
        temporary = path.with_name("." + path.name + ".new")
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        temporary.symlink_to(target)
        os.replace(temporary, path)
    sync_directory(path.parent)


class Layout:
    """Where the files of one instance are."""

    def __init__(self, instance: str, root: pathlib.Path = pathlib.Path("/")) -> None:
        self.instance, self.root = instance, root
        self.declared = root / "etc/llamacpp/instances" / instance
        self.recorded = root / "var/lib/llamacpp/instances" / instance
        self.journal = self.recorded / "switch.json"
        self.lock = self.recorded / "switch.lock"
        self.api_keys = self.declared / "api-keys"
        self.drop_in = root / "etc/systemd/system" / f"llamacpp@{instance}.service.d" / "50-deployment.conf"
        # Of the second server during a switch; a boot forgets them.
        self.beside_drop_in = root / "run/systemd/system" / f"llamacpp-beside@{instance}.service.d" / "50-deployment.conf"
        self.beside_environment = root / "run/llamacpp" / f"{instance}.beside.env"
        self.front = root / "etc/llamacpp/front" / instance
        self.drained = self.recorded / "drained"
        self.wants = root / "etc/systemd/system/multi-user.target.wants"

    def others(self) -> list[Layout]:
        """The other instances of the host that have a deployment."""
        names = sorted(link.parent.name for link in self.declared.parent.glob("*/current"))
        return [Layout(name, self.root) for name in names if name != self.instance]

    def linked(self, name: str) -> str:
        """The id that the link ``current`` or ``previous`` points to, or an empty string."""
        link = self.declared / name
        return os.path.basename(os.readlink(link)) if link.is_symlink() else ""

    def link(self, name: str, deployment: str) -> None:
        """Point ``current`` or ``previous`` to a deployment; an empty id removes the link."""
        set_link(self.declared / name, f"deployments/{deployment}" if deployment else "")

    def link_drop_in(self, wanted: bool) -> None:
        """Put the deployment's unit.conf into the unit, or take it out."""
        if wanted or self.drop_in.parent.is_dir():
            set_link(self.drop_in, str(self.declared / "current" / "unit.conf") if wanted else "")
        if not wanted:
            with contextlib.suppress(OSError):  # somebody else's drop-ins may be there
                self.drop_in.parent.rmdir()

    def deployment(self, deployment: str) -> pathlib.Path:
        return self.declared / "deployments" / deployment

    def request(self, deployment: str) -> Document:
        """What the gate of a deployment asks for."""
        return read_json(self.recorded / deployment / "request.json")
