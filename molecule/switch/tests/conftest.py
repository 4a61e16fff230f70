# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One server that is switched: deployments of every kind beside the two that the playbook made, and a look at what serves.

Every test begins and ends with GOOD serving and OTHER before it.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests/lab"))

import plays

INVENTORY = str(ROOT / "molecule/switch/inventory")
FULL = "FULL" in os.environ
CUT_SECONDS = 20  # longer than ssh waits for a sign of life
PROGRAM = "/usr/local/libexec/llamacpp/llamacpp-switch"


lab = functools.partial(plays.lab, INVENTORY)


class Ended(NamedTuple):
    """What a switch came to: its exit status, its journal, and whether the log of the server is in it."""

    status: int
    journal: dict[str, Any]


class Server:
    """The host with its instances."""

    def __init__(self, host: Any) -> None:
        self.host = host
        self.good, self.other = self.link("current"), self.link("previous")

    def out(self, command: str) -> str:
        return str(self.host.check_output(command))

    def link(self, name: str, instance: str = "main") -> str:
        found = self.host.run(f"readlink /etc/llamacpp/instances/{instance}/{name}")
        return Path(found.stdout.strip()).name

    def journal(self, instance: str = "main") -> dict[str, Any]:
        return dict(json.loads(self.out(f"{PROGRAM} status --instance {instance}")))

    def request(self, deployment: str) -> dict[str, Any]:
        return dict(json.loads(self.out(f"cat /var/lib/llamacpp/instances/main/{deployment}/request.json")))

    def lay(self, name: str, base: str = "", instance: str = "main", **more: Any) -> str:
        """A deployment like another one; its id follows from its name."""
        identity = hashlib.sha256(name.encode()).hexdigest()[:12]
        wish = {"base": base or self.good, "id": identity, "instance": instance, "environment": {}, "engine": "", "unit": "", "records": {}}
        self.out(f"python3 /root/hand.py lay '{json.dumps({**wish, 'request': {}, **more})}'")
        return identity

    def switch(self, to: str, instance: str = "main") -> Ended:
        """Switches and waits."""
        done = self.host.run(f"{PROGRAM} run --instance {instance} --to {to}")
        return Ended(done.rc, self.journal(instance))

    def begin(self, to: str, state: str) -> None:
        """Starts a switch in the background and holds it in a state."""
        self.host.run(f"systemd-run --quiet --collect --unit=hold python3 /root/hand.py hold {state}")
        self.out(f"{PROGRAM} switch --instance main --to {to}")
        self.until_held()

    def until_held(self) -> None:
        plays.wait_until(lambda: self.host.run("systemctl is-active hold").stdout.strip() != "active", 60)
        assert self.host.run("test -f /run/switch-held").rc == 0, self.host.run("journalctl -n 5 -u hold").stdout

    def asked(self, instance: str = "main") -> dict[str, Any]:
        return dict(json.loads(self.out(f"python3 /root/hand.py ask {instance}")))

    def serves(self, deployment: str) -> None:
        """Journal, links, unit and the process itself agree that this deployment serves; nothing is under way."""
        plays.wait_until(lambda: not self.journal()["running"] and self.asked()["health"] == 200)
        journal, answer = self.journal(), self.asked()
        assert (journal["committed"], journal["current"], journal["serving"]) == (deployment, deployment, deployment), journal
        assert journal["state"] in ("committed", "undone")
        assert answer["model"] == self.request(deployment)["model_path"]
        assert answer["answer"]
        unit = self.out("systemctl show -p ActiveState,UnitFileState --value llamacpp@main").split()
        assert unit == ["active", "enabled"]


class Controller:
    """Starts the action that the role switches with, and what may happen to it while the switch is in a state."""

    def __init__(self) -> None:
        self.started: list[subprocess.Popen[str]] = []

    def start(self, server: Server, to: str, state: str) -> subprocess.Popen[str]:
        """As far as a state, in which the switch is held."""
        server.host.run(f"systemd-run --quiet --collect --unit=hold python3 /root/hand.py hold {state}")
        command = ["ansible", "-i", INVENTORY, "one", "-m", "onprem.llamacpp.llama_switch", "-a", f"to={to}"]
        options: dict[str, Any] = {"cwd": ROOT, "env": plays.environment(), "text": True, "start_new_session": True}
        self.started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options))
        server.until_held()
        return self.started[-1]

    def dies(self, server: Server, to: str, state: str) -> None:
        """It is killed, and the switch goes on."""
        plays.kill(self.start(server, to, state))
        server.out("python3 /root/hand.py go")

    def loses_the_link(self, server: Server, to: str, state: str) -> tuple[int, str]:
        """The link is cut for a while in which the switch goes on; what the run comes to: its status and its output."""
        run = self.start(server, to, state)
        server.out(f"python3 /root/hand.py release {CUT_SECONDS * 3 // 4}")
        lab("link", "lab_link=cut")
        time.sleep(CUT_SECONDS)
        lab("link", "lab_link=restore")
        output, _none = run.communicate(timeout=120)
        return run.returncode, output


@pytest.fixture
def controller() -> Iterator[Controller]:
    made = Controller()
    yield made
    for run in made.started:
        plays.kill(run)


@pytest.fixture(scope="session")
def server() -> Server:
    import testinfra  # noqa: PLC0415

    found = Server(testinfra.get_host("ansible://one", ansible_inventory=INVENTORY))
    found.out("test -n " + found.other)
    return found


@pytest.fixture(scope="session")
def play() -> Callable[..., plays.Run]:
    return functools.partial(plays.run_playbook, INVENTORY)
