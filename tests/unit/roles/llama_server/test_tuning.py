# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program that sets what is wished of a host, on files that stand for the kernel's."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SOURCE = Path(__file__).resolve().parents[4] / "roles/llama_server/files/llamacpp_tuning.py"
HUGE = "sys/kernel/mm/transparent_hugepage/enabled"
GOVERNOR = "sys/devices/system/cpu/cpufreq/policy{}/scaling_governor"


@pytest.fixture(name="program")
def fixture_program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("llamacpp_tuning", SOURCE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Host:
    """Files of a kernel, and devices of a driver that keeps limits."""

    def __init__(self, program: ModuleType, root: Path) -> None:
        self.program, self.root = program, root
        self.limits = {"GPU-1": "700.00", "GPU-2": "700.00"}
        device = os.stat(root).st_dev
        self.readahead = f"sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb"
        for path, text in (
            (HUGE, "always [madvise] never"),
            (GOVERNOR.format(0), "powersave"),
            (GOVERNOR.format(1), "powersave"),
            (self.readahead, "128"),
        ):
            self.write(path, text)

    def write(self, path: str, text: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text + "\n")

    def read(self, path: str) -> str:
        return (self.root / path).read_text().strip()

    def nvidia(self, *arguments: str) -> list[str]:
        if arguments[0] == "-i":
            self.limits[arguments[1]] = f"{float(arguments[2].partition('=')[2]):.2f}"
            return []
        return [f"{uuid}, {limit}" if "power" in arguments[0] else uuid for uuid, limit in self.limits.items()]

    def run(self, command: str, wish: list[dict[str, Any]] | None = None) -> None:
        if wish is not None:
            (self.root / "tuning.json").write_text(json.dumps([{"path": str(self.root), **setting} for setting in wish]))
        assert self.program.main([command], str(self.root / "tuning.json"), str(self.root / "before.json"), str(self.root)) == 0


@pytest.fixture(name="host")
def fixture_host(program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    host = Host(program, tmp_path)
    monkeypatch.setattr(program, "nvidia", host.nvidia)
    return host


WISH = [
    {"name": "readahead", "value": 4096},
    {"name": "governor", "value": "performance"},
    {"name": "transparent_hugepages", "value": "always"},
    {"name": "power_limit", "value": 500},
]


def test_start_sets_and_stop_puts_back(host: Host) -> None:
    host.run("start", WISH)
    assert (host.read(host.readahead), host.read(HUGE)) == ("4096", "always")
    assert [host.read(GOVERNOR.format(number)) for number in (0, 1)] == ["performance", "performance"]
    assert host.limits == {"GPU-1": "500.00", "GPU-2": "500.00"}
    host.run("stop")
    assert (host.read(host.readahead), host.read(HUGE)) == ("128", "madvise")
    assert [host.read(GOVERNOR.format(number)) for number in (0, 1)] == ["powersave", "powersave"]
    assert host.limits == {"GPU-1": "700.00", "GPU-2": "700.00"}
    assert not (host.root / "before.json").exists()


def test_second_start_does_not_forget_what_was_there(host: Host) -> None:
    host.run("start", WISH)
    host.run("start", WISH)
    host.run("stop")
    assert host.read(host.readahead) == "128"


def test_what_somebody_else_has_set_since_is_left(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.run("start", WISH)
    host.write(host.readahead, "1024")
    host.run("stop")
    assert host.read(host.readahead) == "1024"
    assert "left at 1024, which somebody else has set" in capsys.readouterr().out


def test_what_the_host_lacks_is_told_and_the_rest_is_set(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    for number in (0, 1):
        (host.root / GOVERNOR.format(number)).unlink()
    host.run("start", WISH)
    assert "governor is not set: this host has nothing that it is set by" in capsys.readouterr().out
    assert host.read(host.readahead) == "4096"
    host.run("check", WISH)
    assert json.loads(capsys.readouterr().out) == ["governor is not set: this host has nothing that it is set by"]


def test_read_only_file_is_told(host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "access", lambda path, _mode: "transparent" not in str(path))
    host.run("start", WISH)
    assert "cannot be written, as in a container" in capsys.readouterr().out
    assert host.read(HUGE) == "always [madvise] never"


def test_driver_that_refuses_is_told(host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def nvidia(*arguments: str) -> list[str]:
        if arguments[0] == "-i":
            raise OSError("Provided power limit 5.00 W is not a valid power limit")
        return host.nvidia(*arguments)

    monkeypatch.setattr(host.program, "nvidia", nvidia)
    host.run("start", [{"name": "power_limit", "value": 5}])
    assert "power_limit is not set: power limit of GPU-1: Provided power limit 5.00 W" in capsys.readouterr().out
