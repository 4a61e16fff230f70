# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest

from ansible_collections.onprem.llamacpp.plugins.module_utils import _bench

GB = 10**9
USAGE = "\n".join(f"  -x, {option} <n>   (default: 1)" for option in {*_bench.OPTIONS.values()})
MODEL = {"LLAMA_ARG_MODEL": "/m/a.gguf"}

RENDERED = {
    "nothing but the model": ({}, []),
    "layers and cache": (
        {"LLAMA_ARG_N_GPU_LAYERS": "62", "LLAMA_ARG_CACHE_TYPE_K": "q8_0"},
        ["--cache-type-k", "q8_0", "--n-gpu-layers", "62"],
    ),
    "all experts in host memory": ({"LLAMA_ARG_CPU_MOE": "1"}, ["--n-cpu-moe", "999"]),
    "tensor placement is one set": ({"LLAMA_ARG_OVERRIDE_TENSOR": "a=CPU,b=CUDA0"}, ["--override-tensor", "a=CPU;b=CUDA0"]),
    "a split is one value": ({"LLAMA_ARG_TENSOR_SPLIT": "3,1"}, ["--tensor-split", "3/1"]),
    "devices are one value": ({"LLAMA_ARG_DEVICE": "CUDA0,CUDA1"}, ["--device", "CUDA0/CUDA1"]),
    "truth as a number": ({"LLAMA_ARG_REPACK": "false"}, ["--repack", "0"]),
    "what has no part in speed": ({"LLAMA_ARG_PORT": "8080", "LLAMA_ARG_CTX_SIZE": "4096"}, []),
}


@pytest.mark.parametrize(("variables", "wanted"), RENDERED.values(), ids=RENDERED)
def test_server_environment_becomes_arguments(variables, wanted):
    found, missing = _bench.arguments({**MODEL, **variables}, USAGE)
    assert (found, missing) == (["--model", "/m/a.gguf", *wanted], [])


def test_flag_that_the_program_lacks_is_left_out_and_told():
    found, missing = _bench.arguments({**MODEL, "LLAMA_ARG_N_CPU_MOE": "3", "LLAMA_ARG_THREADS": "8"}, "  -t, --threads <n>")
    assert (found[2:], missing) == (["--threads", "8"], ["LLAMA_ARG_N_CPU_MOE"])


def test_environment_file_is_read_as_it_is_written():
    text = 'A=1\nB="two words \\"quoted\\""\n# C=3\n'
    assert _bench.environment(text) == {"A": "1", "B": 'two words "quoted"'}


def plan(fit="resident", devices=(), placement=None, weights=100 * GB):
    return {
        "fit": fit,
        "placement": placement or {},
        "memory": {
            "host": {"weights": weights, "context": GB, "compute": GB, "cache": 8 * GB},
            "devices": [{"engine_name": name, "weights": 10 * GB, "context": GB, "compute": GB} for name in devices],
        },
    }


OBSTACLES = {
    "room for both": (plan(), 200, {}, ""),
    "room for both on the device": (plan(devices=["CUDA0"]), 200, {"CUDA0": 13 * GB}, ""),
    "host too small": (plan(), 104, {}, "the host can give 98.9 GB of memory, a second load takes 102.0 GB"),
    "device too small": (plan(devices=["CUDA0"]), 200, {"CUDA0": 11 * GB}, "CUDA0 has 11.0 GB free, a second load takes 12.0 GB"),
    "device that is not seen": (plan(devices=["CUDA0"]), 200, {}, "CUDA0 has 0.0 GB free"),
    "streams": (plan(fit="streaming"), 10_000, {}, "the model streams from disk"),
    "remote": (plan(placement={"rpc_servers": ["a:1"]}), 10_000, {}, "an RPC server has one client at a time"),
    "no plan": ({}, 10_000, {}, "the plan of the deployment is not known"),
}


@pytest.mark.parametrize(("planned", "available", "free", "said"), OBSTACLES.values(), ids=OBSTACLES)
def test_second_load_only_where_memory_allows_it(planned, available, free, said):
    found = _bench.obstacle(planned, available * GB, 256 * GB, free)
    assert found.startswith(said) and bool(found) == bool(said)


def test_free_memory_of_devices():
    text = "Available devices:\n  CUDA0: Tesla T4 (15360 MiB, 11111 MiB free)\n"
    assert _bench.device_memory(text) == {"CUDA0": 11111 * 2**20}


BENCH = [
    {"n_prompt": 256, "n_gen": 0, "avg_ts": 101.239, "stddev_ts": 1.5},
    {"n_prompt": 0, "n_gen": 64, "avg_ts": 5.251, "stddev_ts": 0.12},
]


def test_figures_of_the_program():
    assert _bench.figures(json.dumps(BENCH)) == {
        "prompt_tokens_per_second": 101.24,
        "prompt_tokens_per_second_deviation": 1.5,
        "n_prompt": 256,
        "tokens_per_second": 5.25,
        "tokens_per_second_deviation": 0.12,
        "n_gen": 64,
    }


@pytest.mark.parametrize("text", ["", "error: out of memory", "[]"])
def test_no_figures_are_an_error(text):
    with pytest.raises(ValueError):
        _bench.figures(text)


def test_measured_is_shown_beside_expected():
    result = {
        "tokens_per_second": 5.2,
        "prompt_tokens_per_second": None,
        "load": {"clients": 4, "requests": 8, "failed": 0, "tokens_per_second": 9.1, "first_token_seconds": {"median": 1.5, "worst": 3.0}},
        "engine": {},
        "notes": ["llama-bench was not run: the model streams from disk"],
    }
    lines = _bench.words(result, {"low": 2.1, "high": 5.9})
    assert lines[0] == "one user: 5.2 tokens/s (the plan expected 2.1 to 5.9), prompts - tokens/s"
    assert "0 of 8 requests failed" in lines[1]
    assert lines[2] == "llama-bench was not run: the model streams from disk"
