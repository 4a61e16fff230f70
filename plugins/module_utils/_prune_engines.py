# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which engine releases may leave a host. Pure; releases are those of ``_installed.engines``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional

Engine = Mapping[str, Any]


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
