# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Playbooks and commands on the hosts of a lab. What fails raises RuntimeError with the end of what it said."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/lab"))

import plays

SSH = ["ssh", "-i", str(plays.KEY), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]


def playbook(inventory: str, name: str, *more: str, timeout: int = 900) -> str:
    """Output of a playbook, within a bound of seconds. ``inventory`` is that of the hosts; the lab's is added."""
    run = plays.run_playbook(inventory, "-i", "tests/lab/inventory", *more, playbook=name, timeout=timeout)
    if run.status:
        raise RuntimeError(f"{name} failed:\n{run.output[-2000:]}")
    return run.output


def on(address: str, command: str, timeout: int = 600) -> str:
    """Output of a command on a host."""
    done = subprocess.run([*SSH, f"root@{address}", command], check=False, capture_output=True, text=True, timeout=timeout)
    if done.returncode:
        raise RuntimeError(f"{command} on {address} failed: {done.stderr[-500:]}")
    return done.stdout
