# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Upstream's binaries: their names, what they need, and what is told where they do not suit a host."""

from __future__ import annotations

import re

import pytest

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _engine

HOST = {
    "architecture": "x86_64",
    "glibc": "2.39",
    "platform": "ubuntu-24.04",
    "os": {"family": "debian"},
    "cpu": {"cores": 8, "flags": []},
    "memory": {"total": 64 * 1024**3},
    "devices": [],
    "engines": [],
}
BOOKWORM = {"glibc": "2.36", "platform": "debian-12"}
ARM = {"architecture": "aarch64"}
CPU = "llama-b11549-bin-ubuntu-x64.tar.gz"
CUDA = "llama-b11549-bin-ubuntu-cuda-12.8-x64.tar.gz"


KINDS = ("x64", "arm64", "vulkan-x64", "cuda-12.8-x64", "cuda-13.4-x64", "cuda-13.4-arm64")
SUMS = {f"{start}llama-b11549-bin-ubuntu-{kind}.tar.gz": "ab" * 32 for kind in KINDS for start in ("", "cudart-")}


def gpu(capability="8.0", driver="580.95.05"):
    return {"devices": [{"kind": "cuda", "compute_capability": capability, "driver_version": driver}]}


def describe(hardware=None, backend="cpu", tag="b11549", sha256=None, **release):
    wish = {"source": "release", "tag": tag, "backend": backend, "force": ["rpc", "floor"]}
    release = {"url": "https://example.com/releases", "sha256": SUMS if sha256 is None else sha256, **release}
    return _engine.describe({**HOST, **(hardware or {})}, {**wish, "release": release})


@pytest.mark.parametrize(
    ("backend", "hardware", "cuda", "names"),
    [
        pytest.param("cpu", {}, "", [CPU], id="cpu"),
        pytest.param("rpc", {}, "", [CPU], id="rpc-is-in-all"),
        pytest.param("cpu", ARM, "", ["llama-b11549-bin-ubuntu-arm64.tar.gz"], id="cpu-arm"),
        pytest.param("vulkan", {}, "", ["llama-b11549-bin-ubuntu-vulkan-x64.tar.gz"], id="vulkan"),
        pytest.param("cuda", gpu(), "", [CUDA, f"cudart-{CUDA}"], id="cuda-with-its-runtime"),
        pytest.param("cuda", gpu(), "13.4", [name.replace("12.8", "13.4") for name in (CUDA, f"cudart-{CUDA}")], id="cuda-named"),
        pytest.param(
            "cuda",
            {**ARM, **gpu("9.0")},
            "",
            ["llama-b11549-bin-ubuntu-cuda-13.4-arm64.tar.gz", "cudart-llama-b11549-bin-ubuntu-cuda-13.4-arm64.tar.gz"],
            id="cuda-arm",
        ),
    ],
)
def test_files(backend, hardware, cuda, names):
    described = describe(hardware, backend, cuda=cuda)
    assert list(described["inputs"]["source"]["files"]) == names
    assert described["problems"] == []


@pytest.mark.parametrize(
    ("backend", "hardware", "label"),
    [
        pytest.param("cpu", {}, "cpu-x86_64", id="cpu"),
        pytest.param("cuda", gpu(), "cuda-12.8", id="cuda"),
    ],
)
def test_build_id(backend, hardware, label):
    assert re.fullmatch(f"b11549-{label}-[0-9a-f]{{8}}", describe(hardware, backend)["build_id"])


def test_build_id_is_the_content_on_whatever_host_and_from_wherever():
    here = describe()
    assert describe({"platform": "debian-13", "glibc": "2.41"}, url="http://mirror.example/llama")["build_id"] == here["build_id"]
    assert describe(sha256={CPU: "cd" * 32})["build_id"] != here["build_id"]


@pytest.mark.parametrize(
    ("backend", "hardware", "glibc"),
    [
        pytest.param("cpu", BOOKWORM, "2.35", id="cpu-runs-on-older-systems"),
        pytest.param("cuda", gpu(), "2.39", id="cuda"),
        pytest.param("cpu", ARM, "2.39", id="arm"),
    ],
)
def test_glibc_that_the_artifact_says_it_needs(backend, hardware, glibc):
    described = describe(hardware, backend)
    assert (described["glibc"], described["problems"]) == (glibc, [])


@pytest.mark.parametrize(
    ("backend", "hardware", "changes", "words"),
    [
        pytest.param("cuda", {**gpu(), **BOOKWORM}, {}, "needs glibc 2.39, but debian-12 has 2.36", id="glibc-too-old"),
        pytest.param("cpu", {"platform": "el-8", "glibc": "2.28"}, {}, "needs glibc 2.35, but el-8 has 2.28", id="glibc-too-old-for-cpu"),
        pytest.param("cuda", {**gpu(), "glibc": ""}, {}, "none that is known", id="glibc-unknown"),
        pytest.param("cuda", gpu("3.5"), {}, "compute capability 3.5", id="architecture-not-in-the-build"),
        pytest.param("cuda", gpu("7.0"), {"cuda": "13.4"}, "compute capability 7.0", id="volta-with-cuda-13"),
        pytest.param("cuda", {**ARM, **gpu("9.0")}, {"cuda": "12.8"}, "binaries for 13.4 only", id="no-such-build-for-arm"),
        pytest.param("cuda", gpu(), {"cuda": "11.8"}, "binaries for 12.8 and 13.4 only", id="no-such-cuda"),
        pytest.param("cuda", gpu("8.0", "550.163.01"), {}, "driver 570 or later", id="driver-that-cannot-compile-the-code"),
        pytest.param("cuda", gpu("8.6", "510.47"), {}, "driver 525.60.13 or later", id="driver-too-old-for-cuda-12"),
        pytest.param("cuda", gpu(), {"tag": "b10950"}, "b11063", id="before-there-were-cuda-binaries"),
        pytest.param("cpu", {}, {"sha256": {}}, f"no checksum of {CPU}", id="no-checksum"),
        pytest.param("cuda", gpu(), {"sha256": {CUDA: "ab" * 32}}, f"no checksum of cudart-{CUDA}", id="no-checksum-of-the-runtime"),
        pytest.param("cpu", {}, {"url": ""}, "llama_engine_release.url", id="no-folder"),
        pytest.param("cpu", {}, {"tag": "v1.0.0"}, "llama_engine_tag", id="tag"),
    ],
)
def test_problems(backend, hardware, changes, words):
    problems = describe(hardware, backend, **changes)["problems"]
    assert len(problems) == 1, problems
    assert words in problems[0]


def test_a_device_with_code_of_its_own_is_served_by_older_drivers():
    assert describe(gpu("8.6", "550.163.01"), "cuda")["problems"] == []


def test_what_cannot_run_is_told_instead_of_what_is_only_missing():
    problems = describe({**gpu(), **BOOKWORM}, "cuda", sha256={})["problems"]
    assert len(problems) == 1
    assert "glibc" in problems[0]
