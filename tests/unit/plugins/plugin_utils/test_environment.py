# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A plan as the environment of one build, on real builds and on the shapes of flags that older ones had."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.onprem.llamacpp.plugins.module_utils import _capabilities
from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _environment, _intents

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "capabilities"
ALL = {
    build: {
        "tag": build,
        "number": int(build[1:]),
        "capabilities": {"options": _capabilities.parse_help((FIXTURES / f"{build}.help.txt").read_text())},
    }
    for build in sorted((path.name.split(".")[0] for path in FIXTURES.glob("*.help.txt")), key=lambda build: int(build[1:]))
}
# Builds that may serve without force.
REAL = {build: ALL[build] for build in ("b11549", "b11669")}
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
        "LLAMA_ARG_JINJA": "1",
        "LLAMA_ARG_LOAD_MODE": "auto",
        "LLAMA_ARG_LOG_VERBOSITY": "4",
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
        pytest.param({"rpc_servers": ["a:1", "b:2"]}, {"force": ["rpc"]}, {"LLAMA_ARG_RPC": "a:1,b:2"}, id="rpc"),
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


@pytest.mark.parametrize("tag", ALL)
@pytest.mark.parametrize("mode", ["auto", "none", "mmap", "mlock", "mmap+mlock", "dio"])
def test_only_what_the_build_knows_is_rendered(tag, mode):
    everything = {"n_cpu_moe": 3, "tensor_split": [1, 1], "threads": 2, "numa": "isolate", "warmup": False, "load_mode": mode}
    rendered = render(ALL[tag], everything, {"devices": ["CUDA0"], "reasoning": "off"})
    options = ALL[tag]["capabilities"]["options"]
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
        pytest.param(
            [option("--mlock", env="MLOCK"), option("--no-mmap", env="NO_MMAP")],
            {"load_mode": "mlock"},
            {"MLOCK": "1", "NO_MMAP": "1"},
            [],
            id="mlock-alone",
        ),
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


OLD, BOTH, NEW = ["b8672", "b9294", "b9713", "b10068", "b10092"], ["b10229", "b10434", "b10809"], ["b11063", "b11549", "b11669"]


def test_the_ages_are_all_builds():
    assert [*OLD, *BOTH, *NEW] == list(ALL)


@pytest.mark.parametrize(
    ("mode", "old", "new"),
    [
        pytest.param("auto", {"MMAP": "1", "MLOCK": None, "DIO": None}, {"b10229": "mmap", "b10434": "auto", "b11669": "auto"}, id="auto"),
        pytest.param("mmap", {"MMAP": "1", "MLOCK": None, "DIO": None}, {"b10229": "mmap", "b11669": "mmap"}, id="mmap"),
        pytest.param("none", {"MMAP": "0", "MLOCK": None, "DIO": None}, {"b10229": "none", "b11669": "none"}, id="none"),
        pytest.param("mlock", {"MMAP": "0", "MLOCK": "1", "DIO": None}, {"b10229": "mlock", "b11669": "mlock"}, id="mlock"),
        pytest.param("mmap+mlock", {"MMAP": "1", "MLOCK": "1", "DIO": None}, {"b10229": "mmap+mlock"}, id="both"),
        pytest.param("dio", {"MMAP": None, "MLOCK": None, "DIO": "1"}, {"b10229": "dio", "b11669": "dio"}, id="direct-io"),
    ],
)
def test_load_modes_before_and_after_they_had_a_name(mode, old, new):
    for tag in OLD:
        rendered = render(ALL[tag], {"load_mode": mode})
        assert {name: rendered.get(f"LLAMA_ARG_{name}") for name in (*old, "LOAD_MODE")} == {**old, "LOAD_MODE": None}
    for tag in (*BOTH, *NEW):
        rendered = render(ALL[tag], {"load_mode": mode})
        assert not {"LLAMA_ARG_MMAP", "LLAMA_ARG_MLOCK", "LLAMA_ARG_DIO"} & set(rendered)
        assert rendered["LLAMA_ARG_LOAD_MODE"] == new.get(tag, rendered["LLAMA_ARG_LOAD_MODE"])


@pytest.mark.parametrize("tag", ALL)
def test_every_build_is_told_what_its_defaults_do_not_promise(tag):
    rendered = render(ALL[tag], {"n_cpu_moe": 58, "cache_type_k": "q8_0", "cache_type_v": "q8_0", "ctx_checkpoints": 0})
    expected = {
        "HOST": "127.0.0.1",
        "PORT": "8080",
        "FIT": "off",
        "FLASH_ATTN": "on",
        "N_CPU_MOE": "58",
        "CACHE_RAM": "0",
        "CTX_CHECKPOINTS": "0",
        "ENDPOINT_SLOTS": "0",
        "ENDPOINT_METRICS": "1",
        "JINJA": "1",
    }
    assert {name: rendered.get(f"LLAMA_ARG_{name}") for name in expected} == expected
    # These have had other variables, but every build is told.
    assert rendered.get("LLAMA_ARG_UI", rendered.get("LLAMA_ARG_WEBUI")) == "0"
    assert rendered.get("LLAMA_ARG_OFFLINE", rendered.get("LLAMA_OFFLINE")) == "1"
    assert rendered.get("LLAMA_ARG_LOG_VERBOSITY", rendered.get("LLAMA_LOG_VERBOSITY")) == "4"


@pytest.mark.parametrize("tag", ALL)
@pytest.mark.parametrize("layers", ["99", "all", "auto"])
def test_layers_as_number_or_word(tag, layers):
    assert render(ALL[tag], {"n_gpu_layers": layers})["LLAMA_ARG_N_GPU_LAYERS"] == layers


@pytest.mark.parametrize(
    ("tag", "placement", "settings", "words"),
    [
        pytest.param(
            "b9713", {}, {"cors_origins": "localhost"}, "b9713 cannot be told .*b10068 is the first build known to have it", id="cors"
        ),
        pytest.param("b10229", {"rpc_servers": ["a:1"]}, {}, "b10229 cannot be told .*GGML_RPC=ON", id="rpc"),
        pytest.param("b10434", {"load_mode": "fast"}, {}, "b10434 knows auto, none, mmap", id="unknown-mode"),
        pytest.param(
            "b8672",
            {"load_mode": "fast"},
            {},
            "b8672 cannot be told 'load mode fast'.*b10108 is the first",
            id="unknown-mode-on-an-old-build",
        ),
        pytest.param("b11669", {"cache_type_k": "f8_e4m3"}, {}, "b11669 knows f32, .*not f8_e4m3", id="cache-type-of-a-newer-build"),
    ],
)
def test_a_refusal_names_wish_build_and_the_first_that_has_it(tag, placement, settings, words):
    with pytest.raises(_environment.ExpressionError, match=words):
        render(ALL[tag], placement, settings)


@pytest.mark.parametrize(
    ("number", "force", "words"),
    [
        pytest.param(11864, [], "b11864 is refused .advisory rpc-floor", id="below"),
        pytest.param(11864, ["floor"], "rpc-floor", id="the-other-forced"),
        pytest.param(0, [], "build 0: it was built without its number", id="unnumbered"),
        pytest.param(11864, ["rpc"], "", id="forced"),
        pytest.param(11865, [], "", id="at-the-floor"),
    ],
)
def test_rpc_below_its_floor_is_refused_by_the_number_of_the_installed_build(number, force, words):
    """Of a package nobody knows it before, and binaries with RPC may be called by another backend."""
    engine = {**build(option("--rpc", env="LLAMA_ARG_RPC", value="SERVERS")), "number": number}
    if words:
        with pytest.raises(_environment.ExpressionError, match=words):
            render(engine, {"rpc_servers": ["a:1"]}, {"force": force})
    else:
        assert render(engine, {"rpc_servers": ["a:1"]}, {"force": force})["LLAMA_ARG_RPC"] == "a:1"
    assert "LLAMA_ARG_RPC" not in render(engine, {}, {"force": force})


@pytest.mark.parametrize("name", _intents.ALL)
def test_intents_are_known_since_the_build_that_is_told(name):
    """A wrong number here would send somebody to a build that cannot do it either."""
    intent = _intents.ALL[name]
    flags = {*intent.flags, *intent.opposite}
    having = [tag for tag, build in ALL.items() if flags & {known for item in build["capabilities"]["options"] for known in item["names"]}]
    if name == "RPC_SERVERS":
        assert having
        return
    if name in ("MMAP", "MLOCK", "DIRECT_IO"):
        assert having == [*OLD, *BOTH]
        return
    assert having == [tag for tag in ALL if int(tag[1:]) >= intent.since]


@pytest.mark.parametrize(
    ("build_", "settings", "words"),
    [
        pytest.param(ALL["b11669"], {}, [], id="nothing-to-say-of-a-new-build"),
        pytest.param(ALL["b9294"], {}, ["every line of the api-keys file"], id="comments-are-keys"),
        pytest.param(build(), {}, ["'no web interface'", "'offline'", "'log level 4'"], id="harmless"),
        pytest.param(build(), {"ui": True, "offline": False}, ["'web interface'", "'log level 4'"], id="only-what-was-wished"),
    ],
)
def test_what_is_left_out_is_told(build_, settings, words):
    settings = {**SETTINGS, **settings}
    told = [note for note in _environment.notes({"placement": PLACEMENT}, build_, settings) if "--" not in note]
    for word in words:
        assert any(word in note for note in told), told
    assert bool(told) is bool(words)


def test_a_build_without_capabilities_is_refused():
    with pytest.raises(_environment.ExpressionError, match="decided when the engine is installed"):
        render({})


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        pytest.param({"confined": True, "devices": [{"engine_name": "Vulkan1"}]}, "Vulkan1", id="its own"),
        pytest.param({"confined": True, "devices": []}, "none", id="others have all of them"),
        pytest.param({"confined": False, "devices": [{"engine_name": "Vulkan1"}]}, None, id="nobody else has any"),
    ],
)
def test_a_server_whose_host_shares_out_its_devices_is_told_its_own(plan, told):
    found = _environment.render({"placement": PLACEMENT, **plan}, REAL["b11549"], SETTINGS)
    assert found.get("LLAMA_ARG_DEVICE") == told
