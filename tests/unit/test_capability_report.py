# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report that comes before a new pin, on programs that print what real builds printed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.onprem.llamacpp.plugins.module_utils import _capabilities

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests/unit/fixtures/capabilities"


def report(folder: Path, build: str, *more: str, without: str = "") -> subprocess.CompletedProcess:
    program = folder / "llama-server"
    version, usage, devices = (FIXTURES / f"{build}.{name}.txt" for name in ("version", "help", "list-devices"))
    shown = f"grep -v -e '{without}' {usage}" if without else f"cat {usage}"
    program.write_text(f"#!/bin/sh\ncase $1 in --version) cat {version} >&2 ;; --help) {shown} ;; *) cat {devices} ;; esac\n")
    program.chmod(0o755)
    argv = [sys.executable, str(ROOT / "scripts/capabilities.py"), str(program), *more]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("build", "without", "status", "lines"),
    [
        pytest.param("b11549", "", 0, ["no difference", "nothing that the collection may wish"], id="the-pinned-build"),
        pytest.param("b11669", "", 0, ["nothing that the collection may wish"], id="newer"),
        pytest.param("b10068", "", 0, ["- --load-mode", "+ --mmap  LLAMA_ARG_MMAP, no value"], id="older"),
        pytest.param(
            "b11669", "^-ncmoe", 1, ["- --n-cpu-moe", "N_CPU_MOE: layers whose experts are in host memory (--n-cpu-moe)"], id="harm"
        ),
        pytest.param("b11669", "^--offline", 0, ["OFFLINE: offline (--offline), harmless: it fetches nothing"], id="harmless"),
    ],
)
def test_report(tmp_path, build, without, status, lines):
    done = report(tmp_path, build, without=without)
    assert (done.returncode, done.stderr) == (status, "")
    assert all(line in done.stdout for line in lines), done.stdout


def test_what_was_printed_can_be_kept(tmp_path):
    assert report(tmp_path, "b11669", "--save", str(tmp_path)).returncode == 0
    for name in ("version", "help", "list-devices"):
        assert (tmp_path / f"b11669.{name}.txt").read_text() == (FIXTURES / f"b11669.{name}.txt").read_text()


def test_the_record_of_a_build_tells_the_same_where_the_program_does_not_run(tmp_path):
    texts = {name: (FIXTURES / f"b10068.{name}.txt").read_text() for name in ("version", "help")}
    record = tmp_path / "b10068-cuda-90-0a1b2c3d.json"
    record.write_text(json.dumps({"version_text": texts["version"], "capabilities": {"options": _capabilities.parse_help(texts["help"])}}))
    argv = [sys.executable, str(ROOT / "scripts/capabilities.py"), str(record)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, report(tmp_path, "b10068").stdout)
    refused = subprocess.run([*argv, "--save", str(tmp_path)], capture_output=True, text=True, check=False)
    assert refused.returncode == 2 and "a record is none" in refused.stderr
