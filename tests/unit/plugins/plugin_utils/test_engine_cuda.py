# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One CUDA build serves hosts with different devices."""

from __future__ import annotations

import copy

import pytest

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _engine, _engine_cuda

HARDWARE = {
    "architecture": "x86_64",
    "platform": "debian-12",
    "os": {"family": "debian"},
    "cpu": {"cores": 8, "flags": ["avx2"]},
    "memory": {"total": 64 * 1024**3},
    "devices": [],
    "engines": [],
}
WISH = {"tag": "b11549", "backend": "cuda", "source": "git", "git_url": "https://example.com/x", "native": True}
TOOLKIT = {"source": "pypi", "version": "13.0", "release": "13.0.2", "cmake_options": ["-DCMAKE_CUDA_COMPILER=/x/nvcc"], "problems": []}


def hardware(*capabilities, driver="580.95.05", **changes):
    devices = [{"kind": "cuda", "compute_capability": item, "driver_version": driver} for item in capabilities]
    return {**copy.deepcopy(HARDWARE), "devices": devices, **changes}


def describe(facts, **wish):
    return _engine.describe(facts, {**WISH, "toolkit": TOOLKIT, **wish})


def fleet(**hosts):
    return _engine_cuda.fleet({name: describe(facts) for name, facts in hosts.items()})


def test_hosts_that_differ_in_devices_alone_share_a_build():
    groups = list(fleet(a=hardware("9.0"), b=hardware("8.0", driver="570.1")).values())
    assert groups == [
        [
            {"host": "a", "compute_capabilities": ["9.0"], "driver_versions": ["580.95.05"]},
            {"host": "b", "compute_capabilities": ["8.0"], "driver_versions": ["570.1"]},
        ]
    ]
    ids = {describe(facts, cuda_hosts=groups[0])["build_id"] for facts in (hardware("9.0"), hardware("8.0"))}
    assert len(ids) == 1
    assert ids.pop().startswith("b11549-cuda-80.90-")


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(hardware("9.0", platform="debian-13"), id="platform"),
        pytest.param(hardware("9.0", cpu={"cores": 8, "flags": ["avx512f"]}), id="processor-of-a-native-build"),
    ],
)
def test_hosts_that_differ_in_more_do_not(other):
    assert len(fleet(a=hardware("9.0"), b=other)) == 2


def test_hosts_without_cuda_are_not_of_the_fleet():
    assert _engine_cuda.fleet({"a": _engine.describe(hardware(), {**WISH, "backend": "cpu"}), "b": {}}) == {}


def test_named_architectures_ask_for_a_toolkit_that_knows_them():
    described = describe(hardware(), cuda_architectures=["70-real", "90"])
    assert described["cuda"]["devices"]["compute_capabilities"] == ["7.0", "9.0"]


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        pytest.param({"release": "13.1.0"}, False, id="release"),
        pytest.param({"source": "nvidia"}, False, id="source"),
        pytest.param({"cmake_options": ["-DCMAKE_CUDA_COMPILER=/elsewhere/nvcc"]}, True, id="where-it-lies"),
    ],
)
def test_the_toolkit_is_part_of_the_id(changes, same):
    first, other = (describe(hardware("9.0"), toolkit={**TOOLKIT, **change})["build_id"] for change in ({}, changes))
    assert (first == other) is same


def test_nccl_and_rdma_are_off():
    assert {"-DGGML_CUDA=ON", "-DGGML_CUDA_NCCL=OFF", "-DGGML_RPC_RDMA=OFF"} <= set(describe(hardware("9.0"))["cmake_options"])


def test_a_device_that_the_named_architectures_leave_out_is_refused():
    problems = describe(hardware("9.0", "7.5"), cuda_architectures=["80-real", "90-real"])["problems"]
    assert len(problems) == 1
    assert "this host has devices of compute capability 7.5" in problems[0]
    assert "Add 75-real" in problems[0]


def test_a_toolkit_that_does_not_suit_is_refused():
    assert describe(hardware("9.0"), toolkit={"problems": ["No CUDA toolkit suits."]})["problems"] == ["No CUDA toolkit suits."]


def with_release(built_for, *own, **changes):
    """A host with devices of its own that has a release which was built for a fleet."""
    group = [{"host": "x", "compute_capabilities": built_for, "driver_versions": []}]
    built = {**describe(hardware(*built_for), cuda_hosts=group)}
    engine = {
        "build_id": built["build_id"],
        "path": "/r",
        "intact": True,
        "build": {"build_id": built["build_id"], "inputs": built["inputs"]},
    }
    return hardware(*own, engines=[{**engine, **changes}]), built


@pytest.mark.parametrize(
    ("built_for", "own"),
    [
        pytest.param(["8.0", "9.0"], ["9.0"], id="the-fleet-shrank"),
        pytest.param(["8.0"], ["8.6"], id="later-minor"),
    ],
)
@pytest.mark.parametrize("release", [pytest.param("13.0.2", id="the-toolkit-that-built-it"), pytest.param("13.1.0", id="another-toolkit")])
def test_a_host_keeps_a_release_that_covers_its_devices(built_for, own, release):
    facts, built = with_release(built_for, *own)
    described = describe(facts, toolkit={**TOOLKIT, "release": release})
    assert (described["build_id"], described["architectures"]) == (built["build_id"], built["architectures"])
    assert described["release"]["path"] == "/r"
    assert described["problems"] == []


@pytest.mark.parametrize(
    ("own", "changes", "wish"),
    [
        pytest.param(["9.0", "12.0"], {}, {}, id="another-device"),
        pytest.param(["9.0"], {"intact": False}, {}, id="damaged"),
        pytest.param(["9.0"], {}, {"tag": "b11600"}, id="another-tag"),
        pytest.param(["9.0"], {}, {"toolkit": {**TOOLKIT, "release": "13.1.0"}, "toolkit_named": True}, id="a-toolkit-that-was-named"),
        pytest.param(["9.0"], {}, {"cuda_architectures": ["90-real"]}, id="architectures-named"),
    ],
)
def test_a_host_gets_another_release(own, changes, wish):
    facts, built = with_release(["8.0", "9.0"], *own, **changes)
    described = describe(facts, **wish)
    assert described["release"] == {}
    assert described["build_id"] != built["build_id"] or not changes.get("intact", True)


def test_a_release_that_the_drivers_toolkit_no_longer_serves_is_not_kept():
    """A host whose driver went back needs what the older toolkit makes."""
    facts, _built = with_release(["9.0"], "9.0")
    facts["devices"][0]["driver_version"] = "570.1"
    assert describe(facts, toolkit={**TOOLKIT, "version": "12.8", "release": "12.8.1"})["release"] == {}


SEEN = "Available devices:\n  CUDA0: NVIDIA H100 (81079 MiB, 80000 MiB free)"


@pytest.mark.parametrize(
    ("facts", "text", "told"),
    [
        pytest.param(hardware("9.0"), SEEN, False, id="it-lists-one"),
        pytest.param(hardware("9.0"), "Available devices:\n  (none)", True, id="none"),
        pytest.param(hardware("9.0"), "Available devices:\n  RPC0: 127.0.0.1:50052 (1 MiB, 1 MiB free)", True, id="only-others"),
        pytest.param(hardware("9.0"), "status 1: CUDA error: busy", False, id="it-could-not-list-them"),
        pytest.param(hardware(), "Available devices:", False, id="a-builder-without-a-gpu"),
        pytest.param(hardware("9.0", devices=[{"kind": "cuda", "driver": False}]), "Available devices:", False, id="no-driver"),
    ],
)
def test_an_engine_that_does_not_see_the_devices_of_its_host(facts, text, told):
    problem = _engine_cuda.device_problem(facts, text)
    assert bool(problem) is told
    if told:
        assert "the driver of this host shows 1" in problem and " ".join(text.split()) in problem
