# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A site of a mirror and four hosts: plays as a user runs them, what went over the wire, and what was published."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests/lab"))

import plays

INVENTORY = str(ROOT / "molecule/weights/inventory")
FETCH = "molecule/weights/fetch.yml"
HUB, MIRROR = "10.79.0.9", "10.79.0.10"
ADDRESSES = {"a": "10.79.0.11", "b": "10.79.0.12", "c": "10.79.0.13", "d": "10.79.0.14"}
TINY, PADDED = "onprem/Tiny-Kimi-K2-GGUF", "onprem/Padded-Kimi-K2-GGUF"
QUANT = "UD-Q2_K_XL"
STORE = "/var/lib/llamacpp/models"
PATIENCE = 600  # seconds, after which what was waited for counts as not coming; machines that test may be slow
LINE = re.compile(r'^(\S+) \S+ \S+ \[[^\]]*\] "(\S+) (\S+) [^"]*" (\d+) (\d+) ')


class Request(NamedTuple):
    """A line of nginx's access log; ``sent`` are bytes of the body."""

    client: str
    method: str
    path: str
    status: int
    sent: int


def requests(host: Any) -> list[Request]:
    """Everything that a web server has been asked so far."""
    with host.sudo():
        lines = host.check_output("cat /var/log/nginx/access.log").splitlines()
    found = [match.groups() for match in map(LINE.match, lines) if match]
    return [Request(client, method, path, int(status), int(sent)) for client, method, path, status, sent in found]


def hashes(host: Any, folder: str) -> dict[str, str]:
    """SHA-256 of the weights below a folder, by file name."""
    lines = host.check_output(f"find {folder} -name '*.gguf' -exec sha256sum {{}} +").splitlines()
    return {Path(path).name: digest for digest, path in (line.split(maxsplit=1) for line in lines)}


def original(hub: Any, repo: str, quant: str = QUANT) -> dict[str, str]:
    """The same of a quant as the Hub has it."""
    return hashes(hub, f"/srv/models/{repo}/{quant}")


def published(host: Any, repo: str, quant: str = QUANT) -> dict[str, str]:
    """The same of a quant as a host has published it; nothing where it has not."""
    pattern = f"{STORE}/{repo.replace('/', '--')}/*/{quant}"
    return hashes(host, pattern) if host.run(f"ls {pattern}/manifest.json").rc == 0 else {}


def received(host: Any) -> int:
    """Bytes that came over the wire since the host has booted."""
    return int(host.check_output("cat /sys/class/net/host0/statistics/rx_bytes"))


@pytest.fixture(scope="session")
def play() -> Callable[..., plays.Run]:
    return functools.partial(plays.run_playbook, INVENTORY)


@pytest.fixture(scope="session")
def on_host() -> Callable[[str], Any]:
    """Connects to one host of the lab by name."""
    import testinfra  # noqa: PLC0415

    return lambda name: testinfra.get_host(f"ansible://{name}", ansible_inventory=INVENTORY)
