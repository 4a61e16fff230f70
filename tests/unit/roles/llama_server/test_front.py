# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The front as the switch program moves it: one line of a file, one flag, and processes that take over."""

from __future__ import annotations

import json
from typing import Any

import pytest
from switch_host import NEW, OLD, cli, files, front

HEADER = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
# 8080 is 1F90, 8081 is 1F91.
CONNECTIONS = {
    "to the engine": "   1: 0100007F:1F90 0100007F:C001 01 00000000:00000000 00:00000000 00000000 0 0 1 1\n",
    "the same, seen from nginx": "   2: 0100007F:C001 0100007F:1F90 01 00000000:00000000 00:00000000 00000000 0 0 2 1\n",
    "listening": "   3: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 3 1\n",
    "ended by nginx": "   4: 0100007F:1F90 0100007F:C002 08 00000000:00000000 00:00000000 00000000 0 0 4 1\n",
    "to another engine": "   5: 0100007F:1F91 0100007F:C003 01 00000000:00000000 00:00000000 00000000 0 0 5 1\n",
}


MASTER = 9


class Nginx:
    """Workers under /proc, and what the front asks systemd and nginx for."""

    def __init__(self, proc: Any) -> None:
        self.proc, self.calls, self.active, self.refuses, self.slow = proc, [], True, False, False
        (proc / "net").mkdir(parents=True)
        (proc / "net/tcp").write_text(HEADER)
        self.process(10, front.WORKER)

    def process(self, pid: int, title: str, parent: int = MASTER) -> None:
        (self.proc / str(pid)).mkdir(exist_ok=True)
        (self.proc / str(pid) / "cmdline").write_bytes(title.encode() + b"\0")
        (self.proc / str(pid) / "status").write_text(f"Name:\tnginx\nPPid:\t{parent}\nTracerPid:\t0\n")

    def __call__(self, *argv: str, **_options: Any) -> str:
        self.calls.append(" ".join(argv))
        if argv[0] == "nginx" and self.refuses:
            raise files.SwitchError("nginx -t: unknown directive")
        if argv[:2] == ("systemctl", "reload") and not self.slow:
            self.process(10, front.LEAVING)
            self.process(11, front.WORKER)
        return f"{MASTER if self.active else 0}\n"


@pytest.fixture(name="nginx")
def fixture_nginx(tmp_path):
    return Nginx(tmp_path / "proc")


@pytest.fixture(name="before")
def fixture_before(tmp_path, nginx):
    """A front that sends requests to 8080."""
    layout = files.Layout("main", tmp_path)
    files.write_text(layout.front / "upstream.conf", "server 127.0.0.1:8080;\n")
    return front.Front(layout, nginx.proc, nginx)


def test_without_a_front_nothing_happens(tmp_path, nginx):
    absent = front.Front(files.Layout("main", tmp_path), nginx.proc, nginx)
    assert (absent.present, absent.port, absent.point(8081)) == (False, 0, False)
    absent.drain()
    assert not absent.drained and nginx.calls == []


def test_requests_go_to_another_port_once_nginx_has_taken_over(before, nginx):
    assert before.point(8081) is True
    assert before.port == 8081
    assert nginx.calls[-2:] == ["nginx -t -q", "systemctl reload nginx.service"]
    assert before.point(8081) is False


def test_nginx_of_somebody_else_on_the_host_is_not_waited_for(before, nginx):
    nginx.process(77, front.WORKER, parent=76)
    assert before.point(8081) is True


def test_port_is_kept_when_nginx_refuses(before, nginx):
    nginx.refuses = True
    with pytest.raises(files.SwitchError, match="unknown directive"):
        before.point(8081)
    assert before.port == 8080


def test_nginx_that_does_not_run_reads_the_file_when_it_starts(before, nginx):
    nginx.active = False
    assert before.point(8081) is True and before.port == 8081
    # Before the network is up nginx would refuse addresses that are not there yet.
    assert len(nginx.calls) == 1 and "MainPID" in nginx.calls[0]


def test_workers_that_do_not_give_way_are_told_of_and_nginx_reads_the_old_port_again(before, nginx, monkeypatch):
    monkeypatch.setattr(front, "SETTLE_SECONDS", 0.1)
    monkeypatch.setattr(front, "POLL_SECONDS", 0.02)
    nginx.slow = True
    with pytest.raises(files.SwitchError, match="did not take its configuration over"):
        before.point(8081)
    assert before.port == 8080
    assert [call for call in nginx.calls if "reload" in call] == ["systemctl reload nginx.service"] * 2


@pytest.mark.parametrize(("name", "count"), [(name, int(name == "to the engine")) for name in CONNECTIONS])
def test_only_open_connections_to_the_engine_count(before, nginx, name, count):
    (nginx.proc / "net/tcp").write_text(HEADER + CONNECTIONS[name])
    assert before.running(8080) == count


def test_waiting_ends_with_the_last_request_or_the_time(before, nginx):
    said: list[str] = []
    (nginx.proc / "net/tcp").write_text(HEADER + CONNECTIONS["to the engine"])
    assert before.wait_idle(8080, 0.0, said.append) == 1
    assert said == ["waiting for 1 requests that are under way"]
    (nginx.proc / "net/tcp").write_text(HEADER)
    assert before.wait_idle(8080, 0.0, said.append) == 0


def test_drained_until_it_is_put_back(before):
    before.drain()
    before.drain()
    assert before.drained
    before.undrain()
    before.undrain()
    assert not before.drained


WHO = {
    # who drained it one after the other, who puts it back, whether it is out of service then
    "rollout-its-own": (["rollout"], "rollout", False),
    "operator-any": (["rollout"], "", False),
    "rollout-not-an-operators": ([""], "rollout", True),
    "operator-before-a-rollout": (["", "rollout"], "rollout", True),
    "operator-after-a-rollout": (["rollout", ""], "rollout", True),
}


@pytest.mark.parametrize(("drainers", "by", "drained"), WHO.values(), ids=WHO)
def test_who_took_it_out_of_service_puts_it_back_or_an_operator(before, drainers, by, drained):
    for drainer in drainers:
        before.drain(drainer)
    before.undrain(by)
    assert before.drained == drained


def test_switch_and_its_undoing_move_the_front(serving, monkeypatch):
    files.write_text(serving.layout.front / "upstream.conf", "server 127.0.0.1:8080;\n")
    pointed: list[int] = []
    monkeypatch.setattr(front.Front, "point", lambda _self, port: bool(pointed.append(port)))
    serving.deploy(NEW, "crash")
    journal = serving.run(NEW)
    assert (journal["state"], journal["serving"]) == ("undone", OLD)
    assert pointed == [serving.port, serving.port]


@pytest.mark.parametrize(("command", "drained"), [("drain", True), ("undrain", False)])
def test_command_line_takes_an_instance_out_of_service(before, nginx, monkeypatch, capsys, command, drained):
    monkeypatch.setattr(cli, "Front", lambda _layout: before)
    assert cli.main([command, "--instance", "main"]) == 0
    assert json.loads(capsys.readouterr().out) == {"changed": drained, "drained": drained, "running": 0}


def test_command_line_says_that_there_is_no_front(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cli, "Front", lambda _layout: front.Front(files.Layout("main", tmp_path)))
    assert cli.main(["drain", "--instance", "main"]) == 1
    assert "has no front" in capsys.readouterr().err
