# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the playbooks as a user does, and speaks to what they deployed over the network."""

from __future__ import annotations

import functools
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests/lab"))

import plays

INVENTORY = str(ROOT / "molecule/default/inventory")
ADDRESSES = {"trixie": "10.76.0.11", "bookworm": "10.76.0.12", "forky": "10.76.0.13"}
MIRROR = "http://10.76.0.10"


@pytest.fixture(scope="session")
def play() -> Callable[..., plays.Run]:
    return functools.partial(plays.run_playbook, INVENTORY)


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


@pytest.fixture(scope="session")
def on_host() -> Callable[[str], Any]:
    """Connects to one host of the lab by name."""
    import testinfra  # noqa: PLC0415

    def connect(name: str) -> Any:
        return testinfra.get_host(f"ansible://{name}", ansible_inventory=INVENTORY)

    return connect
