# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Losing power, the program, the controller or the link in each state of a switch: old or new serves, and the journal is right."""

from __future__ import annotations

from typing import Any

import plays
import pytest
from conftest import FULL, PROGRAM, lab

STATES = ["prepared", "switched", "gating", "undoing"]
CUT_IN = STATES if FULL else ["gating"]


def target(server: Any, state: str) -> str:
    """A deployment on whose switch a state is met: only one that fails is ever undone."""
    return server.lay("undone", request={"build_number": 99999}) if state == "undoing" else server.other


@pytest.mark.parametrize("state", STATES)
def test_power_loss(server: Any, state: str) -> None:
    server.begin(target(server, state), state)
    lab("power", "lab_power=kill")
    lab("power", "lab_power=on")
    server.serves(server.good)
    journal = server.journal()
    assert journal["state"] == "undone" and journal["previous"] == server.other
    assert "names b99999" in journal["reason"] if state == "undoing" else f"interrupted in state {state}" in journal["reason"]


def test_power_loss_after_the_commit_keeps_the_new_deployment(server: Any) -> None:
    assert server.switch(server.other).status == 0
    lab("power", "lab_power=kill")
    lab("power", "lab_power=on")
    server.serves(server.other)
    assert server.journal()["state"] == "committed" and server.link("previous") == server.good
    assert server.switch(server.good).status == 0


@pytest.mark.parametrize("state", STATES)
def test_program_that_is_killed_is_undone_at_once(server: Any, state: str) -> None:
    before = server.out("systemctl show -p MainPID --value llamacpp@main")
    server.begin(target(server, state), state)
    server.out("python3 /root/hand.py kill")
    plays.wait_until(lambda: server.journal()["state"] == "undone")
    server.serves(server.good)
    # Before anything was changed, nothing is restarted either.
    assert (server.out("systemctl show -p MainPID --value llamacpp@main") == before) is (state == "prepared")


@pytest.mark.parametrize("command", ["switch", "run"])
def test_second_switch_at_once_is_told_where_the_first_one_goes(server: Any, command: str) -> None:
    server.begin(server.other, "gating")
    second = server.host.run(f"{PROGRAM} {command} --instance main --to {server.good}")
    assert second.rc == 1
    assert f"another switch of main is running, to {server.other}: wait until it is done. status.yml says how far it is" in second.stderr
    server.out("python3 /root/hand.py kill")
    plays.wait_until(lambda: server.journal()["state"] == "undone")
    server.serves(server.good)


@pytest.mark.parametrize("state", STATES)
def test_killed_controller_is_not_needed(server: Any, controller: Any, state: str) -> None:
    to = target(server, state)
    controller.dies(server, to, state)
    server.serves(server.good if state == "undoing" else to)
    assert server.journal()["state"] == ("undone" if state == "undoing" else "committed")
    if state != "undoing":
        assert server.switch(server.good).status == 0


@pytest.mark.parametrize("state", CUT_IN)
def test_cut_link_is_waited_for(server: Any, controller: Any, state: str) -> None:
    to = target(server, state)
    status, output = controller.loses_the_link(server, to, state)
    assert status == (2 if state == "undoing" else 0), output[-3000:]
    server.serves(server.good if state == "undoing" else to)
    if state != "undoing":
        assert "without service" in output
        assert server.switch(server.good).status == 0
