# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of ours goes from a host, what stands in the way, and the removal itself.

Three things can be asked for: instances, engines, models. Each step is found by what lies on the host, so that a removal that
was interrupted is finished by the next one, and one that has nothing to do has no steps.
"""

from __future__ import annotations

import contextlib
import glob
import os
import pwd
import shutil
from collections.abc import Iterator
from typing import Any, NamedTuple

from ansible_collections.onprem.llamacpp.plugins.module_utils import (
    _disks,
    _firewall,
    _front,
    _installed,
    _instance,
    _processes,
    _units,
)
from ansible_collections.onprem.llamacpp.plugins.module_utils._host import Run, read_json, read_text
from ansible_collections.onprem.llamacpp.plugins.module_utils._prune_store import discard

EVERY = "all"
SERVER_USER = "llamacpp"
UNITS = "etc/systemd/system"
PROGRAMS = "usr/local/libexec/llamacpp"
INSTALLED = "Installed by the role onprem.llamacpp.llama_server"
MIRROR = "var/lib/llamacpp/mirror"
# What builds leave in the engines' folder beside the releases.
ENGINE_FOLDERS = ("releases", "build", "cuda")


class RemovalError(Exception):
    """A step that did not succeed, in words for the user."""


class Wish(NamedTuple):
    """What is to go. ``instances`` are names, or ``all`` alone."""

    instances: list[str]
    engines: bool
    models: bool


class Places(NamedTuple):
    """Where to look; ``root`` is / except in tests."""

    engine_root: str = "/opt/llamacpp"
    model_root: str = "/var/lib/llamacpp/models"
    model_user: str = "llamacpp-fetch"
    root: str = "/"


class Step(NamedTuple):
    """One thing that goes.

    ``kind`` is unit, file, folder or model (with all in it), empty (a folder, if nothing else is in it), hold, user, or an instance's
    front or firewall.
    """

    kind: str
    what: str


class Removal:
    """The steps for a wish, and why they may not be taken."""

    def __init__(self, wish: Wish, places: Places, run: Run, proc: str = "/proc") -> None:
        self.wish, self.places, self.run, self.proc = wish, places, run, proc
        self.config, self.state = self._at("etc/llamacpp/instances"), self._at("var/lib/llamacpp/instances")
        self.found = self._instances()
        self.going = self.found if EVERY in wish.instances else [name for name in wish.instances if name in self.found]
        self.staying = [name for name in self.found if name not in self.going]
        self.last = bool(wish.instances) and not self.staying

    def _at(self, path: str) -> str:
        return os.path.join(self.places.root, path)

    def _instances(self) -> list[str]:
        """Every instance that anything is left of."""
        found = {*_instance.instances(self.config), *_instance.instances(self.state)}
        for path in glob.glob(self._at(f"{UNITS}/llamacpp@*.service.d/50-deployment.conf")):
            found.add(os.path.basename(os.path.dirname(path))[len("llamacpp@") : -len(".service.d")])
        return sorted(found)

    # What stands in the way

    def refusals(self) -> list[str]:
        """Why nothing may be removed; empty when nothing stands in the way."""
        found = [
            f"a switch of {name} is running: wait until it has ended"
            for name in self.going
            if _units.is_active(self.run, f"llamacpp-switch-{name}.service")
        ]
        own = {f"{unit}@{name}.service" for name in self.going for unit in ("llamacpp", "llamacpp-beside")}
        if self.wish.engines:
            found += self._needed("engine", self.places.engine_root)
            found += self._held(self.places.engine_root, own)
        if self.wish.models:
            found += self._needed("model", self.places.model_root)
            found += self._held(self.places.model_root, own)
            found += self._shared_models()
        return found

    def _needed(self, link: str, root: str) -> list[str]:
        """Instances that stay and have a deployment with its engine or model below a root."""
        found = []
        for name in self.staying:
            for deployment in sorted(glob.glob(os.path.join(self.config, name, "deployments", "*"))):
                target = os.path.realpath(os.path.join(deployment, link))
                if os.path.islink(os.path.join(deployment, link)) and _below(target, root):
                    found.append(f"deployment {os.path.basename(deployment)} of instance {name}, which stays, needs the {link} {target}")
        return found

    def _held(self, root: str, own: set[str]) -> list[str]:
        """Programs of others that have a file below a root open."""
        strangers = [user for user in _processes.holders([root], self.proc)[root] if user["unit"] not in own]
        return [f"{user['program']} (PID {user['pid']}) has an open file below {root}: stop it first" for user in strangers[:3]]

    def _shared_models(self) -> list[str]:
        root = self.places.model_root
        if not os.path.isdir(root):
            return []
        found = []
        filesystem = _disks.mount_of(_disks.existing(root), read_text(os.path.join(self.proc, "self/mounts"))).filesystem
        if _disks.shared(filesystem):
            found.append(f"{root} is on {filesystem}, where other hosts may use the models: remove them by hand")
        mirror = self._at(MIRROR)
        for folder, folders, files in os.walk(mirror):
            links = (os.path.join(folder, name) for name in [*folders, *files])
            if any(os.path.islink(link) and _below(os.path.realpath(link), root) for link in links):
                found.append(
                    f"the mirror of this host serves models of {root}: take the host out of llama_mirrors and remove {mirror} first"
                )
                break
        listing = ["systemctl", "list-units", "--plain", "--no-legend", "--state=active,activating"]
        _status, out, _err = self.run([*listing, "llamacpp-fetch-*", "llamacpp-swarm-*"])
        units = [line.split()[0] for line in out.splitlines() if line.strip()]
        found += [f"{unit} brings a model or gives it to other hosts: stop it first (systemctl stop {unit})" for unit in units]
        return found

    # What goes

    def steps(self) -> list[Step]:
        """Everything that is there and goes, in the order in which it goes."""
        wanted = [step for name in self.going for step in self._instance_steps(name)]
        wanted += self._server_steps() if self.last else []
        wanted += self._engine_steps() if self.wish.engines else []
        wanted += self._model_steps() if self.wish.models else []
        for folder in ("var/cache/llamacpp", "etc/llamacpp", "var/lib/llamacpp"):
            wanted.append(Step("empty", self._at(folder)))
        return list(self._there(wanted))

    def _instance_steps(self, name: str) -> list[Step]:
        drop_ins = self._at(f"{UNITS}/llamacpp@{name}.service.d")
        front, firewall = self._front(name), self._firewall(name)
        return [
            Step("front", name),
            Step("folder", front.folder),
            *(Step("file", path) for path in sorted(glob.glob(self._at(f"var/log/nginx/llamacpp-{name}.log*")))),
            Step("firewall", name),
            *(Step("file", path) for path in (firewall.record, firewall.table)),
            # The second server of a switch, which serves on where going back has failed.
            Step("unit", f"llamacpp-beside@{name}.service"),
            Step("folder", self._at(f"run/systemd/system/llamacpp-beside@{name}.service.d")),
            Step("unit", f"llamacpp@{name}.service"),
            Step("file", f"{drop_ins}/50-deployment.conf"),
            Step("empty", drop_ins),
            *(Step("folder", os.path.join(base, name)) for base in (self.config, self.state, self._at("var/cache/llamacpp"))),
        ]

    def _front(self, name: str) -> _front.Front:
        return _front.Front(name, self._at("etc/llamacpp/front"), self._at("etc/nginx/conf.d"), self.run)

    def _firewall(self, name: str) -> _firewall.Firewall:
        return _firewall.Firewall(name, self._at("etc/llamacpp/firewall"), self.run)

    def _server_steps(self) -> list[Step]:
        """What all instances share: units are ours by what stands in them."""
        files = sorted(path for path in glob.glob(self._at(f"{UNITS}/llamacpp*.service")) if INSTALLED in read_text(path))
        names = [os.path.basename(path) for path in files]
        return [
            *(Step("unit", name) for name in reversed(names) if "@" not in name),
            *(Step("file", path) for path in files),
            Step("file", self._at("etc/llamacpp/tuning.json")),
            Step("folder", self._at(PROGRAMS)),
            Step("folder", self._at("run/llamacpp")),
            # The authority of the host's own certificates is of no use to anybody else.
            Step("folder", self._at("etc/llamacpp/front")),
            Step("empty", self._at("etc/llamacpp/firewall")),
            Step("empty", self.config),
            Step("empty", self.state),
            Step("user", SERVER_USER),
        ]

    def packages(self) -> list[str]:
        """Packages of the distribution that engines were made of."""
        builds = (read_json(path) for path in glob.glob(os.path.join(self.places.engine_root, "releases", "*", "build.json")))
        return sorted({name for build in builds for name in build.get("packages") or {}})

    def front_ports(self, steps: list[Step]) -> list[int]:
        """Ports of the fronts that go, which SELinux may have been told of."""
        return sorted({port for step in steps if step.kind == "front" for port in self._front(step.what).ports()})

    def _engine_steps(self) -> list[Step]:
        root, packages = self.places.engine_root, self.packages()
        held: set[str] = set()
        if packages:
            held = set(self.run(["apt-mark", "showhold", *packages])[1].split())
        return [
            *(Step("hold", name) for name in packages if name in held),
            *(Step("folder", os.path.join(root, name)) for name in ENGINE_FOLDERS),
            Step("file", self._at("etc/profile.d/llamacpp-cuda.sh")),
            Step("empty", root),
        ]

    def _model_steps(self) -> list[Step]:
        root, mirror = self.places.model_root, self._at(MIRROR)
        ours = [model["path"] for model in _installed.models(root)]
        ours += [entry["path"] for entry in _installed.partial_models(root)]
        ours += sorted(glob.glob(os.path.join(root, "*", "*", ".*.removed")))
        commits = sorted({os.path.dirname(path) for path in ours})
        return [
            *(Step("model", path) for path in ours),
            *(Step("empty", path) for path in [*commits, *sorted({os.path.dirname(path) for path in commits})]),
            # A folder that the user has named is the user's, empty too.
            *([Step("empty", root)] if _below(root, self._at("var/lib/llamacpp")) else []),
            *(Step("folder", self._at(folder)) for folder in ("run/llamacpp-fetch", "run/llamacpp-swarm")),
            *([] if os.path.isdir(mirror) else [Step("user", self.places.model_user)]),
        ]

    def _there(self, wanted: list[Step]) -> Iterator[Step]:
        """The steps that have something to remove, seen as they follow each other."""
        gone: set[str] = set()
        for step in wanted:
            if step.kind == "unit":
                there = self._enabled(step.what) or _units.is_active(self.run, step.what)
            elif step.kind == "front":
                there = os.path.exists(self._front(step.what).site)
            elif step.kind == "firewall":
                there = os.path.exists(self._firewall(step.what).record)
            elif step.kind == "user":
                there = _is_user(step.what)
            elif step.kind == "empty":
                there = (
                    os.path.isdir(step.what)
                    and not os.path.ismount(step.what)
                    and {os.path.join(step.what, name) for name in os.listdir(step.what)} <= gone
                )
            else:
                there = step.kind == "hold" or os.path.lexists(step.what)
            if there:
                gone.add(step.what)
                yield step

    def _enabled(self, unit: str) -> bool:
        return os.path.lexists(self._at(f"{UNITS}/multi-user.target.wants/{unit}"))

    # The removal

    def carry_out(self, steps: list[Step]) -> None:
        """Take the steps.

        :raises RemovalError: one of them did not succeed; run again once its cause is mended.
        """
        for step in steps:
            if step.kind == "unit":
                self._must(["systemctl", "--quiet", "disable", "--now", step.what])
            elif step.kind == "hold":
                self._must(["apt-mark", "unhold", step.what])
            elif step.kind == "user":
                self._must(["userdel", step.what])
            elif step.kind == "front":
                front = self._front(step.what)
                front.apply({}, [front.site, front.upstream], check_mode=False)
            elif step.kind == "firewall":
                self._firewall(step.what).apply("none", [], check_mode=False)
            elif step.kind == "folder":
                shutil.rmtree(step.what)
            elif step.kind == "model":
                # Renamed first, so that what an interruption leaves is known for what it is.
                discard(step.what, self.places.model_root)
            elif step.kind == "empty":
                with contextlib.suppress(OSError):  # something came in between, which is not ours
                    os.rmdir(step.what)
            else:
                with contextlib.suppress(FileNotFoundError):  # another step has taken it along
                    os.unlink(step.what)
        if any(step.kind == "unit" or UNITS in step.what for step in steps):
            self._must(["systemctl", "daemon-reload"])
        forgotten = [step.what for step in steps if step.kind == "unit"] + (["llamacpp-fetch-*"] if self.wish.models else [])
        if forgotten:
            self.run(["systemctl", "reset-failed", *forgotten])

    def _must(self, argv: list[str]) -> None:
        status, out, err = self.run(argv)
        if status != 0:
            raise RemovalError(f"{' '.join(argv)} failed: {' '.join((err or out).split())[:500]}")


def _below(path: str, root: str) -> bool:
    return os.path.realpath(path).startswith(os.path.realpath(root) + os.sep)


def _is_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def lines(steps: list[Step]) -> str:
    """The steps as lines of text, for a diff."""
    words: dict[str, str] = {
        "hold": "hold on the package ",
        "user": "user ",
        "unit": "unit ",
        "front": "front of ",
        "firewall": "firewall's rules of ",
    }
    return "".join(f"{words.get(step.kind, '')}{step.what}\n" for step in steps)


def summary(steps: list[Step]) -> list[dict[str, Any]]:
    """The steps as data."""
    return [{"kind": step.kind, "what": step.what} for step in steps]
