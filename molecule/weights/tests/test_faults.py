# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Transfers that are disturbed: what is published is right, and what has arrived is not fetched again."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import plays
import pytest
from conftest import FETCH, INVENTORY, MIRROR, PADDED, PATIENCE, QUANT, STORE, hashes, original, published, received

SIZE = 138_264_736  # of the padded model
RATE = "80mbit"
STAGING = f"{STORE}/{PADDED.replace('/', '--')}/*/.{QUANT}.staging"
GO_ON = "systemctl kill --signal=CONT 'llamacpp-fetch-*'"
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
        plays.kill(run)


def end(run: subprocess.Popen[str]) -> plays.Run:
    output, _none = run.communicate(timeout=PATIENCE)
    return plays.came_to(run.returncode, output)


def hold(host: Any, reached: str) -> None:
    """Halts a host's transfer as soon as a condition of the shell is met there, so that what happens next happens in its midst.

    The host itself looks and halts: no connection, however slow, lies between.
    """
    unit = "$(systemctl list-units --plain --no-legend 'llamacpp-fetch-*' | cut -d ' ' -f 1)"
    halted = f"grep -q '^State:.T' /proc/$(systemctl show --property MainPID --value {unit})/status"
    script = f"until {reached}; do sleep 0.1; done; systemctl kill --signal=STOP {unit}; until {halted}; do sleep 0.1; done"
    host.check_output("timeout %s sh -ec %s", str(PATIENCE), script)


def arrived(host: Any, count: float) -> str:
    """The condition that so many bytes more have come over the wire."""
    return f"[ $(cat /sys/class/net/host0/statistics/rx_bytes) -ge {received(host) + int(count)} ]"


def test_a_mirror_that_dies_and_comes_back_loses_nothing(begin: Any, on_host: Any) -> None:
    host, mirror = on_host("a"), on_host("mirror")
    before, halfway = received(host), arrived(host, SIZE / 2)
    run = begin("a")
    hold(host, halfway)
    with mirror.sudo():
        mirror.check_output("systemctl kill --signal=KILL nginx")
        plays.wait_until(lambda: mirror.run("systemctl is-active nginx").rc != 0, PATIENCE)
        host.check_output(GO_ON)
        plays.wait_until(lambda: f"{MIRROR} cannot be reached" in host.run(f"cat {STAGING}/status.json").stdout, PATIENCE)
        mirror.check_output("systemctl restart nginx")
    done = end(run)
    assert done.status == 0, done.output[-3000:]
    assert published(host, PADDED) == original(on_host("hub"), PADDED)
    assert SIZE < received(host) - before < ONCE


def test_a_host_that_loses_power_goes_on_from_where_it_was(begin: Any, play: Any, on_host: Any) -> None:
    host = on_host("b")
    run = begin("b")
    hold(host, f"[ $(ls {STAGING}/*.gguf 2>/dev/null | wc -l) -ge 2 ]")  # of five
    assert play("--limit", "b", "-e", "lab_power=kill", playbook="tests/lab/power.yml").status == 0
    plays.kill(run)
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
    before, early = received(host), arrived(host, SIZE / 4)
    run = begin("d")
    hold(host, early)
    plays.kill(run)
    cut = "while [ $(cat /sys/class/net/host0/carrier) = 1 ]; do sleep 0.1; done"
    host.check_output("systemd-run --collect sh -c %s", f"{cut}; {GO_ON}")
    assert play("--limit", "d", "-e", "lab_link=cut", playbook="tests/lab/link.yml").status == 0
    time.sleep(3)  # without a link; nothing depends on how long
    assert play("--limit", "d", "-e", "lab_link=restore", playbook="tests/lab/link.yml").status == 0
    plays.wait_until(lambda: not host.check_output("systemctl list-units --plain --no-legend --state=active 'llamacpp-fetch-*'"), PATIENCE)
    assert not published(host, PADDED)
    assert hashes(host, STAGING) == original(on_host("hub"), PADDED)
    fetched = received(host)
    assert fetched - before < ONCE
    done = play("--limit", "d", "-e", "model=padded", playbook=FETCH)
    assert done.status == 0, done.output[-3000:]
    assert published(host, PADDED) == original(on_host("hub"), PADDED)
    assert received(host) - fetched < SIZE / 10
