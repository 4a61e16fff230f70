# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a plan says of a CUDA build that no toolkit suits, before anything is installed."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _cuda_plan, _cuda_toolkit, _engine

HARDWARE: dict[str, Any] = {
    "architecture": "x86_64",
    "platform": "debian-12",
    "os": {"family": "debian"},
    "cpu": {"cores": 8, "flags": []},
    "memory": {"total": 2**36},
    "engines": [],
}
WISH = {"tag": "b11549", "backend": "auto", "source": "git", "git_url": "https://example.com/x", "native": True, "cuda_architectures": []}
REQUEST: dict[str, Any] = {
    "platform": "debian-12",
    "family": "debian",
    "architecture": "x86_64",
    "hosts": [{"host": "gpu-a", "compute_capabilities": [], "driver_versions": []}],
    "wish": {"source": "pypi", "version": "", "host_compiler": ""},
    "offers": {"pypi": ["13.0"], "nvidia": ["13.0", "12.9"], "distribution": ["11.8"]},
    "releases": {"13.0": "13.0.2"},
    "compilers": [12, 11],
    "root": "/opt/llamacpp/cuda",
}


def host(capability: str, driver: str = "580.95.05", **more: Any) -> dict[str, Any]:
    device = {"kind": "cuda", "compute_capability": capability, "driver_version": driver, "driver": bool(driver)}
    return {**copy.deepcopy(HARDWARE), "devices": [device], **more}


def problems(
    hardware: dict[str, Any], wish: dict[str, Any], driver: dict[str, Any], compilers: tuple[int, ...] = (12, 11), **toolkit: Any
) -> list[str]:
    request = {**REQUEST, "compilers": list(compilers), "wish": {**REQUEST["wish"], **toolkit}}
    return _cuda_plan.problems(hardware, {**WISH, **wish}, request, driver)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        pytest.param(problems(host("9.0"), {}, {}), "", id="suits"),
        pytest.param(
            problems(host("7.0"), {}, {}), "compiles for compute capability 7.5 and later, gpu-a has 7.0", id="CUDA 13 drops V100"
        ),
        pytest.param(problems(host("7.0"), {}, {}, source="auto"), "", id="an older toolkit for a V100"),
        pytest.param(problems(host("3.0"), {}, {}, source="auto"), "gpu-a has 3.0", id="no toolkit for the device"),
        pytest.param(problems(host("9.0"), {}, {}, compilers=(16,)), "accepts g++ 15 at most, this system has 16", id="compiler too new"),
        pytest.param(problems(host("9.0", "535.261.03"), {}, {}), "needs driver 580 or later, gpu-a has 535.261.03", id="driver too old"),
        pytest.param(
            problems(host("9.0", "535.261.03"), {}, {"action": "upgrade", "branch": "580", "version": ""}), "", id="driver is replaced"
        ),
        pytest.param(
            problems(host("9.0", ""), {}, {"action": "install", "branch": "570", "version": ""}), "gpu-a has 570", id="driver to come"
        ),
        pytest.param(
            problems(host("9.0", ""), {}, {"action": "install", "branch": "570", "version": "570.1.2"}),
            "gpu-a has 570.1.2",
            id="its version",
        ),
        pytest.param(
            problems(host("9.0", ""), {}, {"action": "install", "branch": "", "version": ""}), "", id="driver of the distribution"
        ),
        pytest.param(problems(host("7.0"), {"cuda_architectures": ["90-real"]}, {}), "", id="architectures named"),
        pytest.param(problems(host("9.0"), {"cuda_architectures": ["70-real"]}, {}), "gpu-a has 7.0", id="architecture named"),
        pytest.param(problems(host("7.0"), {"source": "package"}, {}), "", id="package"),
        pytest.param(problems(host("7.0"), {"backend": "vulkan"}, {}), "", id="another backend"),
    ],
)
def test_problems(found: list[str], words: str) -> None:
    assert len(found) == bool(words)
    assert words in " ".join(found)


def test_a_host_that_has_the_engine_needs_no_toolkit() -> None:
    request = {**REQUEST, "compilers": [16]}
    toolkit = _cuda_toolkit.describe(request)
    assert toolkit["problems"]
    build = _engine.describe(host("9.0"), {**WISH, "backend": "cuda", "toolkit": toolkit})
    engine = {"build_id": build["build_id"], "intact": True, "build": {"inputs": build["inputs"]}}
    assert _cuda_plan.problems(host("9.0"), WISH, request, {})
    assert _cuda_plan.problems(host("9.0", engines=[engine]), WISH, request, {}) == []
