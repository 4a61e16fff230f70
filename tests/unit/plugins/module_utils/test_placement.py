# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The placement that uses the devices best, by the memory model and as an engine corrects it."""

from __future__ import annotations

import pytest

from ansible_collections.onprem.llamacpp.plugins.module_utils import _memory_model, _placement
from ansible_collections.onprem.llamacpp.plugins.module_utils._memory_model import Setup

GIB = 2**30


@pytest.mark.parametrize(
    ("shape", "setup", "gib", "expected"),
    [
        pytest.param("kimi-linear", Setup(32768), [24], {"n_gpu_layers": 999, "n_cpu_moe": None}, id="everything fits"),
        pytest.param("kimi-linear", Setup(131072), [8], {"n_gpu_layers": 999, "n_cpu_moe": 18}, id="some experts on the host"),
        pytest.param("kimi-k2", Setup(16384), [15], {"n_gpu_layers": 999, "n_cpu_moe": "all"}, id="all experts on the host"),
        pytest.param("kimi-k2", Setup(4096), [6], {"n_gpu_layers": 36, "n_cpu_moe": "all"}, id="not even the rest fits"),
        pytest.param("kimi-k2", Setup(131072), [79, 79], {"n_gpu_layers": 999, "n_cpu_moe": 34}, id="two devices"),
        pytest.param("kimi-k2", Setup(131072), [0, 79], {"n_gpu_layers": 999, "tensor_split": [0.0, 62.0]}, id="one of two is full"),
        pytest.param("llama", Setup(8192), [23, 11], {"n_gpu_layers": 45, "n_cpu_moe": None}, id="a dense model in part"),
    ],
)
def test_best_placement(shape_models, shape, setup, gib, expected):
    model, capacities = shape_models[shape], [size * GIB for size in gib]
    found = _placement.search(model, setup, capacities)
    assert found is not None
    placement = _placement.as_placement(found)
    assert {key: placement[key] for key in expected} == expected
    assert not _placement.excess(_memory_model.memory(model, found, len(capacities))["devices"], capacities)


@pytest.mark.parametrize("shape", ["kimi-k2", "kimi-linear", "qwen3-moe", "gemma3", "llama"])
def test_one_layer_more_would_not_fit(shape_models, shape):
    model, capacities = shape_models[shape], [13 * GIB, 7 * GIB]
    found = _placement.search(model, Setup(16384), capacities)
    assert found is not None
    if found.n_cpu_moe and found.n_cpu_moe != "all":
        more = found._replace(n_cpu_moe=found.n_cpu_moe - 1)
    elif found.n_gpu_layers < 999:
        more = found._replace(n_gpu_layers=found.n_gpu_layers + 1)
    else:
        more = found
    splits = ([float(first), float(min(more.n_gpu_layers, model.count + 1) - first)] for first in range(model.count + 2))
    fitting = [
        split
        for split in splits
        if split[1] >= 0 and not _placement.excess(_memory_model.memory(model, more._replace(tensor_split=split), 2)["devices"], capacities)
    ]
    assert fitting == [] or more == found


def test_no_room_for_one_layer_is_no_placement(shape_models):
    assert _placement.search(shape_models["llama"], Setup(8192), [GIB // 4]) is None
    assert _placement.search(shape_models["llama"], Setup(8192), []) is None


def test_an_engine_that_takes_more_moves_experts_to_the_host(shape_models):
    model, capacities = shape_models["kimi-linear"], [8 * GIB]

    def hungrier(setup):
        shares = _memory_model.memory(model, setup, 1)["devices"]
        return [{**share, "compute": share["compute"] + GIB} for share in shares]

    guess = _placement.search(model, Setup(131072), capacities)
    found = _placement.settle(model, Setup(131072), capacities, hungrier)
    assert guess is not None and found is not None
    assert found.fits
    assert found.setup.n_cpu_moe > guess.n_cpu_moe
    assert found.questions <= _placement.ROUNDS


def test_an_engine_that_takes_less_brings_experts_to_the_device(shape_models):
    model, capacities = shape_models["kimi-linear"], [8 * GIB]

    def modest(setup):
        shares = _memory_model.memory(model, setup, 1)["devices"]
        return [{**share, "compute": 0} for share in shares]

    guess = _placement.search(model, Setup(262144), capacities)
    found = _placement.settle(model, Setup(262144), capacities, modest)
    assert found.fits
    assert found.setup.n_cpu_moe < guess.n_cpu_moe


def test_an_engine_that_never_has_enough_is_told(shape_models):
    model, capacities = shape_models["kimi-linear"], [8 * GIB]
    found = _placement.settle(model, Setup(131072), capacities, lambda setup: [{"weights": 9 * GIB, "context": 0, "compute": 0}])
    assert not found.fits
