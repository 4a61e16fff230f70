# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A plan as the environment of one build, on real builds and on the shapes of flags that older ones had."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.onprem.llamacpp.plugins.module_utils import _capabilities
from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _environment

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "capabilities"
REAL = {
    build: {"tag": build, "capabilities": {"options": _capabilities.parse_help((FIXTURES / f"{build}.help.txt").read_text())}}
    for build in ("b11549", "b11669")
}
PLACEMENT = {
    "n_gpu_layers": 99,
    "n_cpu_moe": None,
    "override_tensors": None,
    "tensor_split": None,
    "ctx_size": 16384,
    "cache_type_k": "f16",
    "cache_type_v": "f16",
    "parallel": 1,
    "ubatch_size": 512,
    "load_mode": "auto",
    "repack": True,
    "warmup": True,
    "cache_ram_mib": 0,
    "threads": None,
    "numa": None,
    "rpc_servers": [],
}
SETTINGS = {"model": "/models/a-00001-of-00003.gguf", "host": "127.0.0.1", "port": 8080, "alias": "kimi-k2-instruct"}


def option(*names, env="", value="", values=()):
    return {"names": list(names), "env": env, "value": value, "values": list(values)}


# The flags that every server has had, and those whose shape differs below.
COMMON = [
    option("--host", env="LLAMA_ARG_HOST", value="HOST"),
    option("--port", env="LLAMA_ARG_PORT", value="PORT"),
    option("-m", "--model", env="LLAMA_ARG_MODEL", value="FNAME"),
    option("-a", "--alias", env="LLAMA_ARG_ALIAS", value="STRING"),
    option("-c", "--ctx-size", env="LLAMA_ARG_CTX_SIZE", value="N"),
    option("-np", "--parallel", env="LLAMA_ARG_N_PARALLEL", value="N"),
    option("-ub", "--ubatch-size", env="LLAMA_ARG_UBATCH", value="N"),
    option("-ctk", "--cache-type-k", env="LLAMA_ARG_CACHE_TYPE_K", value="TYPE"),
    option("-ctv", "--cache-type-v", env="LLAMA_ARG_CACHE_TYPE_V", value="TYPE"),
    option("-ngl", "--gpu-layers", "--n-gpu-layers", env="LLAMA_ARG_N_GPU_LAYERS", value="N"),
    option("--metrics", env="LLAMA_ARG_ENDPOINT_METRICS"),
    option("--no-warmup"),
]


def build(*options):
    return {"tag": "b9999", "capabilities": {"options": [*COMMON, *options]}}


def render(on, placement=None, settings=None, plan=None):
    return _environment.render({"placement": {**PLACEMENT, **(placement or {})}, **(plan or {})}, on, {**SETTINGS, **(settings or {})})


@pytest.mark.parametrize("tag", REAL)
def test_a_plain_plan_on_a_real_build(tag):
    assert render(REAL[tag]) == {
        "LLAMA_ARG_ALIAS": "kimi-k2-instruct",
        "LLAMA_ARG_CACHE_RAM": "0",
        "LLAMA_ARG_CACHE_TYPE_K": "f16",
        "LLAMA_ARG_CACHE_TYPE_V": "f16",
        "LLAMA_ARG_CTX_SIZE": "16384",
        "LLAMA_ARG_ENDPOINT_METRICS": "1",
        "LLAMA_ARG_ENDPOINT_SLOTS": "0",
        "LLAMA_ARG_FIT": "off",
        "LLAMA_ARG_FLASH_ATTN": "auto",
        "LLAMA_ARG_HOST": "127.0.0.1",
        "LLAMA_ARG_LOAD_MODE": "auto",
        "LLAMA_ARG_MODEL": "/models/a-00001-of-00003.gguf",
        "LLAMA_ARG_N_GPU_LAYERS": "99",
        "LLAMA_ARG_N_PARALLEL": "1",
        "LLAMA_ARG_OFFLINE": "1",
        "LLAMA_ARG_PORT": "8080",
        "LLAMA_ARG_REPACK": "1",
        "LLAMA_ARG_UBATCH": "512",
        "LLAMA_ARG_UI": "0",
        "LLAMACPP_ARGS": "--warmup",
    }


@pytest.mark.parametrize("tag", REAL)
@pytest.mark.parametrize(
    ("placement", "settings", "expected"),
    [
        pytest.param({"n_cpu_moe": 58}, {}, {"LLAMA_ARG_N_CPU_MOE": "58"}, id="some-experts-on-the-host"),
        pytest.param({"n_cpu_moe": "all"}, {}, {"LLAMA_ARG_CPU_MOE": "1"}, id="all-experts-on-the-host"),
        pytest.param({"override_tensors": r"blk\.1=CPU"}, {}, {"LLAMA_ARG_OVERRIDE_TENSOR": r"blk\.1=CPU"}, id="tensors"),
        pytest.param({"tensor_split": [3, 1.5]}, {}, {"LLAMA_ARG_TENSOR_SPLIT": "3,1.5"}, id="split"),
        pytest.param({"n_gpu_layers": 0}, {}, {"LLAMA_ARG_N_GPU_LAYERS": "0", "LLAMA_ARG_FIT": "off"}, id="processor-only"),
        pytest.param({"load_mode": "none"}, {}, {"LLAMA_ARG_LOAD_MODE": "none"}, id="load-into-memory"),
        pytest.param(
            {"load_mode": "mmap", "repack": False, "warmup": False},
            {},
            {"LLAMA_ARG_REPACK": "0", "LLAMACPP_ARGS": "--no-warmup"},
            id="stream",
        ),
        pytest.param({"cache_type_k": "q8_0", "cache_type_v": "q8_0"}, {}, {"LLAMA_ARG_FLASH_ATTN": "on"}, id="quantised-cache"),
        pytest.param({"flash_attn": "off"}, {}, {"LLAMA_ARG_FLASH_ATTN": "off"}, id="flash-attention-named"),
        pytest.param({"ubatch_size": 4096}, {}, {"LLAMA_ARG_UBATCH": "4096", "LLAMA_ARG_BATCH": "4096"}, id="large-micro-batch"),
        pytest.param(
            {"threads": 12, "numa": "distribute"}, {}, {"LLAMA_ARG_THREADS": "12", "LLAMA_ARG_NUMA": "distribute"}, id="threads-and-numa"
        ),
        pytest.param({"rpc_servers": ["a:1", "b:2"]}, {}, {"LLAMA_ARG_RPC": "a:1,b:2"}, id="rpc"),
        pytest.param({"cache_ram_mib": 2048}, {}, {"LLAMA_ARG_CACHE_RAM": "2048"}, id="prompt-cache"),
        pytest.param({}, {"slots": True, "ui": True}, {"LLAMA_ARG_ENDPOINT_SLOTS": "1", "LLAMA_ARG_UI": "1"}, id="endpoints-on"),
        pytest.param({}, {"devices": ["CUDA0", "CUDA1"]}, {"LLAMA_ARG_DEVICE": "CUDA0,CUDA1"}, id="devices"),
        pytest.param({}, {"devices": "none"}, {"LLAMA_ARG_DEVICE": "none"}, id="no-device"),
    ],
)
def test_wishes_on_real_builds(tag, placement, settings, expected):
    rendered = render(REAL[tag], placement, settings)
    assert {name: rendered.get(name) for name in expected} == expected


@pytest.mark.parametrize("tag", REAL)
@pytest.mark.parametrize(
    ("settings", "name"),
    [
        pytest.param({"metrics": False}, "LLAMA_ARG_ENDPOINT_METRICS", id="metrics"),
        pytest.param({"offline": False}, "LLAMA_ARG_OFFLINE", id="offline"),
    ],
)
def test_switches_that_are_not_wanted_are_left_out(tag, settings, name):
    assert name not in render(REAL[tag], settings=settings)


@pytest.mark.parametrize("tag", REAL)
def test_without_layers_the_engine_fits_by_itself(tag):
    rendered = render(REAL[tag], {"n_gpu_layers": None})
    assert "LLAMA_ARG_FIT" not in rendered
    assert "LLAMA_ARG_N_GPU_LAYERS" not in rendered


@pytest.mark.parametrize("tag", REAL)
def test_only_what_the_build_knows_is_rendered(tag):
    everything = {"n_cpu_moe": 3, "tensor_split": [1, 1], "threads": 2, "numa": "isolate", "rpc_servers": ["a:1"], "warmup": False}
    rendered = render(REAL[tag], everything, {"devices": ["RPC0"]})
    options = REAL[tag]["capabilities"]["options"]
    arguments = rendered.pop("LLAMACPP_ARGS").split(" ")
    assert set(rendered) <= {item["env"] for item in options}
    assert set(arguments) <= {name for item in options for name in item["names"]}
    assert all(isinstance(value, str) and value for value in rendered.values())


@pytest.mark.parametrize("tag", REAL)
def test_no_secret_is_rendered(tag):
    rendered = render(REAL[tag], settings={"api_key": "sk-secret", "api_key_file": "/keys"})
    assert not [name for name in rendered if "KEY" in name or "TOKEN" in name]
    assert "secret" not in str(rendered)


def test_the_alias_of_the_plan_is_used_where_the_settings_have_none():
    assert render(REAL["b11669"], settings={"alias": ""}, plan={"alias": "k2"})["LLAMA_ARG_ALIAS"] == "k2"


@pytest.mark.parametrize(
    ("options", "placement", "expected", "absent"),
    [
        pytest.param([], {}, {}, ["LLAMA_ARG_LOAD_MODE", "LLAMA_ARG_FIT", "LLAMA_ARG_CACHE_RAM"], id="nothing-of-it-and-nothing-needed"),
        pytest.param(
            [option("--load-mode", env="LM", value="MODE", values=["none", "mmap"])],
            {"load_mode": "auto"},
            {"LM": "mmap"},
            [],
            id="load-mode-without-auto",
        ),
        pytest.param(
            [option("--mmap", "--no-mmap", env="MMAP"), option("--load-mode", env="LM", value="MODE")],
            {"load_mode": "none"},
            {"LM": "none"},
            ["MMAP"],
            id="load-mode-beside-the-old-flags",
        ),
        pytest.param([option("--mmap", "--no-mmap", env="MMAP")], {"load_mode": "none"}, {"MMAP": "0"}, [], id="no-mmap-in-a-pair"),
        pytest.param([option("--mmap", "--no-mmap", env="MMAP")], {"load_mode": "mmap"}, {"MMAP": "1"}, [], id="mmap-in-a-pair"),
        pytest.param([option("--no-mmap", env="NO_MMAP")], {"load_mode": "none"}, {"NO_MMAP": "1"}, [], id="no-mmap-alone"),
        pytest.param([option("--no-mmap", env="NO_MMAP")], {"load_mode": "mmap"}, {}, ["NO_MMAP"], id="mmap-is-the-default"),
        pytest.param([option("--mlock", env="MLOCK")], {"load_mode": "mlock"}, {"MLOCK": "1"}, [], id="mlock-alone"),
        pytest.param(
            [option("-fa", "--flash-attn", env="FA")], {"cache_type_v": "q8_0"}, {"FA": "1"}, [], id="flash-attention-as-a-switch"
        ),
        pytest.param([option("-fa", "--flash-attn", env="FA")], {}, {}, ["FA"], id="flash-attention-left-alone"),
        pytest.param([option("-nr", "--no-repack", env="NR")], {"repack": False}, {"NR": "1"}, [], id="no-repack-alone"),
        pytest.param([option("--no-slots", env="NS")], {}, {"NS": "1"}, [], id="no-slots-alone"),
        pytest.param([option("--slots", env="SLOTS")], {}, {}, ["SLOTS"], id="slots-that-are-off-unless-asked"),
        pytest.param([option("--no-webui", env="NW")], {}, {"NW": "1"}, [], id="web-interface-by-its-old-name"),
        pytest.param(
            [option("--repack", "--no-repack")],
            {"repack": False, "warmup": False},
            {"LLAMACPP_ARGS": "--no-repack --no-warmup"},
            [],
            id="arguments",
        ),
    ],
)
def test_older_shapes(options, placement, expected, absent):
    rendered = render(build(*options), placement)
    assert {name: rendered.get(name) for name in expected} == expected
    assert not set(absent) & set(rendered)


@pytest.mark.parametrize(
    ("options", "placement", "settings", "words"),
    [
        pytest.param([], {"n_cpu_moe": 3}, {}, "--n-cpu-moe", id="experts"),
        pytest.param([], {"n_cpu_moe": "all"}, {}, "--cpu-moe", id="all-experts"),
        pytest.param([], {"repack": False}, {}, "--no-repack", id="no-repack"),
        pytest.param([], {"load_mode": "none"}, {}, "--no-mmap", id="no-mmap"),
        pytest.param([], {"load_mode": "dio"}, {}, "--direct-io", id="direct-io"),
        pytest.param([], {"rpc_servers": ["a:1"]}, {}, "--rpc", id="rpc"),
        pytest.param([], {}, {"slots": True}, "--slots", id="slots"),
        pytest.param(
            [option("--load-mode", env="LM", value="MODE", values=["none", "mmap"])],
            {"load_mode": "dio"},
            {},
            "not dio",
            id="unknown-value",
        ),
        pytest.param([option("--numa", env="N")], {"numa": "isolate"}, {}, "takes no value", id="value-for-a-switch"),
        pytest.param([option("--numa", value="TYPE")], {"numa": "a b"}, {}, "blank", id="blank-in-an-argument"),
        pytest.param([], {}, {"alias": "a\nLD_PRELOAD=x"}, "no flag can carry", id="line-break"),
        pytest.param([], {}, {"port": None}, "port", id="no-port"),
        pytest.param([], {"ctx_size": None}, {}, "context size", id="no-context"),
    ],
)
def test_what_cannot_be_expressed_is_refused(options, placement, settings, words):
    with pytest.raises(_environment.ExpressionError, match=words):
        render(build(*options), placement, settings)


def test_a_build_without_capabilities_is_refused():
    with pytest.raises(_environment.ExpressionError, match="decided when the engine is installed"):
        render({})
