# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""With a front and memory for two servers nobody waits, whatever becomes of the new one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import plays
import pytest
from conftest import lab

STOP = "/run/client-stop"


@pytest.fixture(name="asked", scope="module")
def fixture_asked(server: Any) -> Iterator[Any]:
    """Runs a switch while a client asks; the switch, and what the client has seen."""
    server.out("python3 /root/hand.py front")

    def run(to: str) -> tuple[Any, dict[str, Any]]:
        server.out(
            f"rm -f /root/seen; systemd-run --quiet --collect --unit=client sh -c 'python3 /root/hand.py client {STOP} > /root/seen'"
        )
        ended = server.switch(to)
        server.out(f"sleep 1; touch {STOP}")
        plays.wait_until(lambda: server.host.run(f"test -e {STOP}").rc != 0 and server.host.run("test -s /root/seen").rc == 0)
        return ended, json.loads(server.out("cat /root/seen"))

    yield run
    server.out("python3 /root/hand.py unfront")


def alone(server: Any) -> None:
    """There is one server, on its own port, and nothing of the second one."""
    assert server.out("systemctl show -p ActiveState --value llamacpp-beside@main") == "inactive"
    assert server.out("cat /etc/llamacpp/front/main/upstream.conf") == "server 127.0.0.1:8080;"
    assert server.host.run("ls /etc/llamacpp/instances/main/beside /run/systemd/system/llamacpp-beside@main.service.d").rc != 0


def test_switch_interrupts_nobody(server: Any, asked: Any) -> None:
    ended, seen = asked(server.other)
    assert ended.status == 0, ended.journal
    assert ended.journal["overlap"]["chosen"], ended.journal["overlap"]
    assert ended.journal["gap_seconds"] == 0.0
    assert "beside" in [entry["state"] for entry in ended.journal["states"]]
    assert seen["failed"] == [] and seen["answered"] > 3
    server.serves(server.other)
    alone(server)
    assert server.switch(server.good).status == 0


def test_deployment_that_fails_beside_interrupts_nobody(server: Any, asked: Any) -> None:
    before = server.out("systemctl show -p MainPID --value llamacpp@main")
    ended, seen = asked(server.lay("beside", request={"build_number": 99999}))
    assert ended.status == 1 and "names b99999" in ended.journal["reason"]
    assert ended.journal["log_tail"] and ended.journal["gap_seconds"] == 0.0
    assert seen["failed"] == [] and seen["answered"] > 0
    assert server.out("systemctl show -p MainPID --value llamacpp@main") == before
    server.serves(server.good)
    alone(server)


@pytest.mark.usefixtures("asked")
def test_power_loss_with_two_servers_leaves_one(server: Any) -> None:
    server.begin(server.other, "beside")
    lab("power", "lab_power=kill")
    lab("power", "lab_power=on")
    server.serves(server.good)
    alone(server)


@pytest.mark.usefixtures("asked")
def test_killed_program_with_two_servers_leaves_the_first_alone(server: Any) -> None:
    before = server.out("systemctl show -p MainPID --value llamacpp@main")
    server.begin(server.other, "beside")
    server.out("python3 /root/hand.py kill")
    plays.wait_until(lambda: server.journal()["state"] == "undone")
    server.serves(server.good)
    assert server.out("systemctl show -p MainPID --value llamacpp@main") == before
    alone(server)


@pytest.mark.usefixtures("asked")
def test_killed_controller_is_not_needed_for_two_servers(server: Any, controller: Any) -> None:
    controller.dies(server, server.other, "beside")
    server.serves(server.other)
    alone(server)
    assert server.switch(server.good).status == 0


@pytest.mark.usefixtures("asked")
def test_cut_link_is_waited_for_with_two_servers(server: Any, controller: Any) -> None:
    status, output = controller.loses_the_link(server, server.other, "beside")
    assert status == 0, output[-3000:]
    server.serves(server.other)
    alone(server)
    assert server.switch(server.good).status == 0
