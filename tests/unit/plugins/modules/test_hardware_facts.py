# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module hardware_facts as Ansible runs it, on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[4]


def run_module(**arguments: Any) -> tuple[int, dict[str, Any]]:
    """Exit status and result of the module."""
    program = "from ansible_collections.onprem.llamacpp.plugins.modules import hardware_facts; hardware_facts.main()"
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps({"ANSIBLE_MODULE_ARGS": arguments})],
        env={**os.environ, "PYTHONPATH": str(ROOT / ".collections")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize("check", [pytest.param(False, id="run"), pytest.param(True, id="check mode")])
def test_facts_are_one_document(tmp_path: Path, check: bool) -> None:
    places = {"engine_root": str(tmp_path / "engine"), "model_root": str(tmp_path / "models"), "paths": [str(tmp_path / "models")]}
    status, result = run_module(device_backend="cpu", _ansible_check_mode=check, **places)
    hardware = result["ansible_facts"]["llama_hardware"]
    assert (status, result["changed"], hardware["schema_version"]) == (0, False, 1)
    assert hardware["memory"]["total"] > 0
    assert (hardware["devices"], hardware["engines"], hardware["models"]) == ([], [], [])
    assert hardware["collected_at"].endswith("Z")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        pytest.param({"device_backend": "metal"}, "must be one of", id="unknown backend"),
        pytest.param({"ports": ["http"]}, "ports", id="a port that is no number"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], part: str) -> None:
    status, result = run_module(**arguments)
    assert status == 1
    assert part in result["msg"]
