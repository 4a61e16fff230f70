# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads a store of models and removes from it what ``_prune`` chooses. Sizes are bytes.

Whatever is in doubt stays: a deployment that cannot be read, a store that other hosts may use, a file that a program has open.
"""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import time
from collections.abc import Mapping
from typing import Any

from ansible_collections.onprem.llamacpp.plugins.module_utils import _disks, _installed, _instance, _processes, _prune, _units
from ansible_collections.onprem.llamacpp.plugins.module_utils._files import sync_directory
from ansible_collections.onprem.llamacpp.plugins.module_utils._host import Run, read_text
from ansible_collections.onprem.llamacpp.plugins.module_utils._model_store import Model, StoreError, key_of
from ansible_collections.onprem.llamacpp.plugins.module_utils._words import amount

DAY = 86400


class PruneError(Exception):
    """One line for the user."""


class Store:
    """The models below a root, who uses them, and what may go."""

    def __init__(self, params: Mapping[str, Any], run: Run, proc: str = "/proc") -> None:
        self.params, self.run, self.proc = params, run, proc
        self.root = os.path.normpath(params["root"])
        self.free = self.free_bytes()
        filesystem = _disks.mount_of(_disks.existing(self.root), read_text("/proc/self/mounts")).filesystem
        # The filesystem that other hosts may use too, or nothing.
        self.shared = filesystem if _disks.shared(filesystem) and not params["shared"] else ""
        self.own_unit = f"llamacpp@{params['replace']}.service" if params["replace"] else ""
        uses = _instance.model_uses(params["instance_root"])
        unclear = sorted({use["instance"] for use in uses if not use["path"]})
        if unclear:
            raise PruneError(
                f"It cannot be told which model {' and '.join(unclear)} needs: a deployment of it lacks its link to one. "
                f"Nothing was removed. Deploy it again, or remove {params['instance_root']}/{unclear[0]}."
            )
        self.models = [{**model, "held": _installed.held(model["path"])} for model in _installed.models(self.root, uses)]
        self.users: dict[str, list[dict[str, Any]]] = {}

    def free_bytes(self) -> int:
        found = os.statvfs(_disks.existing(self.root))
        return found.f_bavail * found.f_frsize

    def choose(self) -> _prune.Choice:
        """What goes and what stays, transfers that were given up aside.

        Raises:
            PruneError: the target is a must and cannot be reached.
        """
        params = self.params
        found = _processes.holders([model["path"] for model in self.models], self.proc)
        # Giving it to peers keeps no model: that ends with it.
        seeding = {path: _units.swarm_unit("seed", key_of(path)) for path in found}
        self.users = {path: [user for user in users if user["unit"] != seeding[path]] for path, users in found.items()}
        choice = _prune.choose(
            self.models, self.free, params["free_bytes"], params["keep"], self._busy(), params["unused"], params["replace"] or ""
        )
        if choice.missing and params["must_reach"]:
            raise PruneError(
                f"{amount(params['free_bytes'])} are wanted free at {self.root}, {amount(self.free)} are, and what may be removed there "
                f"comes to {amount(choice.free - self.free)}: {amount(choice.missing)} would still be missing, so nothing was removed."
                + "".join(f" {name_of(kept)} stays, {kept['why']}." for kept in choice.keep)
            )
        return choice

    def _busy(self) -> dict[str, str]:
        """Why a model cannot go whatever the instances need, by its path."""
        root = os.path.realpath(self.root)
        busy = {}
        for model in self.models:
            path = model["path"]
            strangers = [user for user in self.users[path] if not self.own_unit or user["unit"] != self.own_unit]
            if self.shared:
                busy[path] = f"the store is on {self.shared}, where other hosts may use it"
            elif os.path.realpath(path) != os.path.join(root, os.path.relpath(path, self.root)):
                busy[path] = "a link leads to it"
            elif strangers:
                busy[path] = f"{strangers[0]['program']} (PID {strangers[0]['pid']}) has it open"
        return busy

    def stops(self, choice: _prune.Choice) -> list[str]:
        """The unit that must stop first: as long as it has a removed file open, its room is not free."""
        held = any(self.users[model["path"]] for model in choice.remove)
        return [self.own_unit] if held else []

    def abandoned(self) -> list[dict[str, Any]]:
        """Directories of transfers that nobody has gone on with for long, and what an interrupted removal has left."""
        days = self.params["staging_days"]
        if days < 0 or self.shared:
            return []
        before = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - days * DAY))
        found = _prune.abandoned(_installed.partial_models(self.root), before, self.params["keep"])
        open_by = _processes.holders([entry["path"] for entry in found], self.proc)
        found = [entry for entry in found if not open_by[entry["path"]] and not self._is_under_way(entry)]
        removed = [{"path": path, "bytes": _bytes_of(path)} for path in sorted(glob.glob(os.path.join(self.root, "*", "*", ".*.removed")))]
        return [{"path": entry["path"], "bytes": entry["bytes"]} for entry in found] + removed

    def _is_under_way(self, entry: Mapping[str, Any]) -> bool:
        try:
            key = Model(self.root, entry["repo_id"], entry["commit"], entry["quant"], []).key
        except StoreError:
            return True  # no transfer of ours has that name
        return any(_units.is_active(self.run, unit) for unit in (_units.fetch_unit(key), _units.swarm_unit("fill", key)))

    def remove(self, choice: _prune.Choice, leftovers: list[dict[str, Any]]) -> None:
        """Carry it out.

        Raises:
            PruneError: the server that holds a file open does not stop. Nothing of what it serves was removed.
        """
        for entry in leftovers:
            discard(entry["path"], self.root)
        for unit in self.stops(choice):
            code, out, err = self.run(["systemctl", "stop", unit])
            if code != 0:
                raise PruneError(f"{unit} could not be stopped: {' '.join((err or out).split())[:500]}. Its model was not removed.")
        for model in choice.remove:
            _units.stop_swarm(self.run, key_of(model["path"]))
            discard(model["path"], self.root)


def _bytes_of(folder: str) -> int:
    return sum(size for _inode, links, size in _installed.held(folder) if links == 1)


def name_of(model: Mapping[str, Any]) -> str:
    """A model in a few words."""
    return f"{model['repo_id']} {model['quant']} ({amount(model['bytes'])})"


def discard(path: str, root: str) -> None:
    """Out of sight by a rename, then gone; parents that are empty after it go too, the root stays."""
    parent, name = os.path.split(path)
    hidden = path if name.startswith(".") else os.path.join(parent, f".{name}.removed")
    if hidden != path:
        shutil.rmtree(hidden, ignore_errors=True)
        os.rename(path, hidden)
        sync_directory(parent)
    shutil.rmtree(hidden)
    for folder in (parent, os.path.dirname(parent)):
        if folder != os.path.normpath(root):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
