# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the playbooks as a user does, and speaks to what they deployed over the network."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[3]
INVENTORY = str(ROOT / "molecule/default/inventory")
ADDRESSES = {"trixie": "10.76.0.11", "bookworm": "10.76.0.12", "forky": "10.76.0.13"}
MIRROR = "http://10.76.0.10"


TREE = (
    "find /etc /opt /usr/local /var/lib/llamacpp -printf '%p %m %u %s %T@ %l\\n' | sort; systemctl show -p MainPID,NRestarts llamacpp@main"
)


def tree(host: Any) -> str:
    """A digest of every file of ours and of the configuration, with the server's process."""
    return hashlib.sha256(host.check_output(TREE).encode()).hexdigest()


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


def run_playbook(*arguments: str, playbook: str = "site.yml", timeout: int = 600) -> Run:
    """Runs a playbook of the project on the lab, within a bound of seconds."""
    done = subprocess.run(
        ["ansible-playbook", "-i", INVENTORY, playbook, *arguments],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
    stats = {
        name: {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", counters)}
        for name, counters in re.findall(r"^(\S+)\s+: (ok=.*)$", done.stdout, re.MULTILINE)
    }
    return Run(done.returncode, done.stdout, stats)


@pytest.fixture(scope="session")
def play() -> Callable[..., Run]:
    return run_playbook


class Server:
    """A deployed server as its clients see it."""

    def __init__(self, name: str, host: Any, port: int = 8080) -> None:
        self.url = f"http://{ADDRESSES[name]}:{port}"
        self.host = host

    @property
    def key(self) -> str:
        with self.host.sudo():
            lines = self.host.file("/etc/llamacpp/instances/main/api-keys").content_string.splitlines()
        return next(line for line in lines if line and not line.startswith("#"))

    def get(self, path: str, key: str | None = None) -> int:
        """The status of a GET."""
        request = urllib.request.Request(self.url + path, headers={"Authorization": f"Bearer {key}"} if key else {})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    def complete(self, prompt: str = "The quick brown fox", tokens: int = 24) -> str:
        """A completion with nothing left to chance: temperature 0, fixed seed, no prompt cache."""
        body = {"prompt": prompt, "n_predict": tokens, "temperature": 0, "seed": 1, "cache_prompt": False}
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}/completion", data=json.dumps(body).encode(), headers=headers)
        with urllib.request.urlopen(request, timeout=300) as answer:
            return json.load(answer)["content"]


@pytest.fixture
def server(host: Any) -> Server:
    """The server on the host under test."""
    return Server(host.check_output("hostname"), host)


@pytest.fixture
def on_host() -> Callable[[str], Any]:
    """Connects to one host of the lab by name."""
    import testinfra  # noqa: PLC0415

    def connect(name: str) -> Any:
        return testinfra.get_host(f"ansible://{name}", ansible_inventory=INVENTORY)

    return connect
