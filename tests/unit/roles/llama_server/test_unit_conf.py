# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The drop-in of a deployment follows the places of its engine and its model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Optional

import jinja2
import pytest

TEMPLATE = Path(__file__).resolve().parents[4] / "roles/llama_server/templates/unit.conf.j2"


def rendered(model_path: str, engine_path: str = "/opt/llamacpp/releases/b1", **more: Any) -> list[str]:
    environment = jinja2.Environment(trim_blocks=True, undefined=jinja2.StrictUndefined)
    environment.tests.update(match=lambda text, pattern: re.match(pattern, text), search=lambda text, pattern: re.search(pattern, text))
    values = {
        "llama_server_instance": "main",
        "llama_server_port": 8080,
        "llama_server_api_key_required": True,
        "llama_engine_result": {"path": engine_path, "build": {}},
        "ansible_facts": {"llama_hardware": {"os": {"systemd": 252}}},
        "llama_model_result": {"path": model_path},
        "llama_plan_result": {"placement": {"load_mode": "auto", "numa": None}},
        "_llama_server_peers": [],
        "_llama_server_backend": "cpu",
        "_llama_server_unit_digest": "0123456789ab",
        **more,
    }
    return environment.from_string(TEMPLATE.read_text()).render(values).splitlines()


@pytest.mark.parametrize("root", ["/var/lib/llamacpp/models", "/mnt/weights/models", "/home/ai/models"])
def test_the_server_waits_for_the_mounts_of_its_engine_and_its_model(root: str) -> None:
    lines = rendered(f"{root}/org--repo/{'0' * 40}/Q2_K")
    assert f"RequiresMountsFor=/opt/llamacpp/releases/b1 {root}/org--repo/{'0' * 40}/Q2_K" in lines
    assert ("ProtectHome=read-only" in lines) is root.startswith("/home/")


@pytest.mark.parametrize(
    ("uuids", "instances", "shown"),
    [
        pytest.param(["GPU-1", "GPU-2"], 2, "GPU-1,GPU-2", id="its own"),
        pytest.param([], 2, "-1", id="others have them"),
        pytest.param([], 1, None, id="nobody else is there"),
    ],
)
def test_a_cuda_server_sees_the_devices_that_are_for_it(uuids: list[str], instances: int, shown: Optional[str]) -> None:
    plan = {"placement": {"load_mode": "auto", "numa": None}, "devices": [{"uuid": uuid} for uuid in uuids]}
    plans = {str(number): plan for number in range(instances)}
    lines = rendered("/models/x", _llama_server_backend="cuda", llama_plan_result=plan, llama_plan_results=plans)
    found = [line.rpartition("=")[2] for line in lines if "CUDA_VISIBLE_DEVICES" in line]
    assert found == ([shown] if shown else [])


@pytest.mark.parametrize(("systemd", "further_apart"), [(252, False), (253, False), (254, True), (257, True)])
def test_tries_come_further_apart_where_systemd_can(systemd: int, further_apart: bool) -> None:
    lines = rendered("/models/x", ansible_facts={"llama_hardware": {"os": {"systemd": systemd}}})
    assert [line for line in lines if line.startswith("Restart")] == (
        ["RestartSteps=4", "RestartMaxDelaySec=5min"] if further_apart else []
    )
