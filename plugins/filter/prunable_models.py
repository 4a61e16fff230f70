# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter ``prunable_models``; its documentation is beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from ansible_collections.onprem.llamacpp.plugins.module_utils import _disks, _prune

TIME = "%Y-%m-%dT%H:%M:%SZ"


def prunable_models(hardware: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    """The directories that gguf_prune would remove, as far as the facts of a host tell."""
    disk: Mapping[str, Any] = next((entry for entry in hardware["disks"] if entry["path"] == settings["root"]), {})
    if _disks.shared(disk.get("filesystem", "")):
        return []
    models = hardware["models"]
    for instance in settings["switched"]:
        models = _prune.after_switch(models, instance)
    found = _prune.choose(models, disk.get("free", 0), settings["free_bytes"], settings["keep"])
    given_up: list[Mapping[str, Any]] = []
    if settings["staging_days"] >= 0:
        before = datetime.strptime(hardware["collected_at"], TIME) - timedelta(days=settings["staging_days"])
        given_up = _prune.abandoned(hardware["partial_models"], before.strftime(TIME), settings["keep"])
    return [entry["path"] for entry in [*found.remove, *given_up]]


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"prunable_models": prunable_models}
