# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Transfers that are disturbed: what is published is right, and what has arrived is not fetched again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import plays
import pytest
from conftest import FETCH, INVENTORY, PADDED, QUANT, STORE, hashes, original, published, received

SIZE = 138_264_736  # of the padded model
RATE = "80mbit"
ONCE = 1.25 * SIZE  # what the wire may carry: the model, the protocol's overhead, and what was on its way when it broke


@pytest.fixture(scope="module", autouse=True)
def thin_links(play: Any) -> Iterator[None]:
    """Links on which a transfer takes long enough to be disturbed."""
    assert play("--limit", "gpu_hosts", "-e", "lab_link=shape", "-e", f"lab_rate={RATE}", playbook="tests/lab/link.yml").status == 0
    yield
    play("--limit", "gpu_hosts", "-e", "lab_link=restore", playbook="tests/lab/link.yml")


@pytest.fixture
def begin() -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Starts to fetch the padded model to a host; whatever still runs at the end is stopped."""
    started: list[subprocess.Popen[str]] = []

    def start(name: str) -> subprocess.Popen[str]:
        started.append(plays.start_playbook(INVENTORY, "--limit", name, "-e", "model=padded", playbook=FETCH))
        return started[-1]

    yield start
    for run in started:
        abandon(run)


def family(pid: int) -> list[int]:
    """A process and all that descend from it. Ansible's workers are in sessions of their own, so a group is not enough."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    return [pid, *(member for child in children.read_text().split() for member in family(int(child)))]


def abandon(run: subprocess.Popen[str]) -> None:
    """The controller is gone, with all that it had running."""
    if run.poll() is None:
        for pid in family(run.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        run.wait()
    if run.stdout:
        run.stdout.close()


def end(run: subprocess.Popen[str]) -> plays.Run:
    output, _none = run.communicate(timeout=180)
    return plays.came_to(run.returncode, output)


def wait_until(reached: Callable[[], bool], seconds: float = 90.0) -> None:
    """Looks every half second, and gives up loudly."""
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, "it did not come so far in time"
        time.sleep(0.5)


def test_a_mirror_that_dies_and_comes_back_loses_nothing(begin: Any, on_host: Any) -> None:
    host, mirror = on_host("a"), on_host("mirror")
    before = received(host)
    run = begin("a")
    wait_until(lambda: received(host) - before > SIZE / 2)
    with mirror.sudo():
        mirror.check_output("systemctl kill --signal=KILL nginx")
        time.sleep(4)
        mirror.check_output("systemctl restart nginx")
    done = end(run)
    assert done.status == 0, done.output[-3000:]
    assert published(host, PADDED) == original(on_host("hub"), PADDED)
    assert SIZE < received(host) - before < ONCE


def test_a_host_that_loses_power_goes_on_from_where_it_was(begin: Any, play: Any, on_host: Any) -> None:
    host = on_host("b")
    before = received(host)
    run = begin("b")
    wait_until(lambda: received(host) - before > SIZE * 2 / 3)
    assert play("--limit", "b", "-e", "lab_power=kill", playbook="tests/lab/power.yml").status == 0
    abandon(run)
    assert play("--limit", "b", "-e", "lab_power=on", playbook="tests/lab/power.yml").status == 0
    assert not published(host, PADDED)
    done = play("--limit", "b", "-e", "model=padded", playbook=FETCH)
    assert done.status == 0, done.output[-3000:]
    assert published(host, PADDED) == original(on_host("hub"), PADDED)
    # The counter began anew with the boot.
    assert received(host) < 0.85 * SIZE


def test_two_runs_at_once_fetch_once(begin: Any, on_host: Any) -> None:
    host = on_host("c")
    before = received(host)
    first, second = begin("c"), begin("c")
    for run in (first, second):
        done = end(run)
        assert done.status == 0, done.output[-3000:]
    assert published(host, PADDED) == original(on_host("hub"), PADDED)
    assert SIZE < received(host) - before < ONCE


def test_a_transfer_needs_neither_the_controller_nor_an_unbroken_link(begin: Any, play: Any, on_host: Any) -> None:
    host = on_host("d")
    before = received(host)
    run = begin("d")
    wait_until(lambda: received(host) - before > SIZE / 4)
    abandon(run)
    assert play("--limit", "d", "-e", "lab_link=cut", playbook="tests/lab/link.yml").status == 0
    time.sleep(3)
    assert play("--limit", "d", "-e", "lab_link=restore", playbook="tests/lab/link.yml").status == 0
    wait_until(lambda: not host.check_output("systemctl list-units --plain --no-legend --state=active 'llamacpp-fetch-*'"))
    assert not published(host, PADDED)
    assert hashes(host, f"{STORE}/{PADDED.replace('/', '--')}/*/.{QUANT}.staging") == original(on_host("hub"), PADDED)
    fetched = received(host)
    assert fetched - before < ONCE
    done = play("--limit", "d", "-e", "model=padded", playbook=FETCH)
    assert done.status == 0, done.output[-3000:]
    assert published(host, PADDED) == original(on_host("hub"), PADDED)
    assert received(host) - fetched < SIZE / 10
