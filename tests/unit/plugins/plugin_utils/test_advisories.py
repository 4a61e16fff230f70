# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of the shipped advisories a plan gets, and what a user's broken one is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.onprem.llamacpp.plugins.plugin_utils._advisories import about_config, concerning
from ansible_collections.onprem.llamacpp.plugins.plugin_utils._catalog import PlanError

ROOT = Path(__file__).resolve().parents[4]
SHIPPED = yaml.safe_load((ROOT / "roles/llama_plan/vars/advisories.yml").read_text())["_llama_plan_advisories"]


def plan(backend: str = "cuda", quant: str = "UD-Q2_K_XL", capability: str = "8.0", **place: Any) -> dict[str, Any]:
    placement = {"cache_type_k": "f16", "cache_type_v": "f16", "parallel": 1, "ubatch_size": 512, "n_cpu_moe": "all", **place}
    return {"engine_backend": backend, "quant": quant, "devices": [{"compute_capability": capability}], "placement": placement}


@pytest.mark.parametrize(
    ("given", "architecture", "types", "build", "ids"),
    [
        pytest.param(plan(), "deepseek2", [], 11549, set(), id="nothing to say"),
        pytest.param(plan(capability="7.5"), "deepseek2", [], 11549, {"turing-experts-on-host"}, id="Turing with experts on the host"),
        pytest.param(
            plan(capability="7.0"), "deepseek2", [], 11549, {"turing-experts-on-host", "latent-attention-volta"}, id="Volta with MLA"
        ),
        pytest.param(plan(), "deepseek2", ["Q2_K", "TQ1_0"], 11549, {"tq1-0-without-cuda"}, id="a type without a kernel"),
        pytest.param(plan("cpu"), "deepseek2", ["TQ1_0"], 11549, set(), id="on the CPU it has one"),
        pytest.param(plan(cache_type_v="q8_0"), "deepseek2", [], 11549, {"mixed-cache-types"}, id="mixed cache types"),
        pytest.param(plan(quant="Q2_K"), "kimi-linear", [], 11549, {"kimi-linear-q2-k"}, id="Kimi-Linear in Q2_K"),
        pytest.param(plan(quant="Q4_K_M"), "kimi-linear", [], 7965, {"kimi-linear-conv-state"}, id="Kimi-Linear on an old build"),
        pytest.param(plan(quant="Q4_K_M"), "kimi-linear", [], 0, set(), id="a build that is not known is not accused"),
        pytest.param(plan(quant="Q4_K_M", parallel=3), "kimi-linear", [], 11549, {"recurrent-uneven-slots"}, id="three slots"),
        pytest.param(plan(quant="Q4_K_M", parallel=4), "kimi-linear", [], 11549, set(), id="four slots"),
        pytest.param(plan("rpc"), "deepseek2", [], 11549, {"rpc-is-for-tests"}, id="RPC"),
        pytest.param(plan(rpc_servers=["10.0.0.2:50052"]), "deepseek2", [], 11549, {"rpc-is-for-tests"}, id="RPC servers of a CUDA build"),
        pytest.param({**plan(), "placement": {}}, "kimi-linear", [], 100, set(), id="no placement, no advice"),
    ],
)
def test_shipped_advisories(given, architecture, types, build, ids):
    assert {entry["id"] for entry in concerning(SHIPPED, given, architecture, types, build)} == ids


def test_the_gravest_comes_first_and_every_one_has_a_source():
    found = concerning(SHIPPED, plan(quant="Q2_K", parallel=3), "kimi-linear", [], 100)
    assert [entry["severity"] for entry in found] == ["error", "error", "warning"]
    assert all(entry["source"] and entry["text"] for entry in found)


def engine(number: int, *flags: str) -> dict[str, Any]:
    return {"build": {"number": number, "capabilities": {"options": [{"names": list(flags)}]}}}


@pytest.mark.parametrize(
    ("given", "engines", "told"),
    [
        pytest.param(plan(), [engine(11549, "--rpc")], True, id="contained and not used"),
        pytest.param(plan(), [engine(12000, "--rpc"), engine(11549, "--port")], False, id="new or without it"),
        pytest.param(plan("rpc"), [engine(11549, "--rpc")], False, id="used, which other advisories speak of"),
        pytest.param(plan(), [], False, id="no engine yet"),
    ],
)
def test_an_engine_that_contains_rpc(given, engines, told):
    found = concerning(SHIPPED, given, "deepseek2", [], 11549, engines)
    assert ("rpc-contained" in [entry["id"] for entry in found]) is told


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        pytest.param({"id": "x", "severity": "fatal", "text": "t"}, "a severity of info, warning, error", id="severity"),
        pytest.param({"severity": "info", "text": "t"}, "needs an id", id="no id"),
        pytest.param({"id": "x", "severity": "info", "text": "t", "when": {"moon": "full"}}, "the condition moon", id="condition"),
    ],
)
def test_a_broken_advisory_is_told(entry, told):
    with pytest.raises(PlanError, match=told):
        concerning([entry], plan(), "deepseek2", [], 1)


@pytest.mark.parametrize(
    ("config", "severity", "told"),
    [
        pytest.param(
            {"path": "/etc/llama.cpp/config.ini", "keys": ["ctx-size", "fit"]}, "warning", "config.ini sets ctx-size, fit. ", id="keys"
        ),
        pytest.param({"path": "/etc/llama.cpp/config.ini", "keys": []}, "info", "sets nothing", id="no keys"),
        pytest.param({"path": "/etc/llama.cpp/config.ini", "keys": None}, "warning", "cannot be read", id="closed"),
    ],
)
def test_a_settings_file_of_others(config, severity, told):
    (found,) = about_config(config)
    assert found["severity"] == severity
    assert told in found["text"]


def test_without_such_a_file_nothing_is_said():
    assert about_config({}) == []
