# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which engine releases may leave a host, and what is left of builds; releases are those of ``_installed.engines``."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from ansible_collections.onprem.llamacpp.plugins.module_utils._host import read_text

Engine = Mapping[str, Any]

# Folders and tarballs that the role makes for a build, beside the release and where it is built.
_LEFT = re.compile(r"(?:\.?again-|\.)?(b\d+-[^/]+-[0-9a-f]{8})(?:\.tar\.gz|\.damaged)?$")


def choose(
    engines: Sequence[Engine], keep: int, wanted: Sequence[str] = (), busy: Optional[Mapping[str, str]] = None
) -> list[dict[str, Any]]:
    """The releases to remove, the oldest first, each as C(build_id) and C(path).

    Args:
        engines: the releases of a host. One of which it is not known who uses it is in use.
        keep: how many stay that nothing needs, the newest; all of them below 0.
        wanted: build ids that stay, because they are about to be deployed.
        busy: why a release cannot go although no deployment uses it, by its path.
    """
    if keep < 0:
        return []
    idle = [
        engine
        for engine in engines
        if not engine.get("used_by", [None]) and engine["build_id"] not in wanted and engine["path"] not in (busy or {})
    ]
    idle.sort(key=lambda engine: (str(engine["build"].get("built_at", "")), engine["build_id"]))
    return [{"build_id": engine["build_id"], "path": engine["path"]} for engine in idle[: max(0, len(idle) - keep)]]


def leftovers(releases: str, builds: str, wanted: Sequence[str] = (), proc: str = "/proc") -> list[str]:
    """What builds that failed or were interrupted have left, sorted: their folders, and releases that were not published.

    Args:
        releases: the folder of the releases, where unpublished ones have a dot before their name.
        builds: the folder of the builds.
        wanted: build ids whose parts stay.
        proc: the kernel's view of the processes.
    """
    found = []
    for path in sorted([*glob.glob(os.path.join(releases, ".*")), *glob.glob(os.path.join(builds, "*"))]):
        name = _LEFT.match(os.path.basename(path))
        if name and name[1] not in wanted and not any(_is_built(os.path.join(builds, part + name[1]), proc) for part in ("", "again-")):
            found.append(path)
    return found


def _is_built(folder: str, proc: str) -> bool:
    """Whether a build is under way in a folder: the number of a process may have gone to another."""
    pid = read_text(os.path.join(folder, "build.pid")).strip()
    return pid.isdigit() and os.path.realpath(os.path.join(proc, pid, "cwd")) == os.path.realpath(folder)
