# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the project's playbooks on a lab as a user does, for the tests of the scenarios."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
KEY = Path(os.environ.get("ONPREM_LLAMACPP_CACHE") or "~/.cache/onprem-llamacpp").expanduser() / "lab/id_ed25519"
TREE = (
    "find /etc /opt /usr/local /var/lib/llamacpp -printf '%p %m %u %s %T@ %l\\n' | sort; systemctl show -p MainPID,NRestarts llamacpp@main"
)


# What apt locks while the lists are read, and while packages are installed.
LISTS, PACKAGES = "/var/lib/apt/lists/lock", "/var/lib/dpkg/lock-frontend"
# Locks a file as apt does, under the name that unattended upgrades have.
LOCK = (
    "import fcntl, time; open('/proc/self/comm', 'w').write('unattended-upgr');"
    "lock = open('{file}', 'w'); fcntl.lockf(lock, fcntl.LOCK_EX); time.sleep({seconds})"
)


def tree(host: Any) -> str:
    """A digest of every file of ours and of the configuration, with the server's process."""
    return hashlib.sha256(host.check_output(TREE).encode()).hexdigest()


def wait_until(reached: Callable[[], bool], seconds: float = 60) -> None:
    """Looks often, and gives up loudly."""
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, f"it did not come so far in {seconds} s"
        time.sleep(0.2)


@contextlib.contextmanager
def locked_by_upgrades(host: Any, file: str, seconds: int = 600) -> Iterator[None]:
    """The host's unattended upgrades hold one of apt's locks, for so many seconds at most."""
    host.check_output(f'systemd-run --collect --unit=lab-upgrades python3 -c "{LOCK.format(file=file, seconds=seconds)}"')
    try:
        yield
    finally:
        host.run("systemctl stop lab-upgrades")  # it may be over


class Run(NamedTuple):
    """What a playbook run came to: exit status, whole output, counters by host."""

    status: int
    output: str
    stats: dict[str, dict[str, int]]

    @property
    def text(self) -> str:
        """The output with line breaks and indentation folded, to look for sentences in."""
        return re.sub(r"\s+", " ", self.output)


def environment() -> dict[str, str]:
    """What Ansible is run with: the project's settings, not molecule's, and output that can be read by programs."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "MOLECULE_"))}
    return {**kept, "ANSIBLE_NOCOLOR": "1"}


def command(inventory: str, playbook: str, *arguments: str) -> list[str]:
    return ["ansible-playbook", "-i", inventory, playbook, *arguments]


def run_playbook(inventory: str, *arguments: str, playbook: str = "site.yml", timeout: int = 600, **variables: str) -> Run:
    """Runs a playbook of the project on the lab, within a bound of seconds; with variables of the environment besides."""
    done = subprocess.run(
        command(inventory, playbook, *arguments),
        cwd=ROOT,
        env={**environment(), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
    return came_to(done.returncode, done.stdout)


def start_playbook(inventory: str, *arguments: str, playbook: str = "site.yml") -> subprocess.Popen[str]:
    """Starts one and returns at once."""
    return subprocess.Popen(
        command(inventory, playbook, *arguments),
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def lab(inventory: str, playbook: str, wish: str, host: str = "all") -> None:
    """Does something to hosts of the lab: a playbook of its folder, such as power or link, and what is wished of it."""
    subprocess.run(
        command(inventory, f"tests/lab/{playbook}.yml", "-e", wish, "--limit", host),
        cwd=ROOT,
        env=environment(),
        check=True,
        capture_output=True,
        timeout=300,
    )


def family(pid: int) -> list[int]:
    """A process and all that descend from it. Ansible's workers are in sessions of their own, so a group is not enough."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    return [pid, *(member for child in children.read_text().split() for member in family(int(child)))] if children.exists() else []


def kill(run: subprocess.Popen[str]) -> None:
    """The controller is gone, with all that it had running."""
    if run.poll() is None:
        for pid in family(run.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        run.wait()
    if run.stdout:
        run.stdout.close()


def came_to(status: int, output: str) -> Run:
    """What a run has come to, from its output."""
    stats = {
        name: {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", counters)}
        for name, counters in re.findall(r"^(\S+)\s+: (ok=.*)$", output, re.MULTILINE)
    }
    return Run(status, output, stats)
