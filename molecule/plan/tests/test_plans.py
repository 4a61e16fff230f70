# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is planned on hosts with the memory and the GPUs of real ones, without a network and without a change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from plays import tree

SHOWN = ("t4-64", "t4-96", "a100x2-512", "t4-held", "t4-bare")


def planned(play: Any, folder: Path, *arguments: str) -> dict[str, dict[str, Any]]:
    """The plan of each host of the group, from the document that the playbook writes."""
    run = play("--limit", "shown", "-e", f"llama_plan_output={folder}", *arguments, playbook="playbooks/plan.yml")
    assert "Traceback" not in run.output
    report = json.loads((folder / "plan.json").read_text())
    assert report["meta"]["unplanned"] == [], run.output
    return {plan["inventory_hostname"]: plan for plan in report["plans"]}


@pytest.fixture(scope="module")
def default_plans(play: Any, on_host: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Plans with the default wish; nothing on the hosts has changed by making them."""
    before = {name: tree(on_host(name)) for name in SHOWN}
    plans = planned(play, tmp_path_factory.mktemp("plans"))
    assert {name: tree(on_host(name)) for name in SHOWN} == before
    return plans


@pytest.mark.parametrize(
    ("name", "verdict", "fit", "offloaded"),
    [
        ("t4-64", "refuse", "none", True),
        ("t4-96", "accept", "streaming", True),
        ("a100x2-512", "accept", "resident", True),
        ("t4-held", "accept", "streaming", False),
        ("t4-bare", "accept", "streaming", True),
    ],
)
def test_default_quant(default_plans: Any, name: str, verdict: str, fit: str, offloaded: bool) -> None:
    plan = default_plans[name]
    assert (plan["verdict"], plan["fit"], plan["placement"]["n_gpu_layers"] > 0) == (verdict, fit, offloaded), plan["reasons"]
    assert plan["basis"] == "catalog"


def test_devices_are_what_nvidia_smi_says(default_plans: Any) -> None:
    cards = default_plans["a100x2-512"]["memory"]["devices"]
    assert [(card["engine_name"], card["name"], card["total"]) for card in cards] == [
        (f"CUDA{number}", "NVIDIA A100-SXM4-80GB", 81920 * 2**20) for number in range(2)
    ]
    assert len({card["uuid"] for card in cards}) == 2


def test_a_stranger_on_the_card_is_named(default_plans: Any) -> None:
    notes = " ".join(default_plans["t4-held"]["notes"])
    assert "14.5 GB of 16.1 GB are held by other programs: /usr/bin/python3 (PID 4242)" in notes


def test_a_card_without_a_driver_is_recognised(default_plans: Any) -> None:
    notes = " ".join(default_plans["t4-bare"]["notes"])
    assert "T4" in notes and "has no driver yet: planned by its type" in notes


@pytest.mark.parametrize(
    ("wish", "quants"),
    [
        pytest.param("quant=auto", {"t4-64": "UD-TQ1_0", "t4-96": "UD-Q2_K_XL", "a100x2-512": "UD-Q2_K_XL"}, id="the guide's tree"),
        pytest.param("use_case=cost", {"t4-64": "UD-TQ1_0", "t4-96": "UD-TQ1_0", "a100x2-512": "UD-TQ1_0"}, id="cost"),
        pytest.param("use_case=production", {"t4-96": "UD-Q2_K_XL", "a100x2-512": "UD-Q4_K_XL"}, id="production"),
        pytest.param("quant_policy=downgrade", {"t4-64": "UD-IQ1_S", "t4-96": "UD-Q2_K_XL"}, id="downgrade"),
    ],
)
def test_a_quant_is_chosen_for_each_host(play: Any, tmp_path: Path, wish: str, quants: dict[str, str]) -> None:
    plans = planned(play, tmp_path, "-e", wish)
    assert {name: plans[name]["quant"] for name in quants} == quants
    assert all(plans[name]["verdict"] != "refuse" for name in quants)


def test_a_refusal_says_what_is_short_and_what_would_fit(play: Any) -> None:
    run = play("--limit", "t4-64,t4-96", "-e", "quant=UD-Q4_K_XL", playbook="playbooks/plan.yml")
    assert run.status != 0
    for sentence in (
        "kimi-k2-instruct UD-Q4_K_XL is refused on t4-96: memory: UD-Q4_K_XL needs 192 GB of host memory",
        "it would fit with 192 GB of host memory, 91.0 GB more than there is",
        "the largest that fit here: streaming UD-Q2_K_XL (381 GB)",
        "UD-Q2_K_XL would fit: -e quant=UD-Q2_K_XL or -e quant_policy=downgrade",
        "UD-Q4_K_XL is refused on t4-64",
    ):
        assert sentence in run.text


def test_recorded_hosts_are_planned_as_they_were(play: Any, default_plans: Any, tmp_path: Path) -> None:
    run = play("--limit", "shown", "-e", f"llama_plan_record={tmp_path}", playbook="playbooks/plan.yml")
    recorded = tmp_path / "t4-96" / "llama_hardware.yml"
    assert recorded.is_file(), run.output
    inventory = tmp_path / "hosts.json"
    inventory.write_text(json.dumps({"gpu_hosts": {"hosts": {"t4-96": {"llama_model_endpoint": "http://127.0.0.1:9"}}}}))
    again = play(
        *("-i", str(inventory), "--limit", "t4-96", "-e", f"@{recorded}", "-e", "llama_plan_use_recorded=true"),
        *("-e", "ansible_host=192.0.2.1", "-e", f"llama_plan_output={tmp_path}"),
        playbook="playbooks/plan.yml",
    )
    assert again.status == 0, again.output
    (plan,) = json.loads((tmp_path / "plan.json").read_text())["plans"]
    assert plan["recorded"]
    for key in ("verdict", "quant", "fit", "placement", "memory"):
        assert plan[key] == default_plans["t4-96"][key], key


def test_a_host_without_its_driver_is_not_deployed_to(play: Any, on_host: Any) -> None:
    before = tree(on_host("t4-bare"))
    run = play("--limit", "t4-bare", "-e", "llama_plan_require_listing=false")
    assert run.status != 0
    assert "no driver serves it: install the NVIDIA driver on the machine that this systemd-nspawn container runs on, or set" in run.text
    assert tree(on_host("t4-bare")) == before
