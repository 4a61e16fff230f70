# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which engine a host needs and who builds it."""

from __future__ import annotations

import copy
import re

import pytest

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _engine, _engine_options

GIB = 1024**3

HARDWARE = {
    "architecture": "x86_64",
    "glibc": "2.36",
    "platform": "debian-12",
    "os": {"family": "debian"},
    "cpu": {"cores": 8, "threads": 16, "flags": ["avx2", "avx", "fma"]},
    "memory": {"total": 64 * GIB},
    "devices": [],
    "engines": [],
}
WISH = {
    "tag": "b11549",
    "commit": "",
    "backend": "cpu",
    "source": "git",
    "git_url": "https://github.com/ggml-org/llama.cpp",
    "archive": {},
    "cuda_architectures": [],
    "cmake_options": [],
    "cpu": "native",
    "platform": "",
    "force": [],
    "jobs": 0,
}
ARCHIVE = {"url": "https://example.com/llama.tar.gz", "sha256": "ab" * 32, "folder": "llama.cpp"}
GPU = {"kind": "cuda", "compute_capability": "9.0"}
FORKY = {"platform": "debian-forky"}
VERSIONS = {
    "llama.cpp-tools": "1:0.7.0+dfsg-2",
    "llama.cpp-tools-extra": "1:0.7.0+dfsg-2",
    "libggml0": "0.27.0-1",
    "libllama0": "1:0.7.0+dfsg-2",
}


def describe(wish=None, hardware=None, **arguments):
    return _engine.describe({**copy.deepcopy(HARDWARE), **(hardware or {})}, {**WISH, **(wish or {})}, **arguments)


def test_build_id_is_tag_backend_architecture_and_digest():
    assert re.fullmatch(r"b11549-cpu-x86_64-[0-9a-f]{8}", describe()["build_id"])


def test_build_id_of_these_inputs_is_stable():
    """A changed id rebuilds every fleet: change it knowingly."""
    assert describe()["build_id"] == "b11549-cpu-x86_64-9daff427"


@pytest.mark.parametrize(
    ("wish", "hardware"),
    [
        pytest.param({"jobs": 4}, {}, id="jobs"),
        pytest.param({"force": ["rpc"]}, {}, id="force"),
        pytest.param({}, {"memory": {"total": 32 * GIB}}, id="memory"),
        pytest.param({}, {"glibc": "2.36+security"}, id="glibc-of-the-platform"),
        pytest.param({"platform": "debian-12"}, {}, id="own-platform-named"),
        pytest.param({}, {"cpu": {"cores": 4, "flags": ["avx", "avx2", "fma"]}}, id="cores-and-order-of-flags"),
        pytest.param({"platform": "debian-12"}, {"platform": "debian-13", "glibc": "2.41"}, id="newer-host-same-wanted-platform"),
    ],
)
def test_build_id_does_not_hang_on(wish, hardware):
    assert describe(wish, hardware)["build_id"] == describe()["build_id"]


@pytest.mark.parametrize(
    ("wish", "hardware"),
    [
        pytest.param({"tag": "b11550"}, {}, id="tag"),
        pytest.param({"backend": "vulkan"}, {}, id="backend"),
        pytest.param({"git_url": "https://example.com/fork"}, {}, id="repository"),
        pytest.param({"commit": "0123456"}, {}, id="commit"),
        pytest.param({"cmake_options": ["-DGGML_LTO=ON"]}, {}, id="cmake-options"),
        pytest.param({"cpu": "baseline"}, {}, id="processors"),
        pytest.param({"platform": "debian-11"}, {}, id="wanted-platform"),
        pytest.param({}, {"platform": "debian-13"}, id="own-platform"),
        pytest.param({}, {"cpu": {"cores": 8, "flags": ["avx"]}}, id="flags-of-a-native-build"),
        pytest.param({}, {"architecture": "aarch64"}, id="architecture"),
        pytest.param({"source": "archive", "archive": ARCHIVE}, {}, id="source"),
    ],
)
def test_build_id_hangs_on(wish, hardware):
    assert describe(wish, hardware)["build_id"] != describe()["build_id"]


def test_flags_do_not_part_hosts_when_the_build_is_not_native():
    other = {"cpu": {"cores": 8, "flags": ["avx"]}}
    assert describe({"cpu": "baseline"}, other)["build_id"] == describe({"cpu": "baseline"})["build_id"]


def test_an_archive_is_its_content_wherever_it_comes_from():
    here = describe({"source": "archive", "archive": {**ARCHIVE, "url": "/srv/llama.tar.gz", "sha256": "AB" * 32, "folder": "/llama.cpp/"}})
    assert here["build_id"] == describe({"source": "archive", "archive": ARCHIVE})["build_id"]


@pytest.mark.parametrize(
    ("backend", "devices", "expected"),
    [
        pytest.param("auto", [], "cpu", id="auto-without-device"),
        pytest.param("auto", [GPU], "cuda", id="auto-with-nvidia"),
        pytest.param("auto", [{**GPU, "driver": False}], "cpu", id="auto-without-a-driver"),
        pytest.param("auto", [{"kind": "vulkan"}], "cpu", id="auto-with-other-device"),
        pytest.param("cpu", [GPU], "cpu", id="named"),
    ],
)
def test_backend(backend, devices, expected):
    assert describe({"backend": backend}, {"devices": devices})["backend"] == expected


@pytest.mark.parametrize(
    ("wanted", "devices", "architectures", "label"),
    [
        pytest.param([], [GPU], ["90-real"], "90", id="own-device"),
        pytest.param([], [GPU, {"kind": "cuda", "compute_capability": "8.0"}, GPU], ["80-real", "90-real"], "80.90", id="two-kinds"),
        pytest.param([120, "75-virtual"], [GPU], ["120", "75-virtual"], "120.75v", id="asked-for"),
    ],
)
def test_cuda_architectures(wanted, devices, architectures, label):
    described = describe({"backend": "cuda", "cuda_architectures": wanted}, {"devices": devices})
    assert described["architectures"] == architectures
    assert described["build_id"].startswith(f"b11549-cuda-{label}-")
    assert f"-DCMAKE_CUDA_ARCHITECTURES={';'.join(architectures)}" in described["cmake_options"]
    assert not described["problems"]


@pytest.mark.parametrize(
    ("wish", "present", "absent"),
    [
        pytest.param(
            {}, ["-DGGML_RPC=OFF", "-DGGML_RPC_RDMA=OFF", "-DGGML_NATIVE=ON", "-DLLAMA_USE_PREBUILT_UI=OFF"], ["-DGGML_CUDA=ON"], id="cpu"
        ),
        pytest.param({"backend": "rpc"}, ["-DGGML_RPC=ON", "-DGGML_RPC_RDMA=OFF"], ["-DGGML_RPC=OFF"], id="rpc"),
        pytest.param({"backend": "vulkan"}, ["-DGGML_VULKAN=ON", "-DGGML_RPC=OFF"], ["-DGGML_CUDA=ON"], id="vulkan"),
        pytest.param({"cpu": "baseline"}, ["-DGGML_NATIVE=OFF", "-DGGML_AVX2=ON"], ["-DGGML_NATIVE=ON"], id="baseline"),
        pytest.param(
            {"cpu": "all"}, ["-DGGML_NATIVE=OFF", "-DGGML_BACKEND_DL=ON", "-DGGML_CPU_ALL_VARIANTS=ON"], ["-DGGML_AVX2=ON"], id="all"
        ),
        pytest.param({"tag": "b12345"}, ["-DLLAMA_BUILD_NUMBER=12345"], [], id="number-from-tag"),
    ],
)
def test_cmake_options(wish, present, absent):
    options = describe(wish)["cmake_options"]
    assert set(present) <= set(options)
    assert not set(absent) & set(options)


def test_own_cmake_options_come_last():
    assert describe({"cmake_options": ["-DGGML_NATIVE=OFF"]})["cmake_options"][-1] == "-DGGML_NATIVE=OFF"


@pytest.mark.parametrize(
    ("backend", "has"),
    [pytest.param("cpu", False, id="cpu"), pytest.param("rpc", True, id="rpc")],
)
def test_only_the_rpc_backend_has_the_rpc_program(backend, has):
    assert ("ggml-rpc-server" in describe({"backend": backend})["programs"]) is has


@pytest.mark.parametrize(
    ("memory", "jobs"),
    [
        pytest.param({"total": 64 * GIB}, 8, id="of-recorded-facts-that-lack-it"),
        pytest.param({"total": 64 * GIB, "available": 60 * GIB}, 8, id="idle"),
        pytest.param({"total": 64 * GIB, "available": 7 * GIB}, 3, id="a-server-has-the-rest"),
        pytest.param({"total": 64 * GIB, "available": GIB}, 1, id="at-least-one"),
    ],
)
def test_jobs_leave_a_running_server_its_memory(memory, jobs):
    described = describe({}, {"cpu": {**HARDWARE["cpu"], "cores": 8}, "memory": memory})
    assert described["jobs"] == jobs
    assert described["build_id"] == describe({}, {"cpu": {**HARDWARE["cpu"], "cores": 8}})["build_id"]


@pytest.mark.parametrize(
    ("cores", "memory", "wanted", "jobs"),
    [
        pytest.param(8, 64 * GIB, 0, 8, id="by-cores"),
        pytest.param(8, 7 * GIB, 0, 3, id="by-memory"),
        pytest.param(8, GIB, 0, 1, id="at-least-one"),
        pytest.param(0, 64 * GIB, 0, 1, id="no-cores-known"),
        pytest.param(8, 64 * GIB, 2, 2, id="asked-for-fewer"),
        pytest.param(8, 8 * GIB, 100, 4, id="asked-for-too-many"),
    ],
)
def test_jobs(cores, memory, wanted, jobs):
    assert _engine_options.build_jobs(cores, memory, wanted) == jobs


@pytest.mark.parametrize(
    ("wish", "hardware", "words"),
    [
        pytest.param({"tag": "v1.0.0"}, {}, "llama_engine_tag", id="tag"),
        pytest.param({"tag": "b11000"}, {}, "CVE-2026-107183", id="tag-below-floor"),
        pytest.param({"commit": "main"}, {}, "llama_engine_commit", id="commit"),
        pytest.param({"backend": "hip"}, {}, "llama_engine_backend", id="backend"),
        pytest.param({"source": "wheel"}, {}, "llama_engine_source", id="source"),
        pytest.param({"force": ["all"]}, {}, "llama_engine_force", id="force"),
        pytest.param({"git_url": "llama.cpp"}, {}, "llama_engine_git_url", id="git-url"),
        pytest.param({"platform": "Debian 12"}, {}, "llama_engine_platform", id="platform"),
        pytest.param({"source": "archive"}, {}, "llama_engine_archive.url", id="archive-without-url"),
        pytest.param({"source": "archive", "archive": {**ARCHIVE, "sha256": ""}}, {}, "sha256", id="archive-without-checksum"),
        pytest.param({"source": "archive", "archive": {**ARCHIVE, "folder": "../x"}}, {}, "folder", id="archive-folder-outside"),
        pytest.param({"source": "package"}, {}, "no llama.cpp packages", id="package-on-bookworm"),
        pytest.param({"backend": "cuda"}, {}, "llama_engine_cuda_architectures", id="cuda-without-device"),
        pytest.param({"backend": "cuda", "cuda_architectures": ["sm_90"]}, {}, "sm_90", id="cuda-architecture-name"),
        pytest.param({}, {"architecture": "riscv64"}, "riscv64", id="architecture"),
        pytest.param({}, {"os": {"family": "other"}}, "family", id="system"),
    ],
)
def test_problems(wish, hardware, words):
    problems = describe(wish, hardware)["problems"]
    assert any(words in problem for problem in problems), problems


def test_all_problems_are_told_together():
    assert len(describe({"tag": "main", "backend": "hip", "force": ["all"]})["problems"]) == 3


def test_a_good_wish_has_no_problems():
    assert describe()["problems"] == []


def release(build_id="", intact=True, **build):
    return {"build_id": build_id, "path": f"/opt/llamacpp/releases/{build_id}", "intact": intact, "build": {"build_id": build_id, **build}}


@pytest.mark.parametrize(
    ("intact", "found"),
    [pytest.param(True, True, id="intact"), pytest.param(False, False, id="damaged")],
)
def test_a_release_that_the_host_has(intact, found):
    build_id = describe()["build_id"]
    described = describe(hardware={"engines": [release("b1-cpu-x86_64-00000000"), release(build_id, intact)]})
    assert (described["release"].get("build_id") == build_id) is found


def packaged(**changes):
    build = {"source": {"kind": "package"}, "backend": "cpu", "packages": VERSIONS, "number": 11669}
    return release("b11669-cpu-x86_64-12345678", **{**build, **changes})


def test_a_packaged_engine_has_no_id_before_it_is_installed():
    described = describe({"source": "package"}, FORKY)
    assert (described["build_id"], described["release"], described["problems"]) == ("", {}, [])
    assert described["packages"] == ["llama.cpp-tools", "llama.cpp-tools-extra", "libggml0", "libllama0"]


def test_a_packaged_engine_is_named_by_its_versions():
    first = describe({"source": "package"}, FORKY, packages=VERSIONS, number=11669)
    other = describe({"source": "package"}, FORKY, packages={**VERSIONS, "libggml0": "0.27.0-2"}, number=11669)
    assert first["build_id"].startswith("b11669-cpu-x86_64-")
    assert first["build_id"] != other["build_id"]


def test_a_packaged_engine_on_the_host_keeps_its_id():
    installed = describe({"source": "package"}, FORKY, packages=VERSIONS, number=11669)
    engines = [packaged(backend="vulkan"), packaged()]
    engines[1]["build_id"] = installed["build_id"]
    again = describe({"source": "package", "platform": "debian-12"}, {**FORKY, "engines": engines})
    assert (again["build_id"], again["release"]["build_id"]) == (installed["build_id"], installed["build_id"])


@pytest.mark.parametrize(
    ("engine", "backend"),
    [
        pytest.param(packaged(), "vulkan", id="other-backend"),
        pytest.param(packaged(packages={"llama.cpp-tools": "1"}), "cpu", id="other-packages"),
        pytest.param({**packaged(), "intact": False}, "cpu", id="upgraded-or-not-held"),
        pytest.param(packaged(source={"kind": "git"}), "cpu", id="built-from-source"),
    ],
)
def test_a_packaged_engine_that_does_not_match(engine, backend):
    assert describe({"source": "package", "backend": backend}, {**FORKY, "engines": [engine]})["release"] == {}


@pytest.mark.parametrize(
    ("number", "backend", "force", "refused"),
    [
        pytest.param(11669, "cpu", [], False, id="above-the-floor"),
        pytest.param(9721, "cpu", [], True, id="below-the-floor"),
        pytest.param(11669, "rpc", [], True, id="rpc-below-its-floor"),
        pytest.param(11669, "rpc", ["rpc"], False, id="rpc-forced"),
    ],
)
def test_floors_of_packages(number, backend, force, refused):
    described = describe({"source": "package", "backend": backend, "force": force}, FORKY, packages=VERSIONS, number=number)
    assert bool(described["problems"]) is refused


ARM = {"architecture": "aarch64"}


def test_a_baseline_for_arm_names_no_instructions_of_x86():
    assert "-DGGML_AVX2=ON" not in describe({"cpu": "baseline"}, ARM)["cmake_options"]


@pytest.mark.parametrize(
    ("cpu", "hardware", "words"),
    [
        pytest.param("fast", {}, "none of native, baseline, all", id="unknown"),
        pytest.param("baseline", {}, "lacks bmi2, f16c, sse4_2", id="processor-without-the-baseline"),
        pytest.param("all", ARM, "g\\+\\+ 14", id="old-compiler-on-arm"),
    ],
)
def test_processors_that_a_build_is_not_for(cpu, hardware, words):
    problems = describe({"cpu": cpu}, hardware)["problems"]
    assert len(problems) == 1
    assert re.search(words, problems[0])


@pytest.mark.parametrize(
    ("cpu", "hardware"),
    [
        pytest.param("baseline", {"cpu": {"cores": 8, "flags": list(_engine_options.BASELINE)}}, id="baseline"),
        pytest.param("baseline", ARM, id="baseline-on-arm"),
        pytest.param("all", {}, id="all-on-any-x86"),
        pytest.param("all", {**ARM, "platform": "debian-13"}, id="all-on-arm-with-a-new-compiler"),
    ],
)
def test_processors_that_a_build_is_for(cpu, hardware):
    assert describe({"cpu": cpu}, hardware)["problems"] == []
