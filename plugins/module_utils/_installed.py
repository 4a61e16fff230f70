# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of ours is on a host: engine releases, published models, instances, and the devices that engines see.

Read from the documents that the roles leave behind. Sizes are bytes. What is broken is left out, never an error.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Optional

from ansible_collections.onprem.llamacpp.plugins.module_utils import _capabilities, _device, _firewall, _front, _instance, _server
from ansible_collections.onprem.llamacpp.plugins.module_utils._files import room_taken
from ansible_collections.onprem.llamacpp.plugins.module_utils._host import Run, read_json, read_text, run_command


def engines(root: str, run: Run = run_command, uses: Sequence[Mapping[str, str]] = ()) -> list[dict[str, Any]]:
    """Engine releases below ``<root>/releases``; one whose packages have changed under it is not intact.

    Args:
        root: folder of the engines.
        run: runs a tool.
        uses: who needs which, as ``_instance.engine_uses`` tells it. A use of an unknown engine may be one of any.
    """
    found = []
    for path in sorted(glob.glob(os.path.join(root, "releases", "*", "build.json"))):
        build = read_json(path)
        folder = os.path.dirname(path)
        if build.get("build_id") != os.path.basename(folder):
            continue
        programs = build.get("programs", {})
        intact = bool(programs) and all(os.access(os.path.join(folder, program), os.X_OK) for program in programs.values())
        packages = build.get("packages") or {}
        if intact and packages:
            status, out, _err = run(["dpkg-query", "-W", "-f=${Package} ${Version} ${db:Status-Want}\\n", *packages])
            now = {line.split(" ")[0]: line.split(" ")[1:] for line in out.splitlines()} if status == 0 else {}
            intact = all(now.get(name) == [version, "hold"] for name, version in packages.items())
            intact = intact and not other_backends(build.get("files") or {})
        found.append(
            {"build_id": build["build_id"], "path": folder, "intact": intact, "used_by": _users(folder, uses), "build": build},
        )
    return found


def other_backends(files: Iterable[str]) -> list[str]:
    """Backends that lie beside those of a packaged engine and are not among its files; it would load them all the same."""
    known = set(files)
    folders = {os.path.dirname(path) for path in known if os.path.basename(os.path.dirname(path)).startswith("backends")}
    found = (path for folder in folders for path in glob.glob(os.path.join(glob.escape(folder), "libggml-*.so")))
    return sorted(path for path in found if path not in known)


def models(root: str, uses: Sequence[Mapping[str, str]] = ()) -> list[dict[str, Any]]:
    """Published models; complete means that every file of the manifest is there with its size.

    Args:
        root: folder of the store.
        uses: who needs which, as ``_instance.model_uses`` tells it. A use of an unknown model may be one of any.
    """
    found = []
    for path in sorted(glob.glob(os.path.join(root, "*", "*", "*", "manifest.json"))):
        manifest = read_json(path)
        folder = os.path.dirname(path)
        files = manifest.get("files") or []
        if not files or not manifest.get("repo_id"):
            continue
        complete = all(_size(os.path.join(folder, entry.get("name", ""))) == entry.get("size") for entry in files)
        # Hashes of blocks are for repairs; a large model has ten thousand of them, too many for facts.
        manifest["files"] = [{name: value for name, value in entry.items() if name != "blocks"} for entry in files]
        found.append(
            {
                "repo_id": manifest["repo_id"],
                "commit": manifest.get("commit", ""),
                "quant": manifest.get("quant", ""),
                "path": folder,
                "bytes": manifest.get("bytes", 0),
                "complete": complete,
                "frees": sum(size for _inode, links, size in held(folder) if links == 1),
                "used_by": _users(folder, uses),
                "manifest": manifest,
            }
        )
    return found


def _users(folder: str, uses: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """The instances and links that need a folder, or may need it."""
    return [{"instance": use["instance"], "link": use["link"]} for use in uses if use["path"] in ("", os.path.realpath(folder))]


def held(folder: str) -> list[tuple[str, int, int]]:
    """The files of a model as inode, number of names and bytes: two models may share files, which go with the last of them."""
    found = []
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            status = entry.stat(follow_symlinks=False)
            found.append((f"{status.st_dev}:{status.st_ino}", status.st_nlink, status.st_size))
    return found


def partial_models(root: str) -> list[dict[str, Any]]:
    """Models that are under way: what an interrupted download has left is room that the rest need not find again."""
    found = []
    for folder in sorted(glob.glob(os.path.join(root, "*", "*", ".*.staging"))):
        repository, commit, name = folder.split(os.sep)[-3:]
        inside = [os.path.join(path, entry) for path, _folders, files in os.walk(folder) for entry in files]
        found.append(
            {
                "repo_id": repository.replace("--", "/", 1),
                "commit": commit,
                "quant": name[1 : -len(".staging")],
                "path": folder,
                "bytes": sum(room_taken(path) for path in inside),
                "modified_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(max(map(_modified, [folder, *inside])))),
            }
        )
    return found


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def _modified(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0


def instances(config_root: str = _instance.CONFIG_ROOT, state_root: str = _instance.STATE_ROOT) -> list[dict[str, Any]]:
    """Our server instances: what is deployed, whether it was committed, runs and answers."""
    found = []
    needed = _instance.model_uses(config_root)
    for name in _instance.instances(config_root):
        instance = _instance.Instance(name, config_root, state_root)
        current = instance.current()
        document = read_json(os.path.join(instance.deployment(current), "deployment.json")) if current else {}
        active = _server.active_state(name)
        host, port = document.get("host", "127.0.0.1"), int(document.get("port", 0))
        found.append(
            {
                "name": name,
                "deployment": current,
                "previous": instance.previous(),
                # Deployments whose model has been removed; going back to one needs a download.
                "models_missing": [
                    use["link"] for use in needed if use["instance"] == name and use["path"] and not os.path.isdir(use["path"])
                ],
                # The journal names what passed its gate last; after an undo that is the older deployment.
                "committed": instance.proven(),
                "active": active,
                "healthy": active == "active" and port > 0 and _server.health(host, port) == "ok",
                "host": host,
                "port": port,
                # Whether nginx stands before it, and whether a firewall was told of it.
                "front": os.path.exists(_front.Front(name).site),
                "front_ports": _front.Front(name).ports(),
                "firewall": os.path.exists(_firewall.Firewall(name).record),
                "document": document,
                "plan": read_json(instance.record(current, "plan.json")) if current else {},
                # What its last start took on the devices, and what a benchmark of it has measured.
                "actual": read_json(instance.record(current, "actual.json")).get("devices", []) if current else [],
                "benchmark": read_json(instance.record(current, "benchmark.json")) if current else {},
            }
        )
    return found


def tuning(path: str = "/etc/llamacpp/tuning.json") -> list[dict[str, Any]]:
    """The settings of the host that it was told to have."""
    try:
        found = json.loads(read_text(path) or "[]")
    except ValueError:
        return []
    return found if isinstance(found, list) else []


def engine_device(device: dict[str, Any], kind: str) -> dict[str, Any]:
    """A device that an engine listed; without a hardware id the engine's name serves as one."""
    return _device.device(device["engine_name"], kind, device["engine_name"], device["name"], device["total"])


def devices_in_use(found_instances: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Devices that a running instance was planned on. An RPC server has one client at a time, so only its server sees it."""
    devices: dict[str, dict[str, Any]] = {}
    for instance in found_instances:
        if instance["active"] == "active" and instance["plan"].get("engine_backend") == "rpc":
            for device in instance["plan"].get("devices", []):
                devices[device["uuid"]] = _device.device(**{key: value for key, value in device.items() if key != "capacity"})
    return list(devices.values())


def list_devices(
    backend: str,
    found_engines: list[dict[str, Any]],
    found_instances: list[dict[str, Any]],
    environment: Optional[dict[str, str]],
    run: Optional[Run] = None,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Devices that the newest engine of a backend sees, the one in use before others, and warnings."""
    fitting = [engine for engine in found_engines if engine["intact"] and engine["build"].get("backend") == backend]
    if not fitting:
        return [], []
    in_use = {instance["document"].get("build_id") for instance in found_instances}
    best = max(fitting, key=lambda engine: (engine["build_id"] in in_use, engine["build"].get("number", 0)))
    program = os.path.join(best["path"], best["build"]["programs"]["llama-server"])
    argv = [program, "--list-devices"]
    status, out, err = run(argv) if run else run_command(argv, 60.0, environment)
    devices = [engine_device(device, backend) for device in _capabilities.parse_devices(out)]
    if status == 0 and devices:
        return devices, []
    return devices, [f"{program} --list-devices shows no device: {(err.strip().splitlines() or ['no message'])[-1]}"]
