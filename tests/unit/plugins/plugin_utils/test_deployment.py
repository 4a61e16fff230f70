# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import copy
import json

import pytest

from ansible_collections.onprem.llamacpp.plugins.filter.deployment import FilterModule
from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _deployment

ENGINE = {
    "build_id": "b11549-cpu-x86_64-0011aabb",
    "path": "/opt/llamacpp/releases/b11549-cpu-x86_64-0011aabb",
    "build": {"number": 11549, "backend": "cpu"},
}
MODEL = {
    "repo_id": "org/repo",
    "commit": "1" * 40,
    "quant": "UD-Q2_K_XL",
    "path": "/var/lib/llamacpp/models/org--repo/" + "1" * 40 + "/UD-Q2_K_XL",
    "first_shard": "m-00001-of-00002.gguf",
    "bytes": 30,
    "files": [
        {"path": "UD-Q2_K_XL/m-00001-of-00002.gguf", "size": 10, "sha256": "a" * 64},
        {"path": "UD-Q2_K_XL/m-00002-of-00002.gguf", "size": 20, "sha256": "b" * 64},
    ],
}
PLAN = {"devices": [{"engine_name": "CUDA0", "uuid": "GPU-1"}], "expected": {"tokens_per_second": 5}}
ENVIRONMENT = {"LLAMA_ARG_PORT": "8080", "LLAMA_ARG_CTX_SIZE": "16384", "LLAMA_ARG_LOG_VERBOSITY": "4"}
UNIT = "[Service]\nIPAddressDeny=any\n"
SETTINGS = {
    "instance": "main",
    "host": "127.0.0.1",
    "port": 8080,
    "alias": "kimi-k2-instruct",
    "api_key_required": True,
    "extra_environment": {},
    "advertised": "10.0.0.1",
    "warm_seconds": 1800,
    "keep": 3,
    "overlap": "auto",
    "spare_port": 18080,
    "drain_seconds": 600,
    "gate": {
        "prompts": [{"prompt": "?"}],
        "tools": "auto",
        "min_tokens_per_second": 0,
        "benchmark_share": 0.8,
        "max_tokens": 8,
        "answer_seconds": 60,
        "grace_seconds": 30,
        "disk_floor_mb": 100,
    },
}


def describe(**changes):
    wish = {"engine": ENGINE, "model": MODEL, "plan": PLAN, "environment": ENVIRONMENT, "unit": UNIT, "settings": SETTINGS, **changes}
    return _deployment.describe(**copy.deepcopy(wish))


def test_measuring_changes_no_question_of_the_gate():
    estimate = {"low": 2.0, "high": 6.0, "basis": "bandwidth"}
    before = describe(plan={"expected": {"tokens_per_second": 3.5, **estimate}})
    after = describe(plan={"expected": {"tokens_per_second": 4.2, "low": 4.2, "high": 4.2, "basis": "benchmark", "estimate": estimate}})
    assert after["request"] == before["request"]
    assert after["request"]["speed"]["expected"] == 2.0


def test_id_is_twelve_hex_digits_and_stays_the_same():
    # A changed figure here means that every server restarts with the next run.
    assert describe()["id"] == "7a7e9e1416ff"


SAME = {
    "order-of-environment": {"environment": dict(reversed(ENVIRONMENT.items()))},
    "order-of-shards": {"model": {**MODEL, "files": MODEL["files"][::-1]}},
    "plan": {"plan": {"devices": [], "expected": {"tokens_per_second": 9}}},
    "reading-ahead": {"settings": {**SETTINGS, "warm_seconds": 0}},
    "gate": {"settings": {**SETTINGS, "gate": {**SETTINGS["gate"], "prompts": [{"prompt": "Who?"}]}}},
}


@pytest.mark.parametrize("changes", SAME.values(), ids=SAME)
def test_same_wish_has_the_same_id(changes):
    assert describe(**changes)["id"] == describe()["id"]


OTHER = {
    "engine": {"engine": {**ENGINE, "build_id": "b11669-cpu-x86_64-0011aabb"}},
    "repo": {"model": {**MODEL, "repo_id": "org/other"}},
    "commit": {"model": {**MODEL, "commit": "2" * 40}},
    "quant": {"model": {**MODEL, "quant": "UD-TQ1_0"}},
    "shard": {"model": {**MODEL, "files": [{**MODEL["files"][0], "sha256": "c" * 64}, MODEL["files"][1]]}},
    "environment": {"environment": {**ENVIRONMENT, "LLAMA_ARG_CTX_SIZE": "8192"}},
    "extra-environment": {"settings": {**SETTINGS, "extra_environment": {"GGML_CUDA_P2P": "1"}}},
    "unit": {"unit": UNIT + "LimitMEMLOCK=infinity\n"},
}


@pytest.mark.parametrize("changes", OTHER.values(), ids=OTHER)
def test_other_wish_has_another_id(changes):
    assert describe(**changes)["id"] != describe()["id"]


def test_documents_follow_from_the_wish_alone():
    first, second = describe(), describe(plan={"devices": []}, settings={**SETTINGS, "gate": {**SETTINGS["gate"], "max_tokens": 1}})
    assert first["document"] == second["document"] and first["server_env"] == second["server_env"]
    assert first["document"]["id"] == first["id"]
    assert first["document"]["shards"][0] == {"name": "m-00001-of-00002.gguf", "size": 10, "sha256": "a" * 64}


def test_gate_asks_for_what_is_deployed():
    request = describe()["request"]
    assert request["model_path"] == MODEL["path"] + "/m-00001-of-00002.gguf"
    assert (request["build_number"], request["model_bytes"], request["devices"]) == (11549, 30, ["CUDA0"])
    assert request["disk_floor"] == 100_000_000


GATE_PROMPTS = {
    "defaults": ({"prompt": "?"}, {"prompt": "?", "expect": "", "pattern": "", "max_tokens": 8}),
    "own": ({"prompt": "?", "pattern": "^a", "max_tokens": 3}, {"prompt": "?", "expect": "", "pattern": "^a", "max_tokens": 3}),
}


@pytest.mark.parametrize(("given", "asked"), GATE_PROMPTS.values(), ids=GATE_PROMPTS)
def test_gate_prompt(given, asked):
    settings = {**SETTINGS, "gate": {**SETTINGS["gate"], "prompts": [given]}}
    assert describe(settings=settings)["request"]["prompts"] == [asked]


@pytest.mark.parametrize(("given", "reason"), [({}, "has no prompt"), ({"prompt": "?", "pattern": "("}, "no regular expression")])
def test_gate_prompt_that_cannot_be_asked(given, reason):
    with pytest.raises(_deployment.DeploymentError, match=reason):
        describe(settings={**SETTINGS, "gate": {**SETTINGS["gate"], "prompts": [given]}})


VALUES = {
    "plain": ("16384", "X=16384\n"),
    "path": ("/a/b-c_d.gguf", "X=/a/b-c_d.gguf\n"),
    "empty": ("", 'X=""\n'),
    "blank": ("a b", 'X="a b"\n'),
    "regex": (r"blk\.(1|2)\.ffn_.*_exps\.=CPU", 'X="blk\\\\.(1|2)\\\\.ffn_.*_exps\\\\.=CPU"\n'),
    "quotes": ('say "no" to $this `now`', 'X="say \\"no\\" to \\$this \\`now\\`"\n'),
    "hash": ("#1", 'X="#1"\n'),
}


@pytest.mark.parametrize(("value", "text"), VALUES.values(), ids=VALUES)
def test_environment_file_quotes_what_systemd_would_misread(value, text):
    assert _deployment.environment_file({"X": value}) == text


REFUSED = {
    "api-key": ({"LLAMA_API_KEY": "k"}, "looks like a secret"),
    "hub-token": ({"HF_TOKEN": "k"}, "looks like a secret"),
    "port": ({"LLAMA_ARG_PORT": 1}, "set by llama_server_port"),
    "model": ({"LLAMA_ARG_MODEL": "/x"}, "set by model and quant"),
    "rpc": ({"LLAMA_ARG_RPC": "10.0.0.2:50052"}, "LLAMA_ARG_RPC is set by llama_plan_rpc_servers"),
    "rpc-as-argument": ({"LLAMACPP_ARGS": "--no-warmup --rpc 10.0.0.2:50052"}, "--rpc in LLAMACPP_ARGS is set by llama_plan_rpc_servers"),
    "name": ({"A B": 1}, "no name"),
    "line-break": ({"A": "1\n2"}, "control character"),
}


@pytest.mark.parametrize(("extra", "reason"), REFUSED.values(), ids=REFUSED)
def test_refused_environment(extra, reason):
    with pytest.raises(_deployment.DeploymentError, match=reason):
        describe(settings={**SETTINGS, "extra_environment": extra})


def test_booleans_are_spelled_as_the_engine_does():
    assert _deployment.merge_environment({}, {"A": True, "B": False}) == {"A": "1", "B": "0"}


def test_filter_tells_what_is_missing():
    deployment = FilterModule().filters()["deployment"]
    assert deployment(ENGINE, MODEL, PLAN, ENVIRONMENT, UNIT, SETTINGS) == describe()
    with pytest.raises(Exception, match="lacks what a deployment is made of: 'first_shard'"):
        deployment(ENGINE, {key: value for key, value in MODEL.items() if key != "first_shard"}, PLAN, ENVIRONMENT, UNIT, SETTINGS)


def test_nothing_that_looks_like_a_key_is_in_it():
    assert "api-keys" not in json.dumps(describe())
