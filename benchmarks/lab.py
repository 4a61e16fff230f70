# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Playbooks and commands on the hosts of a lab. What fails raises RuntimeError with the end of what it said."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/lab"))

import plays

SSH = ["ssh", "-i", str(plays.KEY), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]

BLOCK_GROUPS, READ_LIMIT = Path("/sys/fs/cgroup/blkio"), "blkio.throttle.read_bps_device"


@contextlib.contextmanager
def slow_disk(bytes_per_second: int) -> Iterator[None]:
    """Hosts of the lab read no more than this from this machine's disk, where its kernel can limit that (cgroups of version 1)."""
    if not (BLOCK_GROUPS / READ_LIMIT).exists():
        yield
        return
    where = os.stat(plays.KEY).st_dev
    disk = Path(f"/sys/dev/block/{os.major(where)}:{os.minor(where)}").resolve()
    disk = disk.parent if (disk / "partition").exists() else disk
    group = BLOCK_GROUPS / "onprem-llamacpp-bench"
    group.mkdir(exist_ok=True)
    try:
        (group / READ_LIMIT).write_text(f"{(disk / 'dev').read_text().strip()} {bytes_per_second}")
        move(inside(), group)  # what they start follows them
        yield
    finally:
        while left := (group / "cgroup.procs").read_text().split():
            move(left, BLOCK_GROUPS)
        group.rmdir()


def inside() -> list[str]:
    """Processes of the lab's hosts: they have a number of their own there, and nobody has put them into a group."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            numbers = next(line for line in (process / "status").read_text().splitlines() if line.startswith("NSpid:")).split()[1:]
            if len(numbers) > 1 and ":blkio:/\n" in (process / "cgroup").read_text():
                found.append(process.name)
    return found


def move(pids: list[str], group: Path) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            (group / "cgroup.procs").write_text(pid)


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
