# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Handing a key to the firmware's list, with a program that notes what mokutil is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

MOKUTIL = """
echo "$@" >> {folder}/asked
[ "$1" = --import ] || {{ echo "{key} {state}"; exit {status}; }}
read -r one && read -r two || true
echo "$one $two" > {folder}/password
"""
# What mokutil --test-key says, its status and the password -> what mokutil is asked, a part of what the user reads
CASES = {
    "handed over": ("is not enrolled", 0, "four words", ["--test-key", "--import"], "waits to be enrolled"),
    "no password": ("is not enrolled", 0, "", ["--test-key"], "Run mokutil --import"),
    "on the list": ("is already in the enrollment request", 1, "four words", ["--test-key"], "waits to be enrolled"),
    "enrolled": ("is already enrolled", 1, "four words", ["--test-key"], ""),
}


@pytest.mark.parametrize(("state", "status", "password", "asked", "told"), CASES.values(), ids=CASES)
def test_key_is_enrolled(tmp_path: Path, run_tasks: Any, state: str, status: int, password: str, asked: list[str], told: str) -> None:
    key = tmp_path / "mok.pub"
    key.touch()
    wish = {"_nvidia_driver_mok_files": [str(tmp_path / "none"), str(key)], "nvidia_driver_mok_password": password}
    program = MOKUTIL.format(folder=tmp_path, key=key, state=state, status=status)
    done = run_tasks("secure_boot", {"one": {}}, wish, {"mokutil": program})
    assert done.returncode == 0 and "failed=0" in done.stdout, done.stdout
    lines = (tmp_path / "asked").read_text().splitlines()
    assert lines == [f"{option} {key}" for option in asked]
    assert told in done.stdout and ("Enroll MOK" in done.stdout) == bool(told)
    if "--import" in asked:
        assert (tmp_path / "password").read_text() == f"{password} {password}\n"
        assert password not in done.stdout


def test_no_key_is_told(tmp_path: Path, run_tasks: Any) -> None:
    done = run_tasks("secure_boot", {"one": {}}, {"_nvidia_driver_mok_files": [str(tmp_path / "none")]}, {"mokutil": "exit 9\n"})
    assert done.returncode == 0 and "there is no key that signs the modules" in done.stdout, done.stdout
