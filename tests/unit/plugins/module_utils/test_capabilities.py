# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What llama-server prints about itself, read from real builds."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.onprem.llamacpp.plugins.module_utils import _capabilities

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "capabilities"
BUILDS = sorted((path.name.split(".")[0] for path in FIXTURES.glob("*.help.txt")), key=lambda build: int(build[1:]))
MIB = 1024 * 1024


def options(build: str) -> dict:
    parsed = _capabilities.parse_help((FIXTURES / f"{build}.help.txt").read_text())
    return {name: option for option in parsed for name in option["names"]}


def test_real_builds_of_every_age_are_read():
    assert BUILDS[0] == "b8672"
    assert {"b11549", "b11669"} <= set(BUILDS)
    assert len(BUILDS) >= 8


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize(
    ("name", "env", "value", "values"),
    [
        pytest.param("--port", "LLAMA_ARG_PORT", "PORT", [], id="value"),
        pytest.param("--ctx-size", "LLAMA_ARG_CTX_SIZE", "N", [], id="short-and-long-name"),
        pytest.param("-c", "LLAMA_ARG_CTX_SIZE", "N", [], id="found-by-short-name"),
        pytest.param("--metrics", "LLAMA_ARG_ENDPOINT_METRICS", "", [], id="switch"),
        pytest.param("--no-slots", "LLAMA_ARG_ENDPOINT_SLOTS", "", [], id="pair-found-by-negative-name"),
        pytest.param("--no-warmup", "", "", [], id="pair-without-variable"),
        pytest.param("--flash-attn", "LLAMA_ARG_FLASH_ATTN", "[on|off|auto]", ["on", "off", "auto"], id="choices-in-brackets"),
        pytest.param("--numa", "LLAMA_ARG_NUMA", "TYPE", ["distribute", "isolate", "numactl"], id="choices-as-list"),
        pytest.param(
            "--cache-type-k",
            "LLAMA_ARG_CACHE_TYPE_K",
            "TYPE",
            ["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"],
            id="allowed-values",
        ),
        pytest.param(
            "--override-tensor",
            "LLAMA_ARG_OVERRIDE_TENSOR",
            "<tensor name pattern>=<buffer type>,...",
            [],
            id="head-longer-than-its-column",
        ),
        pytest.param("--device", "LLAMA_ARG_DEVICE", "<dev1,dev2,..>", [], id="placeholder-is-no-choice"),
        pytest.param("--control-vector-layer-range", "", "START END", [], id="two-values"),
        pytest.param("--api-key", "LLAMA_API_KEY", "KEY", [], id="variable-of-another-kind"),
    ],
)
def test_options_of_every_real_build(build, name, env, value, values):
    option = options(build)[name]
    assert (option["env"], option["value"], option["values"]) == (env, value, values)


MODES = ["none", "mmap", "mlock", "mmap+mlock", "dio"]


@pytest.mark.parametrize(
    ("name", "since", "env", "value", "values"),
    [
        pytest.param("--load-mode", "b8672", None, None, None, id="no-load-mode"),
        pytest.param("--load-mode", "b10229", "LLAMA_ARG_LOAD_MODE", "MODE", MODES, id="load-mode-as-wrapped-list"),
        pytest.param("--load-mode", "b10434", "LLAMA_ARG_LOAD_MODE", "MODE", ["auto", *MODES], id="load-mode-chosen-by-the-engine"),
        pytest.param("--no-mmap", "b8672", "LLAMA_ARG_MMAP", "", [], id="memory-mapping"),
        pytest.param("--no-mmap", "b11063", None, None, None, id="memory-mapping-removed"),
        pytest.param("--mlock", "b11063", None, None, None, id="mlock-removed"),
        pytest.param("--direct-io", "b8672", "LLAMA_ARG_DIO", "", [], id="names-alone-on-a-line"),
        pytest.param("--no-ui", "b8672", None, None, None, id="no-interface-by-its-new-name"),
        pytest.param("--no-ui", "b9294", "LLAMA_ARG_UI", "", [], id="interface"),
        pytest.param("--no-webui", "b8672", "LLAMA_ARG_WEBUI", "", [], id="interface-by-its-old-name"),
        pytest.param("--no-webui", "b10068", "LLAMA_ARG_UI", "", [], id="old-name-in-the-new-pair"),
        pytest.param("--log-verbosity", "b8672", "LLAMA_LOG_VERBOSITY", "N", list("01234"), id="log-level"),
        pytest.param("--log-verbosity", "b9713", "LLAMA_ARG_LOG_VERBOSITY", "N", list("012345"), id="log-level-with-new-variable"),
        pytest.param("--offline", "b8672", "LLAMA_OFFLINE", "", [], id="offline"),
        pytest.param("--offline", "b9713", "LLAMA_ARG_OFFLINE", "", [], id="offline-with-new-variable"),
        pytest.param("--api-key-file", "b8672", "", "FNAME", [], id="key-file"),
        pytest.param("--api-key-file", "b9713", "LLAMA_ARG_API_KEY_FILE", "FNAME", [], id="key-file-with-comments"),
        pytest.param("--cors-origins", "b9713", None, None, None, id="no-origins"),
        pytest.param("--cors-origins", "b10068", "LLAMA_ARG_CORS_ORIGINS", "ORIGINS", [], id="origins"),
        pytest.param("--split-mode", "b8672", "LLAMA_ARG_SPLIT_MODE", "{none,layer,row}", ["none", "layer", "row"], id="choices-in-braces"),
        pytest.param(
            "--split-mode", "b9294", "LLAMA_ARG_SPLIT_MODE", "{none,layer,row,tensor}", ["none", "layer", "row", "tensor"], id="one-more"
        ),
    ],
)
def test_options_as_they_came_and_went(name, since, env, value, values):
    option = options(since).get(name)
    assert (option and (option["env"], option["value"], option["values"])) == (None if env is None else (env, value, values))


@pytest.mark.parametrize("build", BUILDS)
def test_every_option_of_a_real_build_is_named_once_and_well(build):
    parsed = _capabilities.parse_help((FIXTURES / f"{build}.help.txt").read_text())
    names = [name for option in parsed for name in option["names"]]
    assert len(parsed) > 200
    assert len(names) == len(set(names))
    assert all(option["names"] and " " not in "".join(option["names"]) for option in parsed)


@pytest.mark.parametrize("build", BUILDS[1:])
def test_options_that_are_kept_to_say_that_they_were_removed_are_not_offered(build):
    assert "--draft-max" not in options(build)
    assert "the argument has been removed" in (FIXTURES / f"{build}.help.txt").read_text()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            "-fa,   --flash-attn                     enable Flash Attention (default: disabled)\n"
            "                                        (env: LLAMA_ARG_FLASH_ATTN)\n",
            [{"names": ["-fa", "--flash-attn"], "env": "LLAMA_ARG_FLASH_ATTN", "value": "", "values": []}],
            id="bare-switch",
        ),
        pytest.param(
            "ggml_cuda_init: found 1 CUDA devices:\n----- common params -----\n\n-t,    --threads N                      threads\n",
            [{"names": ["-t", "--threads"], "env": "", "value": "N", "values": []}],
            id="noise-before",
        ),
        pytest.param(
            "--draft N                               the argument has been\n                                        removed. use another\n",
            [],
            id="removed-over-two-lines",
        ),
        pytest.param(
            "-ctk,  --cache-type-k TYPE              KV cache data type for K\n"
            "                                        allowed values: f32, f16,\n"
            "                                        f8_e4m3\n"
            "                                        (default: f16)\n",
            [{"names": ["-ctk", "--cache-type-k"], "env": "", "value": "TYPE", "values": ["f32", "f16", "f8_e4m3"]}],
            id="allowed-values-over-two-lines",
        ),
        pytest.param("", [], id="nothing"),
    ],
)
def test_help_of_other_shapes(text, expected):
    assert _capabilities.parse_help(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            "version: 9668 (32120c10e)\nbuilt with GNU 13.3.0 for Linux x86_64\n",
            {"number": 9668, "commit": "32120c10e", "version": "", "compiler": "GNU 13.3.0 for Linux x86_64"},
            id="number-only",
        ),
        pytest.param(
            "version: 0.3.0-dev (build 10742, commit be789c344)\nbuilt with Clang 20.1.8 for Windows x86_64\n",
            {"number": 10742, "commit": "be789c344", "version": "0.3.0-dev", "compiler": "Clang 20.1.8 for Windows x86_64"},
            id="semantic-version",
        ),
        pytest.param(
            "ggml_cuda_init: failed to initialize CUDA: no driver\nversion: 0.6.0-dev (build 11549, commit unknown)\n",
            {"number": 11549, "commit": "unknown", "version": "0.6.0-dev", "compiler": ""},
            id="driver-message-before",
        ),
        pytest.param("llama-server: not found", None, id="no-version"),
        pytest.param("", None, id="nothing"),
    ],
)
def test_version(text, expected):
    assert _capabilities.parse_version(text) == expected


@pytest.mark.parametrize(
    ("build", "number", "version", "commit"),
    [
        pytest.param("b8672", 0, "", "unknown", id="number-only-and-not-passed"),
        pytest.param("b10068", 1, "", "571d0d5", id="number-only-from-a-shallow-clone"),
        pytest.param("b10434", 1, "0.1.0-dev", "7e4c0a9", id="semantic-from-a-shallow-clone"),
        pytest.param("b11063", 0, "0.4.1-dev", "unknown", id="semantic-and-not-passed"),
        pytest.param("b11549", 11549, "0.6.0-dev", "unknown", id="own-build"),
        pytest.param("b11669", 11669, "0.7.0", "Debian", id="packaged-release"),
    ],
)
def test_version_of_real_builds(build, number, version, commit):
    found = _capabilities.parse_version((FIXTURES / f"{build}.version.txt").read_text())
    assert (found["number"], found["version"], found["commit"]) == (number, version, commit)
    assert found["compiler"].startswith("GNU ")


@pytest.mark.parametrize("build", BUILDS)
def test_devices_of_real_builds(build):
    devices = _capabilities.parse_devices((FIXTURES / f"{build}.list-devices.txt").read_text())
    assert [device["engine_name"] for device in devices] == (["RPC0"] if build == "b11549" else [])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("Available devices:\n  (none)\n", [], id="none"),
        pytest.param(
            "Available devices:\n  CUDA0: NVIDIA GeForce RTX 4090 (24077 MiB, 23680 MiB free)\n"
            "  Vulkan0: llvmpipe (LLVM 19, 256 bits) (24000 MiB, 23000 MiB free)\n",
            [
                {"engine_name": "CUDA0", "name": "NVIDIA GeForce RTX 4090", "total": 24077 * MIB, "free": 23680 * MIB},
                {"engine_name": "Vulkan0", "name": "llvmpipe (LLVM 19, 256 bits)", "total": 24000 * MIB, "free": 23000 * MIB},
            ],
            id="two-with-brackets-in-a-name",
        ),
    ],
)
def test_devices(text, expected):
    assert _capabilities.parse_devices(text) == expected


def test_missing_libraries():
    text = (
        "bin/llama-server: error while loading shared libraries: libgomp.so.1: cannot open shared object file: No such file or directory\n"
    )
    assert _capabilities.missing_libraries(text) == ["libgomp.so.1"]
