# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the playbooks of day two as a user does, and looks at the four servers."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests/lab"))

import plays

INVENTORY = str(ROOT / "molecule/server/inventory")
HOSTS = ("one", "two", "three", "four")


@pytest.fixture(scope="session")
def play() -> Callable[..., plays.Run]:
    return functools.partial(plays.run_playbook, INVENTORY)


@pytest.fixture(scope="session")
def on_host() -> Callable[[str], Any]:
    """Connects to one host of the lab by name."""
    import testinfra  # noqa: PLC0415

    @functools.cache
    def connect(name: str) -> Any:
        return testinfra.get_host(f"ansible://{name}", ansible_inventory=INVENTORY)

    return connect


class Fleet:
    """The four servers as they are at this moment."""

    def __init__(self, on_host: Callable[[str], Any]) -> None:
        self.on_host = on_host

    def quants(self) -> dict[str, str]:
        """What each of them serves, by its deployment."""
        documents = {name: self.on_host(name).file("/etc/llamacpp/instances/main/current/deployment.json").content_string for name in HOSTS}
        return {name: json.loads(text)["quant"] for name, text in documents.items()}

    def processes(self) -> dict[str, str]:
        show = "systemctl show -p MainPID,ActiveEnterTimestampMonotonic llamacpp@main"
        return {name: self.on_host(name).check_output(show) for name in HOSTS}


@pytest.fixture(scope="session")
def fleet(on_host: Callable[[str], Any]) -> Fleet:
    return Fleet(on_host)
