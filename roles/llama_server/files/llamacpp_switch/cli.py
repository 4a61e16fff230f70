# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line of the switch program."""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import shutil
import signal
import sys
import time
import uuid
from collections.abc import Sequence
from typing import Optional

from .engine import changed
from .files import Busy, Document, Layout, SwitchError, read_json
from .front import Front
from .host import Systemd
from .inspection import inspect
from .overlap import LINK
from .transaction import UNFINISHED, Switch, words

PREVIOUS = "previous"
SESSION_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def unit_of(name: str) -> str:
    """The unit that a switch of an instance runs in."""
    return f"llamacpp-switch-{name}.service"


def described(name: str, to: str) -> str:
    """What that unit is called, from which it can be told where its switch goes before it has written its journal."""
    return f"Switch of llama.cpp instance {name} to {to}"


def unit_state(name: str) -> str:
    return Systemd.call("systemctl", "show", "--property=ActiveState", "--value", unit_of(name)).strip()


def under_way(layout: Layout) -> str:
    """Why a switch cannot be started while another one runs, and what to do."""
    name, journal = layout.instance, read_json(layout.journal)
    shown = Systemd.call("systemctl", "show", "--property=Description", "--value", unit_of(name)).strip()
    beginning = described(name, "")
    to = shown[len(beginning) :] if shown.startswith(beginning) else ""
    if journal.get("state") in UNFINISHED or not to:
        to = journal.get("to", "")
    return (
        f"another switch of {name} is running, to {to or 'an unknown deployment'}: wait until it is done. status.yml says how far it is,"
        f" on the host llamacpp-switch status --instance {name}"
    )


def start(switch: Switch, to: str, run_id: str, *options: str) -> Document:
    """Start a switch that outlives this session, and wait until it has written its journal.

    :param run_id: who lost the answer asks once more with the same one, and starts nothing a second time
    :raises SwitchError: it could not be started.
    """
    name = switch.layout.instance
    if read_json(switch.layout.journal).get("run") == run_id:
        return switch.status()
    if switch.running():
        raise SwitchError(under_way(switch.layout))
    unit = unit_of(name)
    # One that has just ended may still be tidied up after.
    end = time.monotonic() + 30
    while unit_state(name) == "deactivating" and time.monotonic() < end:
        time.sleep(0.1)
    own = [sys.executable, "-I", os.path.abspath(sys.argv[0]), "run", "--instance", name, "--to", to, "--run", run_id]
    try:
        Systemd.call(
            "systemd-run", "--quiet", "--collect", f"--unit={unit}", "--property=OOMScoreAdjust=-900",
            # Whatever ends the program, an unfinished switch is undone at once; after a finished one this does nothing.
            f"--property=ExecStopPost={' '.join(own[:3])} recover --instance {name}",
            # Servers are stopped and started in there, each of which may take its minute.
            "--property=TimeoutStopSec=15min",
            f"--description={described(name, to)}", *own, *options,
            timeout=60,
        )  # fmt: skip
    except SwitchError:
        # One that was started at the same time holds the unit's name, perhaps without its lock yet.
        if unit_state(name) in ("activating", "active", "deactivating"):
            raise SwitchError(under_way(switch.layout)) from None
        raise
    end = time.monotonic() + 30
    while time.monotonic() < end:
        document = switch.status()
        if document.get("run") == run_id:
            return document
        time.sleep(0.1)
    if switch.running():
        raise SwitchError(under_way(switch.layout))
    raise SwitchError(f"the switch did not begin: see journalctl -u {unit}")


def by_hand(switch: Switch, to: str, restart: bool, ahead: bool) -> Document:
    """Switch in this session, and undo it when that ends in the middle: nobody else would before the next boot.

    :raises SwitchError: it was interrupted.
    """
    for number in SESSION_ENDS:
        signal.signal(number, signal.default_int_handler)
    try:
        return switch.run(to, uuid.uuid4().hex[:12], restart, ahead)
    except KeyboardInterrupt:
        for number in SESSION_ENDS:
            signal.signal(number, signal.SIG_IGN)
        switch.recover()
        raise SwitchError(f"interrupted; {switch.journal.get('progress')}") from None


def resolved(layout: Layout, to: str) -> str:
    """The id of a deployment that is named by its id or as the one before.

    :raises SwitchError: there is none before.
    """
    if to != PREVIOUS:
        return to
    before = layout.linked(PREVIOUS)
    if not before:
        raise SwitchError(f"instance {layout.instance} has no deployment before {layout.linked('current') or 'the first one'}")
    return before


def out_of_service(front: Front, wanted: bool, seconds: float, by: str) -> Document:
    """Take an instance out of service or put it back; whether that changed anything, and how many requests are still under way.

    :param by: who wishes it, empty for an operator; only who took it out puts it back, and an operator
    :raises SwitchError: it has no front that could refuse requests.
    """
    if not front.present:
        raise SwitchError(f"instance {front.layout.instance} has no front (llama_server_front)")
    before = front.drained
    if not wanted:
        front.undrain(by)
        return {"changed": front.drained != before, "drained": front.drained, "running": front.running(front.port)}
    front.drain(by)
    left = front.wait_idle(front.port, seconds, lambda _text: None)
    return {"changed": not before, "drained": True, "running": left}


def instances(root: pathlib.Path = pathlib.Path("/var/lib/llamacpp/instances")) -> list[str]:
    """The instances of this host."""
    return sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []


def recover(names: Sequence[str], boot: bool = False) -> int:
    """Undo the interrupted switches of instances, each whatever becomes of the others; the exit status."""
    status = 0
    for name in names:
        try:
            if Switch(Layout(name), Systemd(name)).recover(boot):
                print(f"{name}: an interrupted switch was undone")
        except (SwitchError, OSError) as error:
            print(f"{name}: an interrupted switch could not be undone: {words(error)}", file=sys.stderr)
            status = 1
    return status


def show(document: Document) -> None:
    print(json.dumps(document, indent=2, sort_keys=True))


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="llamacpp-switch", description="Switch a llama.cpp instance to a deployment, or back.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("switch", "start a switch in the background and print its journal"),
        ("run", "switch and wait"),
        ("status", "print the journal"),
        ("inspect", "print whether what runs is what was deployed, and how its devices are"),
        ("recover", "undo switches that were interrupted"),
        ("drain", "let the front refuse new requests, and wait for those that are under way"),
        ("undrain", "let the front take requests again"),
        ("verify", "tell whether the engine of the current deployment is as it was made"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("--instance", required=name != "recover", help="one instance; all of them" if name == "recover" else None)
        if name in ("switch", "run"):
            command.add_argument("--to", required=True, metavar="ID", help="a deployment's id, or 'previous'")
            command.add_argument("--restart", action="store_true", help="restart even when the deployment runs already")
            command.add_argument("--at-once", action="store_true", help="do not read the model ahead; the way back is always at once")
            command.add_argument("--run", default="", help=argparse.SUPPRESS)
        if name == "recover":
            command.add_argument("--boot", action="store_true", help="leave starting the servers to systemd, which does so afterwards")
        if name == "verify":
            command.add_argument("--link", choices=("current", LINK), default="current", help=argparse.SUPPRESS)
        if name == "status":
            command.add_argument("--after", type=int, default=-1, help="wait until the journal is past this sequence number")
        if name in ("drain", "undrain"):
            command.add_argument("--by", default="", metavar="NAME", help="who wishes it, which only they and who gives no name take back")
        if name in ("status", "drain"):
            command.add_argument("--wait", type=float, default=0, metavar="SECONDS")
    return parser


def main(argv: Optional[list[str]] = None) -> int:
    options = arguments().parse_args(argv)
    try:
        if options.command == "recover":
            return recover([options.instance] if options.instance else instances(), options.boot)
        if options.command == "verify":
            layout = Layout(options.instance)
            problem = changed(layout.deployment(layout.linked(options.link)) / "engine")
            if problem:
                raise SwitchError(problem)
            return 0
        if options.command in ("drain", "undrain"):
            show(out_of_service(Front(Layout(options.instance)), options.command == "drain", getattr(options, "wait", 0.0), options.by))
            return 0
        if shutil.which("systemctl") is None:
            raise SwitchError("this host has no systemd")
        switch = Switch(Layout(options.instance), Systemd(options.instance))
        if options.command == "status":
            show(switch.wait(options.after, options.wait))
            return 0
        if options.command == "inspect":
            show(inspect(switch.layout, switch.systemd))
            return 0
        run_id = options.run or uuid.uuid4().hex[:12]
        to, at_once = resolved(switch.layout, options.to), options.at_once or options.to == PREVIOUS
        if options.command == "switch":
            flags = {"--restart": options.restart, "--at-once": at_once}
            show(start(switch, to, run_id, *(flag for flag, wanted in flags.items() if wanted)))
            return 0
        try:
            if options.run:
                final = switch.run(to, options.run, options.restart, ahead=not at_once)
            else:
                final = by_hand(switch, to, options.restart, not at_once)
        except Busy:
            raise SwitchError(under_way(switch.layout)) from None
        print(final["progress"])
        return 0 if final["state"] == "committed" else 1
    except (SwitchError, OSError) as error:
        print(words(error), file=sys.stderr)
    return 1
