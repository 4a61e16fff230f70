# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The memory model against what the engine's own allocator said of the same models (b11549, RPC devices)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ansible_collections.onprem.llamacpp.plugins.module_utils import _memory_model
from ansible_collections.onprem.llamacpp.plugins.module_utils._memory_model import HOST, Model, Setup

MIB = 2**20
FIXTURE = Path(__file__).parents[2] / "fixtures" / "fit" / "b11549-rpc.jsonl"
ENGINE = [json.loads(line) for line in FIXTURE.read_text().splitlines()]


def test_devices_take_what_the_engine_says(shape_models):
    worst: list[str] = []
    for case in ENGINE:
        ours = _memory_model.memory(shape_models[case["shape"]], Setup(**case["setup"]), len(case["engine"]))["devices"]
        for number, (share, engine) in enumerate(zip(ours, case["engine"])):
            weights, context, _compute = engine
            total = sum(engine) * MIB
            error = abs(sum(share.values()) - total)
            # The engine prints whole MiB, rounded down.
            exact = 0 <= share["weights"] - weights * MIB < MIB and 0 <= share["context"] - context * MIB < MIB
            if not exact or (error > 256 * MIB and error > 0.02 * total):
                worst.append(f"{case['shape']} {case['setup']} device {number}: {engine}, not {[v // MIB for v in share.values()]}")
    assert not worst, "\n".join(worst)
    assert len(ENGINE) > 300
    assert {case["shape"] for case in ENGINE} == {"kimi-k2", "kimi-linear", "qwen3-moe", "gemma3", "llama"}


def test_nothing_is_lost_between_devices_and_host(shape_models):
    for name, model in shape_models.items():
        twice = model.header["input"] if model.header["tied"] else 0
        for setup in (Setup(4096), Setup(4096, n_gpu_layers=999), Setup(4096, n_gpu_layers=20, n_cpu_moe=30)):
            found = _memory_model.memory(model, setup, 2)
            held = found["host"]["weights"] + sum(share["weights"] for share in found["devices"])
            assert held == model.total + (twice if setup.n_gpu_layers else 0), name


@pytest.mark.parametrize(
    ("setup", "bytes_per_token"),
    [
        pytest.param(Setup(16384), 70272, id="keys only"),
        pytest.param(Setup(16384, cache_type_k="q8_0"), 37332, id="quantised keys"),
        pytest.param(Setup(16384, cache_type_k="q4_0"), 19764, id="keys in four bits"),
        pytest.param(Setup(16384, latent_values=True), 132736, id="keys and values, as old builds keep them"),
    ],
)
def test_latent_cache_of_kimi_k2(shape_models, setup, bytes_per_token):
    assert sum(_memory_model.context_by_layer(shape_models["kimi-k2"], setup)) == bytes_per_token * 16384


def test_state_of_kimi_linear_is_kept_for_each_slot(shape_models):
    model = shape_models["kimi-linear"]
    assert model.states() == 20 * 2244608
    one, four = (sum(_memory_model.context_by_layer(model, Setup(32768, parallel=slots, unified=True))) for slots in (1, 4))
    assert four - one == 3 * model.states()


@pytest.mark.parametrize(
    ("layers", "split", "devices", "expected"),
    [
        pytest.param(0, None, 1, [HOST] * 5, id="nothing offloaded"),
        pytest.param(999, None, 0, [HOST] * 5, id="no device"),
        pytest.param(2, None, 1, [HOST, HOST, HOST, 0, 0], id="the last layer and the output"),
        pytest.param(999, None, 2, [0, 0, 0, 1, 1], id="halves"),
        pytest.param(999, [1.0, 4.0], 2, [0, 1, 1, 1, 1], id="runs as long as the split says"),
        pytest.param(999, [5.0, 0.0], 2, [0, 0, 0, 0, 0], id="a device without a share"),
        pytest.param(999, [0.0, 5.0], 2, [1, 1, 1, 1, 1], id="the first device without a share"),
    ],
)
def test_layers_go_to_devices_as_the_engine_deals_them(layers, split, devices, expected):
    assert _memory_model.assign(4, layers, split, devices) == expected


def test_experts_of_the_first_layers_stay_on_the_host(shape_models):
    model = shape_models["kimi-k2"]
    all_off, one_on = (
        _memory_model.memory(model, Setup(4096, n_gpu_layers=999, n_cpu_moe=layers), 1)["devices"][0]["weights"] for layers in ("all", 60)
    )
    assert one_on - all_off == model.layers[60]["experts"]
    same = _memory_model.memory(model, Setup(4096, n_gpu_layers=999, n_cpu_moe=61), 1)["devices"][0]["weights"]
    assert same == all_off


def test_without_flash_attention_every_head_scores_the_whole_context(shape_models):
    model = shape_models["kimi-k2"]
    with_it, without = (
        _memory_model.memory(model, Setup(131072, n_gpu_layers=999, flash_attention=flash), 1)["devices"][0]["compute"]
        for flash in (True, False)
    )
    assert without - with_it > 64 * 131072 * 512 * 4 * 0.9


@pytest.mark.parametrize("missing", ["embedding_length", "attention.head_count"])
def test_a_header_without_a_needed_key_is_refused_by_name(shape_models, missing):
    header = dict(shape_models["llama"].header)
    header["parameters"] = {key: value for key, value in header["parameters"].items() if key != missing}
    with pytest.raises(ValueError, match=missing):
        Model(header)


def test_per_layer_numbers_must_cover_every_layer(shape_models):
    header = dict(shape_models["kimi-linear"].header)
    header["parameters"] = {**header["parameters"], "attention.head_count_kv": [1, 0]}
    with pytest.raises(ValueError, match="head_count_kv for all of its 27 layers"):
        Model(header)
