# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Room on the disk for one quant: what is needed, what is free, what would have to go first. Pure; sizes are bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Optional

from ansible_collections.onprem.llamacpp.plugins.module_utils import _prune
from ansible_collections.onprem.llamacpp.plugins.module_utils._disks import shared
from ansible_collections.onprem.llamacpp.plugins.module_utils._words import amount
from ansible_collections.onprem.llamacpp.plugins.plugin_utils._plan_text import duration

Facts = Mapping[str, Any]


class Room(NamedTuple):
    """Bytes still to fetch, the plan's C(disk), and what is short."""

    remaining: int
    disk: dict[str, Any]
    short: list[str]


def room(name: str, quant: Facts, facts: Facts, settings: Facts, entry: Facts, here: bool) -> Room:
    """What a quant asks of the disk. One that is there needs no room; what may be removed for it counts as free.

    Args:
        name: the quant's.
        quant: its C(bytes) and C(commit).
        facts: C(llama_hardware) of the host.
        settings: the wish.
        entry: the catalogue entry.
        here: whether it is on the host.
    """
    begun = [other["bytes"] for other in facts.get("partial_models", []) if (other["commit"], other["quant"]) == (quant["commit"], name)]
    remaining = 0 if here else max(0, quant["bytes"] - sum(begun))
    buffer = settings["disk_buffer"] if settings["disk_buffer"] is not None else entry.get("disk_buffer", max(10**9, quant["bytes"] // 20))
    required = remaining + buffer if remaining else 0
    path = settings["model_root"]
    found = next((other for other in facts.get("disks", []) if other["path"] == path), None)
    disk: dict[str, Any] = {"path": path, "required": required, "free": found["free"] if found else 0}
    disk.update(buffer=buffer, removes=[], notes=[])
    if not found or required <= found["free"]:
        return Room(remaining, disk, [])
    wanted = {"repo_id": entry["repo_id"], "commit": quant["commit"], "quant": name}
    store = _Store(facts, settings, disk, [*settings.get("keep", []), wanted], found.get("filesystem", ""))
    chosen = store.choose(bool(settings.get("prune")), settings.get("replace") == "in_place")
    if not chosen.missing:
        disk.update(removes=chosen.remove, notes=store.notes(name, chosen))
        return Room(remaining, disk, [])
    short = (
        f"disk: {name} needs {amount(required)} free in {path} ({amount(remaining)} to fetch "
        f"and {amount(buffer)} to spare), {amount(found['free'])} are free: {', or '.join([*store.remedies(), 'make room'])}, "
        f"or set llama_model_root to a larger disk"
    )
    return Room(remaining, disk, [short])


class _Store:
    """The models of a host, and what could go for the one that is wanted."""

    def __init__(self, facts: Facts, settings: Facts, disk: Facts, keep: list[Facts], filesystem: str) -> None:
        self.facts, self.settings, self.disk, self.keep = facts, settings, disk, keep
        # What other hosts may use is not for one host to remove.
        self.models = [] if shared(filesystem) else facts.get("models", [])
        self.instance = settings["instance"]

    def choose(self, unused: bool, in_place: bool) -> _prune.Choice:
        release = self.instance if in_place else ""
        return _prune.choose(self.models, self.disk["free"], self.disk["required"], self.keep, None, unused, release)

    def remedies(self) -> list[str]:
        """The settings with which there would be room, and what they cost."""
        prune, in_place = bool(self.settings.get("prune")), self.settings.get("replace") == "in_place"
        told: list[str] = []
        for now_prune, now_in_place in ((True, in_place), (prune, True), (True, True)):
            chosen = self.choose(now_prune, now_in_place)
            if told or chosen.missing or (now_prune, now_in_place) == (prune, in_place):
                continue
            names = ["llama_model_prune: true"] * (now_prune and not prune)
            names += ["llama_model_replace: in_place"] * (now_in_place and not in_place)
            told.append(f"set {' and '.join(names)}, which removes {_listed(chosen.remove)} first")
        return told

    def notes(self, name: str, chosen: _prune.Choice) -> list[str]:
        """What is removed before the quant is fetched, and what can then not be gone back to."""
        told: list[str] = []
        unused = [model for model in chosen.remove if model["why"] == _prune.REASONS[_prune.UNUSED]]
        replaced = [model for model in chosen.remove if model not in unused]
        if unused:
            told.append(f"removed first, because no deployment uses it and there is no room (llama_model_prune): {_listed(unused)}")
        if replaced:
            size = sum(model["bytes"] for model in replaced)
            seconds = math.ceil(size * 8 / self.settings["link_bits_per_second"])
            told.append(
                f"{self.disk['path']} cannot hold both, so {_listed(replaced)} of instance {self.instance} is removed before {name} is "
                f"fetched (llama_model_replace is in_place): going back then needs a download of {amount(size)}, about {duration(seconds)}"
            )
        if any(model["why"] == _prune.REASONS[_prune.CURRENT] for model in replaced):
            told.append(self._meanwhile(name))
        return told

    def _meanwhile(self, name: str) -> str:
        """What the instance does between the removal and the next deployment."""
        instance: Facts = next((entry for entry in self.facts.get("instances", []) if entry["name"] == self.instance), {})
        mode: Optional[str] = ((instance.get("plan") or {}).get("placement") or {}).get("load_mode")
        if mode == "none":
            return f"{self.instance} goes on from memory until {name} is there, but cannot be started again before"
        return f"{self.instance} is stopped for that and answers nothing until {name} serves"


def _listed(models: list[dict[str, Any]]) -> str:
    return ", ".join(f"{model['quant']} of {model['repo_id']} at {model['commit'][:8]} ({amount(model['bytes'])})" for model in models)
