# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Room on a host's disks, from its facts alone. Sizes are bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

GB = 10**9


def disk_of(hardware: Mapping[str, Any], path: str) -> Optional[Mapping[str, Any]]:
    """The disk that the facts tell for a path or for the nearest folder above it; None where they tell of none."""
    holding = [disk for disk in hardware.get("disks", []) if f"{path}/".startswith(f"{str(disk.get('path', '')).rstrip('/')}/")]
    return max(holding, key=lambda disk: len(str(disk["path"])), default=None)


def problem(hardware: Mapping[str, Any], path: str, needed: int, what: str) -> str:
    """A sentence where the facts say that the needed bytes do not fit; nothing where they do or nobody knows."""
    disk = disk_of(hardware, path)
    if disk is None or int(disk["free"]) >= needed:
        return ""
    return (
        f"{what} needs {needed / GB:.1f} GB at {path}, but the filesystem {disk.get('mount', '')} has {int(disk['free']) / GB:.1f} GB free."
        " Free some or choose another folder."
    )
