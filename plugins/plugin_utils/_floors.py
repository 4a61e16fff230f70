# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Security floors: advisories that refuse an engine, unless ``llama_engine_force`` names them. Pure.

They have the shape of the advisories in the role llama_plan. They are kept here because the plan tells of them and the
role llama_engine enforces them, also where no plan was made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

FORCE = "llama_engine_force"
# Binaries of packagers who did not pass the number to the build say 0, or 1 from a clone without history.
UNNUMBERED = 1

FLOORS: tuple[dict[str, Any], ...] = (
    {
        "id": "server-floor",
        "severity": "error",
        "force": "floor",
        "when": {"build_below": 11393},
        "text": (
            "Before b11393 anybody who may ask the server for a completion can make it use freed memory (CVE-2026-107183)."
            f" Take b11393 or later, or put 'floor' into {FORCE}."
        ),
        "source": "CVE-2026-107183",
    },
    {
        "id": "rpc-floor",
        "severity": "error",
        "force": "rpc",
        "when": {"uses_rpc": True, "build_below": 11865},
        "text": (
            "Before b11865 an RPC peer can overflow the stack (CVE-2026-118375), and this deployment uses RPC. Take b11865 or later,"
            f" or put 'rpc' into {FORCE} where only trusted programs reach the port."
        ),
        "source": "CVE-2026-118375",
    },
)
FORCES = tuple(str(floor["force"]) for floor in FLOORS)


def advisories(force: Sequence[str]) -> list[dict[str, Any]]:
    """The floors as advisories; one that is forced warns and no longer refuses."""
    return [
        {**floor, "severity": "warning", "text": f"{floor['text']} It is allowed by {FORCE}."} if floor["force"] in force else dict(floor)
        for floor in FLOORS
    ]


def refusals(number: int, uses_rpc: bool, force: Sequence[str], label: str = "") -> list[str]:
    """Why a build of this number may not be used so; ``label`` is what it is called, b and the number when empty."""
    below = [
        floor
        for floor in FLOORS
        if floor["force"] not in force and number < floor["when"]["build_below"] and (uses_rpc or not floor["when"].get("uses_rpc"))
    ]
    if below and number <= UNNUMBERED:
        return [
            f"{label or 'The engine'} says that it is build {number}: it was built without its number, so no floor can be checked."
            f" Take another engine, or put {' and '.join(repr(floor['force']) for floor in below)} into {FORCE} if you know what it is."
        ]
    return [f"{label or f'llama.cpp b{number}'} is refused (advisory {floor['id']}). {floor['text']}" for floor in below]
