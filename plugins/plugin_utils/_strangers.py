# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs that are not ours and hold what a server needs: who they are, and how they are stopped. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any


def name(program: str, pid: int, unit: str = "") -> str:
    """A program with its process and the unit that it belongs to."""
    return f"{program or 'a program'} (PID {pid or 'unknown'}{', ' + unit if unit else ''})"


def remedy(program: str, pid: int, unit: str = "") -> str:
    """What stops it, as a command where one is known."""
    short = posixpath.basename(program)
    # Units of logins and containers hold many programs; only one that is named after the program is the program's.
    if unit.endswith(".service") and short and short in unit:
        return f"systemctl disable --now {unit}"
    if short.startswith("ollama"):
        return f"ollama stop for each model that `ollama ps` shows, or kill {pid}" if pid else "systemctl disable --now ollama.service"
    if short in ("docker-proxy", "rootlessport"):
        return "stop the container that publishes the port (docker ps)"
    if not pid:
        return "find it as root with ss -ltnp"
    return f"kill {pid}" + (", a llama-server that was started by hand" if short.startswith("llama-server") else "")


def device_note(engine_name: str, held: str, total: str, largest: list[Mapping[str, Any]], sizes: list[str]) -> str:
    """Who holds memory of a device, largest first, and how the first of them is stopped. Amounts are in words."""
    who = ", ".join(f"{name(entry['name'], entry['pid'], entry.get('unit', ''))} {size}" for entry, size in zip(largest, sizes))
    first = largest[0]
    return (
        f"{engine_name}: {held} of {total} are held by other programs: {who}"
        f"; to have it back: {remedy(first['name'], first['pid'], first.get('unit', ''))}"
    )


def is_ours(unit: str) -> bool:
    """Whether a unit is a server of this collection."""
    return unit.startswith("llamacpp@")


def moving(unit: str) -> str:
    """What to do about a port that a declared instance holds until this run would give it another."""
    return f"{unit} is to have another port by the same inventory: change its port in a run of its own, before this one,"


def undeclared(instance: str) -> str:
    """What to do about an instance of ours that a host has and the inventory does not speak of."""
    return f"which llama_instances does not declare: declare it, or remove it (playbooks/remove.yml -e llama_remove_instances={instance})"
