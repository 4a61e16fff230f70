# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the role on the lab's hosts as a user does."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
for folder in (".collections", "tests/lab"):
    sys.path.insert(0, str(ROOT / folder))

import plays

INVENTORY = str(ROOT / "molecule/driver/inventory")


@pytest.fixture(scope="session")
def play() -> Callable[..., plays.Run]:
    return functools.partial(plays.run_playbook, INVENTORY, playbook="molecule/driver/converge.yml", timeout=1800)


@pytest.fixture(scope="session")
def on_host() -> Callable[[str], Any]:
    """Connects to one host of the lab by name."""
    import testinfra  # noqa: PLC0415

    return lambda name: testinfra.get_host(f"ansible://{name}", ansible_inventory=INVENTORY)


@pytest.fixture(scope="session")
def keys(on_host: Callable[[str], Any]) -> dict[str, str]:
    """Fingerprints of the keys that the repositories are signed with, as gpg tells them."""
    return dict(json.loads(on_host("packages").check_output("cat /srv/packages/fingerprints.json")))
