# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.onprem.llamacpp.plugins.module_utils._memory_model import CACHE_BLOCKS
from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _environment, _placement_orders, _plan_settings, _sizing

ROOT = Path(__file__).resolve().parents[4]
GOOD = {
    **{"ctx_size": 0, "parallel": 1, "ubatch_size": 512, "threads": None, "ram_reserve": 4 * 2**30, "vram_margin": 0},
    **{"disk_buffer": None, "link_bits_per_second": 10**9, "port": 8080, "quant": "auto"},
}


def test_good_numbers_pass_as_they_are() -> None:
    assert _plan_settings.check(GOOD) == GOOD


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("ctx_size", -5, "llama_plan_ctx_size is -5, expected a whole number from 0 to 2147483647 (tokens, 0 for the model's default)"),
        ("ram_reserve", "lots", "llama_plan_ram_reserve is 'lots', expected a whole number from 0 to"),
        ("disk_buffer", -7, "llama_plan_disk_buffer is -7, expected a whole number from -1 to"),
        ("link_bits_per_second", 0, "llama_plan_link_speed is 0, expected a whole number from 1 to"),
        ("parallel", 0, "llama_plan_parallel is 0"),
        ("threads", -1, "llama_plan_threads is -1"),
        ("vram_margin", True, "llama_plan_vram_margin is True"),
        ("port", 70000, "llama_plan_port is 70000"),
        ("cache_type_k", "q8", "llama_plan_cache_type_k is 'q8', expected one of f32, f16, bf16, q8_0, "),
        ("cache_type_v", ["f16"], "llama_plan_cache_type_v is ['f16'], expected one of f32"),
        ("placement", [1], "llama_plan_placement is [1], expected a mapping"),
    ],
)
def test_a_value_that_makes_no_sense_is_named(key: str, value: Any, told: str) -> None:
    with pytest.raises(_plan_settings.SettingsError) as error:
        _plan_settings.check({**GOOD, key: value})
    assert told in str(error.value)


def test_all_wrong_numbers_are_told_at_once() -> None:
    with pytest.raises(_plan_settings.SettingsError, match=r"llama_plan_ctx_size is -1.*; llama_plan_port is 0"):
        _plan_settings.check({**GOOD, "ctx_size": -1, "port": 0})


def test_the_roles_choices_are_the_cache_types_that_can_be_sized() -> None:
    options = yaml.safe_load((ROOT / "roles/llama_plan/meta/argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
    for key in ("llama_plan_cache_type_k", "llama_plan_cache_type_v"):
        assert options[key]["choices"] == list(CACHE_BLOCKS)


@pytest.mark.parametrize(
    ("order", "taken"),
    [
        pytest.param({}, {}, id="nothing"),
        pytest.param({"n_gpu_layers": 40}, {"n_gpu_layers": 40}, id="layers"),
        pytest.param({"n_gpu_layers": 0}, {"n_gpu_layers": 0}, id="no layers"),
        pytest.param({"n_gpu_layers": -1}, {"n_gpu_layers": 999}, id="negative"),
        pytest.param({"n_gpu_layers": "all"}, {"n_gpu_layers": 999}, id="all"),
        pytest.param({"n_gpu_layers": "auto"}, {"n_gpu_layers": 999}, id="auto"),
        pytest.param({"n_cpu_moe": "all"}, {"n_cpu_moe": "all"}, id="all experts"),
        pytest.param({"n_cpu_moe": None}, {"n_cpu_moe": None}, id="no experts"),
        pytest.param({"tensor_split": "3,1"}, {"tensor_split": [3.0, 1.0]}, id="split as a flag"),
        pytest.param({"tensor_split": [3, 0.5]}, {"tensor_split": [3, 0.5]}, id="split"),
        pytest.param({"warmup": False, "flash_attn": "off"}, {"warmup": False, "flash_attn": "off"}, id="switches"),
        pytest.param({"load_mode": "mmap+mlock", "numa": "distribute"}, {"load_mode": "mmap+mlock", "numa": "distribute"}, id="loading"),
        pytest.param({"cache_ram_mib": 0, "threads": 8}, {"cache_ram_mib": 0, "threads": 8}, id="numbers"),
        pytest.param({"override_tensors": "exps=CPU"}, {"override_tensors": "exps=CPU"}, id="tensors"),
    ],
)
def test_orders_are_read_in_the_planners_terms(order: dict[str, Any], taken: dict[str, Any]) -> None:
    assert _plan_settings.check({**GOOD, "placement": order}) == {**GOOD, "placement": taken}


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("n_gpu_layers", "most", "a whole number, negative for every layer, or one of all, auto"),
        ("n_gpu_layers", None, "a whole number, negative"),
        ("n_gpu_layers", "99", "a whole number, negative"),
        ("n_cpu_moe", -1, "a whole number from 0 on, or all, or null"),
        ("n_cpu_moe", "some", "a whole number from 0 on, or all"),
        ("tensor_split", "3;1", "a list of numbers from 0 on, not all 0, or text such as '3,1'"),
        ("tensor_split", [1, -1], "a list of numbers"),
        ("tensor_split", [0, 0], "a list of numbers"),
        ("tensor_split", ["3", "1"], "a list of numbers"),
        ("tensor_split", "1,nan", "a list of numbers"),
        ("tensor_split", 3, "a list of numbers"),
        ("ctx_size", "8k", "a whole number from 1 to 2147483647 (tokens)"),
        ("parallel", 0, "a whole number from 1 to 1024 (slots)"),
        ("ubatch_size", True, "a whole number from 1 to 1048576 (tokens)"),
        ("cache_ram_mib", 1.5, "a whole number from 0"),
        ("threads", "8", "a whole number from 0 to 4096"),
        ("load_mode", "direct", "one of auto, none, mmap, mlock, mmap+mlock, dio"),
        ("repack", "yes", "true or false"),
        ("warmup", 0, "true or false"),
        ("cache_type_k", "q8", "one of f32, f16, bf16, q8_0"),
        ("cache_type_v", "q4", "one of f32, f16, bf16, q8_0"),
        ("flash_attn", False, "one of on, off, auto, in quotes"),
        ("override_tensors", ["a=CPU"], "text"),
        ("numa", 1, "text"),
        ("rpc_servers", "127.0.0.1:50052", "a list of addresses"),
    ],
)
def test_an_order_that_makes_no_sense_is_named(key: str, value: Any, wanted: str) -> None:
    with pytest.raises(_plan_settings.SettingsError) as error:
        _plan_settings.check({**GOOD, "placement": {key: value}})
    assert f"{key} of llama_plan_placement is {value!r}, expected {wanted}" in str(error.value)


def test_an_unknown_order_is_refused_with_the_known_ones() -> None:
    with pytest.raises(_plan_settings.SettingsError, match=r"llama_plan_placement has ngl, which is not known: it may have n_gpu_layers, "):
        _plan_settings.check({**GOOD, "placement": {"ngl": 99}})


def test_everything_that_a_placement_holds_can_be_ordered() -> None:
    settings = {"ctx_size": 1, "cache_type_k": "f16", "cache_type_v": "f16", "parallel": 1, "ubatch_size": 1}
    asked: set[str] = set()

    class Asked(dict[str, Any]):
        def get(self, key: str, default: Any = None) -> Any:
            asked.add(key)
            return super().get(key, default)

    names = ["--host", "--port", "--model", "--ctx-size", "--parallel", "--metrics"]
    options = [{"names": [name], "value": name != "--metrics", "env": name} for name in names]
    place = Asked(ctx_size=1)
    _environment.render({"placement": place}, {"capabilities": {"options": options}}, {"model": "m", "host": "h", "port": 1})
    assert set(_sizing.base_placement(settings, {})) | asked == set(_placement_orders.ORDERS)
