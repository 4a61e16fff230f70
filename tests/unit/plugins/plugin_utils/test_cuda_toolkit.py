# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a chosen toolkit lies and what CMake is told of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _cuda, _cuda_toolkit

ROOT = Path(__file__).resolve().parents[4]
VARS = ROOT / "roles/cuda_toolkit/vars/main"
DRIVER = ROOT / "roles/nvidia_driver/vars/main"
REQUEST = {
    "platform": "debian-12",
    "family": "debian",
    "architecture": "x86_64",
    "hosts": [{"host": "a", "compute_capabilities": ["9.0"], "driver_versions": []}],
    "wish": {"source": "auto", "version": "", "host_compiler": ""},
    "offers": {"pypi": ["13.0"], "nvidia": ["13.0", "12.9"], "distribution": ["11.8"]},
    "releases": {"13.0": "13.0.2"},
    "compilers": [12, 11],
    "root": "/opt/llamacpp/cuda",
}


def describe(wish=None, **changes):
    return _cuda_toolkit.describe({**REQUEST, **changes, "wish": {**REQUEST["wish"], **(wish or {})}})


@pytest.mark.parametrize(
    ("wish", "release", "nvcc", "libraries"),
    [
        pytest.param({}, "13.0.2", "/opt/llamacpp/cuda/13.0.2/bin/nvcc", ["/opt/llamacpp/cuda/13.0.2/lib"], id="pypi"),
        pytest.param({"source": "nvidia"}, "13.0", "/usr/local/cuda-13.0/bin/nvcc", ["/usr/local/cuda-13.0/lib64"], id="nvidia"),
        pytest.param({"source": "distribution"}, "11.8", "/usr/bin/nvcc", ["/usr/lib/x86_64-linux-gnu"], id="distribution"),
    ],
)
def test_places(wish, release, nvcc, libraries):
    found = describe(wish)
    assert (found["release"], found["nvcc"], found["library_paths"], found["problems"]) == (release, nvcc, libraries, [])
    assert f"-DCMAKE_CUDA_COMPILER={nvcc}" in found["cmake_options"]
    assert f"-DCUDA_cuda_driver_LIBRARY={found['stub']}" in found["cmake_options"]


@pytest.mark.parametrize(
    ("family", "compilers", "wish", "compiler", "package"),
    [
        pytest.param("debian", [12, 11], {}, "", "g++", id="own"),
        pytest.param("debian", [16, 15], {}, "/usr/bin/g++-15", "g++-15", id="debian-own-too-new"),
        pytest.param("redhat", [11], {}, "", "gcc-c++", id="redhat-own"),
        pytest.param("redhat", [16, 14], {}, "/opt/rh/gcc-toolset-14/root/usr/bin/g++", "gcc-toolset-14-gcc-c++", id="redhat-toolset"),
        pytest.param("debian", [16], {"host_compiler": "/usr/bin/g++-13"}, "/usr/bin/g++-13", "", id="named"),
        pytest.param("debian", [16], {"host_compiler": "/opt/gcc/bin/g++"}, "/opt/gcc/bin/g++", "", id="named-without-a-number"),
    ],
)
def test_compiler(family, compilers, wish, compiler, package):
    found = describe(wish, family=family, compilers=compilers)
    assert (found["host_compiler"], found["compiler_package"]) == (compiler, package)
    assert (f"-DCMAKE_CUDA_HOST_COMPILER={compiler}" in found["cmake_options"]) is bool(compiler)


def test_a_named_compiler_that_is_too_new_is_refused():
    problems = describe({"host_compiler": "/usr/bin/g++-16"})["problems"]
    assert "accepts g++ 15 at most, this system has 16" in problems[0]


def test_a_refusal_has_no_place():
    found = describe({"source": "pypi"}, compilers=[16])
    assert (found["version"], found["cmake_options"]) == ("", [])


def test_every_platform_fills_the_same_keys_with_known_versions():
    known = yaml.safe_load((VARS / "platforms.yml").read_text())
    platforms = known["_cuda_toolkit_platforms"]
    assert {frozenset(platform) for platform in platforms.values()} == {frozenset(("compilers", "folder", "nvidia", "distribution"))}
    assert {platform["folder"] for platform in platforms.values()} - {""} == set(known["_cuda_toolkit_keys"])
    offered = {version for platform in platforms.values() for version in platform["nvidia"] + platform["distribution"]}
    assert offered <= set(_cuda.TOOLKITS)


def test_keys_are_those_of_the_driver():
    drivers = [next(iter(yaml.safe_load(path.read_text()).values())) for path in DRIVER.glob("*_*.yml")]
    keys = yaml.safe_load((VARS / "platforms.yml").read_text())["_cuda_toolkit_keys"]
    assert {entry["repository"]: entry["key"] for entry in drivers} == keys


def test_wheels_are_pinned_for_both_architectures():
    for version, release in yaml.safe_load((VARS / "wheels.yml").read_text())["_cuda_toolkit_wheels"].items():
        assert version in _cuda.TOOLKITS
        names = [[(wheel["name"], wheel["version"]) for wheel in release["wheels"][architecture]] for architecture in ("x86_64", "aarch64")]
        assert names[0] == names[1]
        assert all(len(wheel["sha256"]) == 64 for wheels in release["wheels"].values() for wheel in wheels)
