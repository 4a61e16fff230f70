# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module hardware_facts as Ansible runs it, on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize("check", [pytest.param(False, id="run"), pytest.param(True, id="check mode")])
def test_facts_are_one_document(run_module: Any, tmp_path: Path, check: bool) -> None:
    places = {"engine_root": str(tmp_path / "engine"), "model_root": str(tmp_path / "models"), "paths": [str(tmp_path / "models")]}
    status, result = run_module("hardware_facts", device_backend="cpu", _ansible_check_mode=check, **places)
    hardware = result["ansible_facts"]["llama_hardware"]
    assert (status, result["changed"], hardware["schema_version"]) == (0, False, 2)
    assert hardware["memory"]["total"] > 0
    assert (hardware["devices"], hardware["engines"], hardware["models"]) == ([], [], [])
    assert hardware["collected_at"].endswith("Z")
    assert list(tmp_path.iterdir()) == []
    assert (hardware["memory"]["bandwidth"]["basis"] != "measured", hardware["disks"][0]["sequential_read"]) == (True, None)


@pytest.mark.parametrize("check", [pytest.param(False, id="run"), pytest.param(True, id="check mode")])
def test_what_is_asked_is_measured(run_module: Any, tmp_path: Path, check: bool) -> None:
    places = {"engine_root": str(tmp_path / "engine"), "model_root": str(tmp_path / "models"), "paths": [str(tmp_path / "models")]}
    arguments = {"device_backend": "cpu", "measure": ["memory", "disk"], "_ansible_check_mode": check}
    _status, result = run_module("hardware_facts", **arguments, **places)
    hardware = result["ansible_facts"]["llama_hardware"]
    assert hardware["memory"]["bandwidth"]["basis"] == "measured"
    assert (hardware["disks"][0]["sequential_read"] is None) == check
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        pytest.param({"device_backend": "metal"}, "must be one of", id="unknown backend"),
        pytest.param({"measure": ["network"]}, "must be one or more of", id="unknown measurement"),
        pytest.param({"ports": ["http"]}, "ports", id="a port that is no number"),
    ],
)
def test_wrong_arguments_are_named(run_module: Any, arguments: dict[str, Any], part: str) -> None:
    status, result = run_module("hardware_facts", **arguments)
    assert status == 1
    assert part in result["msg"]
