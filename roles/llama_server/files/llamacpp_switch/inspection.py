# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A look at an instance that serves: whether what runs is what was deployed, and how its devices are. Changes nothing."""

from __future__ import annotations

import contextlib
import hashlib
import pathlib
import time

from . import devices, engine, outside
from .api import Api, first_key, local_address
from .files import Document, Layout, SwitchError, read_json
from .front import Front
from .host import Systemd


def inspect(layout: Layout, systemd: Systemd) -> Document:
    """What there is to say about an instance.

    ``drift`` has a sentence for everything that is not as it was deployed, ``devices`` the health of NVIDIA devices by UUID,
    ``xids`` the errors of these devices that their driver reported since the server was started; ``uptime_seconds`` and ``restarts``
    are the unit's.
    """
    current = layout.linked("current")
    state = systemd.show("ActiveEnterTimestampMonotonic", "NeedDaemonReload")
    active = state.get("ActiveState") == "active"
    uptime = max(time.monotonic() - int(state.get("ActiveEnterTimestampMonotonic") or 0) / 1e6, 0.0) if active else 0.0
    shares = read_json(layout.recorded / current / "plan.json").get("memory", {}).get("devices", []) if current else []
    uuids = [str(share.get("uuid")) for share in shares if str(share.get("uuid")).startswith(("GPU-", "MIG-"))]
    health = devices.ask_health(uuids)
    drift = changed_files(layout, current) if current else []
    if state.get("NeedDaemonReload") == "yes":
        drift.append("the unit's files have changed since systemd read them")
    if active and current:
        drift += other_process(layout, current)
        drift += front_problems(layout, current)
    return {
        "drift": drift,
        "devices": {uuid: {"uncorrected": found.uncorrected, "slowed_by": found.slowed_by} for uuid, found in health.items()},
        "xids": devices.ask_xids(time.time() - uptime, devices.ask_addresses(uuids)) if health and active else [],
        "uptime_seconds": round(uptime),
        "restarts": int(state.get("NRestarts") or 0),
    }


def changed_files(layout: Layout, current: str) -> list[str]:
    """Files of the current deployment that are not as they were laid, by hash, and shards of its model, by size."""
    folder = layout.deployment(current)
    document = read_json(folder / "deployment.json")
    found = []
    for name, wanted in sorted((document.get("files") or {}).items()):
        with contextlib.suppress(OSError):
            if hashlib.sha256((folder / name).read_bytes()).hexdigest() == wanted:
                continue
        found.append(f"{folder / name} is not as it was deployed")
    model = pathlib.Path(str(document.get("model_path", ""))).parent
    for shard in document.get("shards") or []:
        path = model / shard["name"]
        size = path.stat().st_size if path.is_file() else -1
        if size != shard["size"]:
            found.append(f"{path} " + ("is gone" if size < 0 else f"has {size} bytes instead of {shard['size']}"))
    if not (folder / "engine/bin/llama-server").exists():
        found.append(f"{document.get('engine_path')} has no llama-server any more")
    elif engine.changed(folder / "engine"):
        found.append(engine.changed(folder / "engine"))
    return found


def other_process(layout: Layout, current: str) -> list[str]:
    """How the process that answers differs from the deployment; a server that is busy loading says nothing."""
    request = layout.request(current)
    try:
        key = first_key(layout.api_keys) if request["api_key"] else ""
        status, props = Api(local_address(request["host"]), int(request["port"]), key).ask("/props")
    except (SwitchError, KeyError):
        return []
    found = []
    if status == 200 and props.get("model_path") != request["model_path"]:
        found.append(f"the server has loaded {props.get('model_path')}, deployed is {request['model_path']}")
    if status == 200 and not f"{props.get('build_info')}-".startswith(f"b{request['build_number']}-"):
        found.append(f"the server is build {props.get('build_info')}, deployed is b{request['build_number']}")
    if status == 401:
        found.append("the server was started with another API key than its key file has now; restart it for the new one")
    return found


def front_problems(layout: Layout, current: str) -> list[str]:
    """What clients meet at the front that they should not: no way in, an old certificate, a host that is out of service."""
    wanted = layout.request(current).get("front") or {}
    front = Front(layout)
    if not wanted or not front.present:
        return []
    try:
        seen = outside.look(wanted["url"], wanted["ca"])
    except SwitchError as error:
        return [str(error)]
    found = list(seen.warnings)
    if front.drained:
        found.append("it is out of service: its front is drained")
    elif seen.health != 200:
        found.append(f"the front does not {'reach the server' if seen.health else 'answer'} at {wanted['url']}")
    return found
