# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the playbooks as a user does, and knows where the scenario keeps its bundle."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests/lab"))

import plays

INVENTORY = str(ROOT / "molecule/airgap/inventory")
FOLDER = Path(os.environ.get("ONPREM_LLAMACPP_CACHE") or "~/.cache/onprem-llamacpp").expanduser() / "airgap"
BUNDLE = FOLDER / "bundle"
DISK = "/mnt/usb"


@pytest.fixture(scope="session")
def play() -> Callable[..., plays.Run]:
    return functools.partial(plays.run_playbook, INVENTORY)


@pytest.fixture
def connected() -> Any:
    """The machine with a network, which serves the model to who makes the bundle."""
    import testinfra  # noqa: PLC0415

    return testinfra.get_host("ansible://connected", ansible_inventory=INVENTORY)
