# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is looked at and done for a switch while the old deployment still serves."""

from __future__ import annotations

import pathlib
import time
from typing import Callable

from . import neighbours, outside, pagecache
from .api import first_key
from .engine import changed
from .files import Document, Layout, SwitchError, read_json
from .host import Systemd, disk_speed, listening


def check(layout: Layout, systemd: Systemd, to: str, front: bool = True) -> float:
    """Everything that can be known before the running server is touched; the disk's speed in bytes a second.

    :param front: whether a front that no client will talk to is a reason to leave everything as it is
    :raises SwitchError: the switch would fail.
    """
    request = layout.request(to)
    if not request or not (layout.deployment(to) / "deployment.json").is_file():
        raise SwitchError(f"there is no deployment {to} on this host")
    require_parts(layout, to)
    problem = changed(layout.deployment(to) / "engine")
    if problem:
        raise SwitchError(problem)
    if request["api_key"]:
        first_key(layout.api_keys)
    port, own = int(request["port"]), int(systemd.show().get("MainPID", 0) or 0)
    others = [f"{program} (PID {pid})" for pid, program in listening(request["host"], port) if not own or pid != own]
    if others:
        raise SwitchError(f"port {port} is held by {', '.join(others)}: stop it or choose another port")
    if front and request.get("front"):
        outside.look(request["front"]["url"], request["front"]["ca"])  # raises when the certificate is out of date
    return model_disk_speed(request["model_path"])


def model_disk_speed(first: str) -> float:
    """The speed of the disk under a model, measured with its largest file: the first of many may hold no weights."""
    files = [(path.stat().st_size, str(path)) for path in pagecache.shards(pathlib.Path(first)) if path.is_file()]
    return disk_speed(max(files)[1]) if files else 0.0


def require_parts(layout: Layout, deployment: str) -> None:
    """What a deployment is started from; its model may have been removed since.

    :raises SwitchError: a part is missing.
    """
    parts = {"engine": layout.deployment(deployment) / "engine/bin/llama-server"}
    parts["model"] = pathlib.Path(layout.request(deployment).get("model_path", "/"))
    for name, path in parts.items():
        if not path.exists():
            raise SwitchError(f"the {name} of deployment {deployment} is not on this host: {path}")


def warm(layout: Layout, systemd: Systemd, to: str, tell: Callable[[str], None]) -> Document:
    """Read the model of a deployment into the page cache as far as there is room: what was decided and why, and what was done."""
    request, state = layout.request(to), systemd.show()
    size, limit = int(request["model_bytes"]), float(request.get("warm_seconds", 0))
    if state.get("ActiveState") != "active":
        return {"bytes": 0, "of": size, "seconds": 0.0, "why": "nothing serves that could be interrupted"}
    same = layout.request(layout.linked("current")).get("model_path") == request["model_path"]
    choice = pagecache.choose(
        size,
        pagecache.available_memory() - neighbours.reserved(layout),
        0 if same else pagecache.mapped_memory(int(state.get("MainPID", 0))),
        pagecache.planned_beside(read_json(layout.recorded / to / "plan.json")),
        str(request.get("load_mode", "")),
        limit,
    )
    started = time.monotonic()
    done = pagecache.warm(pathlib.Path(request["model_path"]), choice.size, limit, tell) if choice.size else 0
    seconds = round(time.monotonic() - started, 1)
    why = f"time was up; {choice.why}" if done < choice.size and seconds >= limit else choice.why
    return {"bytes": done, "of": size, "seconds": seconds, "why": why}
