# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the switch program sees of its host."""

from __future__ import annotations

import pathlib

import pytest
from switch_host import hosts, preflight

DEATHS = {
    "exit": ({"ExecMainCode": "1", "ExecMainStatus": "1", "Result": "exit-code"}, "exit status 1"),
    "oom": ({"ExecMainCode": "2", "ExecMainStatus": "9", "Result": "oom-kill"}, "killed because memory ran out"),
    "killed": ({"ExecMainCode": "2", "ExecMainStatus": "9", "Result": "signal"}, "killed by signal 9 (often memory that ran out)"),
    "segfault": ({"ExecMainCode": "3", "ExecMainStatus": "11", "Result": "core-dump"}, "killed by signal 11"),
    "limit": ({"ExecMainCode": "1", "ExecMainStatus": "1", "Result": "start-limit-hit"}, "exit status 1, systemd says start-limit-hit"),
}


@pytest.mark.parametrize(("state", "words"), DEATHS.values(), ids=DEATHS)
def test_death_in_words(state, words):
    assert hosts.death(state) == words


def proc_with_listener(root: pathlib.Path, table: str, address: str) -> pathlib.Path:
    """A proc tree in which process 812, nginx, listens."""
    (root / "net").mkdir()
    line = f"   0: {address} 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 31337 1\n"
    (root / "net" / table).write_text("  sl  local_address rem_address   st\n" + line)
    (root / "812/fd").mkdir(parents=True)
    (root / "812/fd/3").symlink_to("socket:[31337]")
    (root / "812/comm").write_text("nginx\n")
    return root


LISTENERS = {
    "same-address": ("tcp", "0100007F:1F90", "127.0.0.1", 8080, [(812, "nginx")]),
    "everywhere": ("tcp", "00000000:1F90", "127.0.0.1", 8080, [(812, "nginx")]),
    "we-want-everywhere": ("tcp", "0100007F:1F90", "0.0.0.0", 8080, [(812, "nginx")]),
    "everywhere-v6": ("tcp6", "0" * 32 + ":1F90", "127.0.0.1", 8080, [(812, "nginx")]),
    "other-address": ("tcp", "0100000A:1F90", "127.0.0.1", 8080, []),
    "other-port": ("tcp", "0100007F:1F90", "127.0.0.1", 8081, []),
}


@pytest.mark.parametrize(("table", "address", "host_address", "port", "expected"), LISTENERS.values(), ids=LISTENERS)
def test_listening(tmp_path, table, address, host_address, port, expected):
    assert hosts.listening(host_address, port, proc_with_listener(tmp_path, table, address)) == expected


def test_disk_speed_of_a_file_that_is_not_there():
    assert hosts.disk_speed("/nonexistent/model.gguf") == 0.0


BLOCK = 4 * hosts.MIB
DISKS = {
    # bytes of the file, seconds that a block of 4 MiB takes, bytes a second
    "fast": (256 * hosts.MIB, 0.01, BLOCK / 0.01),
    "slower than the floor": (64 * hosts.MIB, 0.5, BLOCK / 0.5),
    "one block in all the time": (64 * hosts.MIB, 4.0, BLOCK / 4.0),
    "a file that is too small to tell": (8 * hosts.MIB, 0.01, 0.0),
}


@pytest.mark.parametrize(("size", "block_seconds", "speed"), DISKS.values(), ids=DISKS)
def test_slow_disk_is_measured_too(tmp_path, monkeypatch, size, block_seconds, speed):
    path, clock = tmp_path / "model.gguf", [100.0]
    with open(path, "wb") as handle:
        handle.truncate(size)

    def read(_handle, buffers, offset):
        clock[0] += block_seconds
        return min(len(buffers[0]), size - offset)

    monkeypatch.setattr(hosts.os, "O_DIRECT", 0)
    monkeypatch.setattr(hosts.os, "preadv", read)
    monkeypatch.setattr(hosts.time, "monotonic", lambda: clock[0])
    assert hosts.disk_speed(str(path)) == pytest.approx(speed)


def test_largest_file_of_a_model_is_measured(tmp_path, monkeypatch):
    for number, size in ((1, 10), (2, 30), (3, 20)):
        (tmp_path / f"m-0000{number}-of-00003.gguf").write_bytes(bytes(size))
    monkeypatch.setattr(preflight, "disk_speed", lambda path: float(path[-len("2-of-00003.gguf")]))
    assert preflight.model_disk_speed(str(tmp_path / "m-00001-of-00003.gguf")) == 2.0
    assert preflight.model_disk_speed(str(tmp_path / "gone.gguf")) == 0.0


JOURNALCTL = """#!/bin/sh
case " $* " in
  *" --sync "*) ;;
  *" INVOCATION_ID=silent "*) echo "systemd: it did not start" ;;
  *"=silent "*) ;;
  *" --lines=2 "*) echo "a line before the last"; echo "the last line" ;;
  *) yes "a line of a long log" ;;
esac
"""


def test_log_of_a_server_that_has_written_without_end(tmp_path, monkeypatch):
    program = tmp_path / "journalctl"
    program.write_text(JOURNALCTL)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(hosts, "LOG_BYTES", 4200)
    unit = hosts.Systemd("main")
    assert unit.log("talkative") == ["a line of a long log"] * 200
    assert unit.log("talkative", 2) == ["a line before the last", "the last line"]
    assert unit.log("silent") == ["systemd: it did not start"]
    assert unit.log("") == []
