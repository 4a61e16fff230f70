# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A second server beside the first: where memory allows, the new deployment is proven on a spare port while the old one serves,
and takes its requests until the instance's own unit serves the new deployment too. Bytes."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from . import devices, neighbours, pagecache
from .files import Document, Layout, read_json, remove_file, write_text
from .front import Front
from .host import Systemd, listening

GB = 1e9
LINK = "beside"


class Choice(NamedTuple):
    """Whether two servers run at once, and why or why not."""

    chosen: bool
    why: str


class Memory(NamedTuple):
    """The host as it is: what the kernel could give without taking it from other instances, and what the running server has of
    its own and in mapped files."""

    available: int
    own: int
    mapped: int


def fits(needed: int, memory: Memory, shares: Sequence[Document], free: Mapping[str, int], held: Mapping[str, int]) -> Choice:
    """Whether a new server fits beside the old one, and again beside itself when the old one is gone.

    :param needed: what it takes of the host's memory, its weights included
    :param shares: what it takes of each device, as in the plan
    :param free: what is free of devices now, by their UUID
    :param held: what the old server holds of them
    """
    room = memory.available - memory.mapped
    if needed > room:
        return Choice(False, f"it takes {needed / GB:.1f} GB of memory and {max(room, 0) / GB:.1f} GB are free beside the running server")
    if 2 * needed > memory.available + memory.own:
        return Choice(False, f"it takes {needed / GB:.1f} GB of memory, which are not there twice")
    for share in shares:
        name, uuid = share["engine_name"], str(share.get("uuid", ""))
        part = sum(int(share.get(key) or 0) for key in ("weights", "context", "compute"))
        if part and uuid not in free:
            return Choice(False, f"it is not known how much of {name} is free")
        if part and (part > free[uuid] or 2 * part > free[uuid] + held.get(uuid, 0)):
            return Choice(False, f"it takes {part / GB:.1f} GB of {name}, of which {free[uuid] / GB:.1f} GB are free")
    return Choice(True, f"it takes {needed / GB:.1f} GB of memory and {room / GB:.1f} GB are free beside the running server")


def choose(layout: Layout, systemd: Systemd, front: Front, to: str) -> Choice:
    """Whether this switch is one with two servers at once."""
    request, old = layout.request(to), layout.linked("current")
    state = systemd.show()
    if request.get("overlap", "never") != "auto":
        return Choice(False, "llama_server_overlap is never")
    if not front.present:
        return Choice(False, "without a front there is nobody to move requests")
    if not old or old == to or state.get("ActiveState") != "active":
        return Choice(False, "nothing serves that could be interrupted")
    if front.port == int(request["spare_port"]) or listening("127.0.0.1", int(request["spare_port"])):
        return Choice(False, f"port {request['spare_port']} is not free")
    plan, before = read_json(layout.recorded / to / "plan.json"), read_json(layout.recorded / old / "plan.json")
    pid = int(state.get("MainPID", 0))
    host, shares = plan.get("memory", {}).get("host", {}), plan.get("memory", {}).get("devices", [])
    same = layout.request(old).get("model_path") == request["model_path"]
    available = pagecache.available_memory() - neighbours.reserved(layout)
    memory = Memory(available, pagecache.own_memory(pid), 0 if same else pagecache.mapped_memory(pid))
    held = {
        str(share.get("uuid", "")): sum(int(share.get(key) or 0) for key in ("weights", "context", "compute"))
        for share in before.get("memory", {}).get("devices", [])
    }
    weights = int(host.get("weights") or 0) if host else int(request["model_bytes"])
    free = devices.ask_free([str(share.get("uuid", "")) for share in shares])
    return fits(weights + pagecache.planned_beside(plan), memory, shares, free, held)


class Beside:
    """The second server of an instance. It exists during a switch only, and never after a boot."""

    def __init__(self, layout: Layout, systemd: Systemd) -> None:
        self.layout, self.systemd = layout, systemd

    @property
    def present(self) -> bool:
        """Whether one is there, running or not."""
        return (self.layout.declared / LINK).is_symlink()

    @property
    def deployment(self) -> str:
        """The deployment that it was started from."""
        return self.layout.linked(LINK)

    @property
    def port(self) -> int:
        """Where it listens; 0 when there is none."""
        return int(self.layout.request(self.deployment).get("spare_port", 0)) if self.deployment else 0

    def serves(self, front: Front) -> bool:
        """Whether it runs and gets the requests, as during a switch and after an undoing that has failed."""
        return self.port != 0 and front.port == self.port and self.systemd.show().get("ActiveState") == "active"

    def start(self, deployment: str, port: int) -> None:
        """Start a deployment on another port, in a unit like the instance's own.

        :raises SwitchError: it did not start.
        """
        self.layout.link(LINK, deployment)
        unit = (self.layout.deployment(deployment) / "unit.conf").read_text(encoding="utf-8")
        write_text(self.layout.beside_environment, f"LLAMA_ARG_PORT={port}\n", durable=False)
        write_text(self.layout.beside_drop_in, beside(unit, port, str(self.layout.beside_environment)), durable=False)
        self.systemd.reload()
        self.systemd.restart()

    def stop(self) -> None:
        """Stop it and leave nothing of it."""
        if not self.present:
            return
        self.systemd.stop()
        for path in (self.layout.beside_drop_in, self.layout.beside_environment):
            remove_file(path)
        with contextlib.suppress(OSError):
            self.layout.beside_drop_in.parent.rmdir()
        self.systemd.reload()
        self.layout.link(LINK, "")


def beside(unit: str, port: int, environment: str) -> str:
    """A deployment's drop-in for the second server: what names the current deployment names this one, and it may bind its port."""
    text = unit.replace("/current/", f"/{LINK}/").replace("verify --instance %i", f"verify --instance %i --link {LINK}")
    return f"{text}\n[Service]\nEnvironmentFile={environment}\nSocketBindAllow=tcp:{port}\n"
