# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the role on the lab's hosts as a user does."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[3]
for folder in (".collections", "tests/lab"):
    sys.path.insert(0, str(ROOT / folder))

import plays

INVENTORY = str(ROOT / "molecule/driver/inventory")
PACKAGES = "dpkg-query -W -f '${Package} ${Version} ${db:Status-Abbrev}\\n' | sort"


class Compiled(NamedTuple):
    """A host's packages before it was to compile a driver, and the run that comes of it."""

    before: str
    run: Future[plays.Run]


@pytest.fixture(scope="session")
def play() -> Callable[..., plays.Run]:
    return functools.partial(plays.run_playbook, INVENTORY, playbook="molecule/driver/converge.yml", timeout=3600)


@pytest.fixture(scope="session")
def on_host() -> Callable[[str], Any]:
    """Connects to one host of the lab by name."""
    import testinfra  # noqa: PLC0415

    return lambda name: testinfra.get_host(f"ansible://{name}", ansible_inventory=INVENTORY)


@pytest.fixture(scope="session", autouse=True)
def compiled(
    request: pytest.FixtureRequest, play: Callable[..., plays.Run], on_host: Callable[[str], Any]
) -> Iterator[dict[str, Compiled]]:
    """Debian's driver on the hosts that compile it, while the tests of the other hosts run; FULL=1 compiles where it succeeds, too."""
    hosts = ["breaks", "works"] if "FULL" in os.environ else ["breaks"]
    if not any(item.path.stem == "test_shipped_by_debian" for item in request.session.items):
        hosts = []
    before = {name: on_host(name).check_output(PACKAGES) for name in hosts}
    with ThreadPoolExecutor() as pool:
        yield {name: Compiled(before[name], pool.submit(play, "--limit", name)) for name in hosts}


@pytest.fixture(scope="session")
def keys(on_host: Callable[[str], Any]) -> dict[str, str]:
    """Fingerprints of the keys that the repositories are signed with, as gpg tells them."""
    return dict(json.loads(on_host("packages").check_output("cat /srv/packages/fingerprints.json")))
