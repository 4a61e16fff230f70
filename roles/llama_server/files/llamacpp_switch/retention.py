# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which deployments an instance keeps, so that many switches leave no trail. Their models are no matter of this."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import shutil

from .files import Layout, sync_directory
from .overlap import LINK

IDENTITY = re.compile(r"[0-9a-f]{12}$")
GOING = ".gone-"


def superfluous(layout: Layout, more: int) -> list[str]:
    """Deployments beside those that links name and the ``more`` that were laid or asked last, the oldest first."""
    kept = {layout.linked(name) for name in ("current", "previous", LINK)}
    others = {name for name in _names(layout.declared / "deployments") | _names(layout.recorded) if name not in kept}
    ordered = sorted(others, key=lambda name: (_last(layout, name), name))
    return ordered[: max(len(ordered) - more, 0)]


def prune(layout: Layout, more: int) -> None:
    """Remove what is superfluous, and what an interrupted removal has left."""
    parent = layout.declared / "deployments"
    names = superfluous(layout, more)
    for leftover in parent.glob(GOING + "*"):
        shutil.rmtree(leftover, ignore_errors=True)
    for name in names:
        # Renamed first: half a deployment is never found under its name.
        going = parent / (GOING + name)
        with contextlib.suppress(FileNotFoundError):
            os.replace(parent / name, going)
        for folder in (going, layout.recorded / name):
            shutil.rmtree(folder, ignore_errors=True)
    sync_directory(parent)


def _names(folder: pathlib.Path) -> set[str]:
    return {path.name for path in folder.iterdir() if IDENTITY.match(path.name) and path.is_dir()} if folder.is_dir() else set()


def _last(layout: Layout, name: str) -> float:
    """When a deployment was last touched: laid, asked by the gate, or described anew."""
    found = [0.0]
    for path in (layout.deployment(name), layout.recorded / name / "gate.json", layout.recorded / name / "request.json"):
        with contextlib.suppress(OSError):
            found.append(path.stat().st_mtime)
    return max(found)
