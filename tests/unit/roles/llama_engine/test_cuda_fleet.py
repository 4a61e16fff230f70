# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role on hosts with different GPUs, on recorded facts: one build for all, made by one of them, or told why not."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[4]
PLAY = [
    {
        "hosts": "all",
        "connection": "local",
        "gather_facts": False,
        "tasks": [
            {"ansible.builtin.set_fact": {"llama_hardware": "{{ recorded }}", "cacheable": True}},
            {"ansible.builtin.import_role": {"name": "onprem.llamacpp.llama_engine"}},
            {"ansible.builtin.debug": {"msg": "{{ inventory_hostname }} compiles {{ _llama_engine_jobs }} at once"}},
        ],
    }
]


def facts(*capabilities: str, driver: str = "580.95.05", platform: str = "debian-12") -> dict[str, Any]:
    devices = [{"kind": "cuda", "compute_capability": item, "driver_version": driver} for item in capabilities]
    host = {"architecture": "x86_64", "platform": platform, "glibc": "2.36", "os": {"family": "debian"}, "devices": devices}
    return {"recorded": {**host, "cpu": {"cores": 8, "flags": ["avx2"]}, "memory": {"total": 64 * 1024**3}, "engines": [], "disks": []}}


@pytest.fixture
def role(tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """Runs the role on hosts with recorded facts; exit status and what was told, in one line."""

    def run(hosts: dict[str, Any], *arguments: str, **variables: Any) -> tuple[int, str]:
        (tmp_path / "play.yml").write_text(json.dumps(PLAY))
        groups = {"llama_builders": {"hosts": {name: {} for name in hosts if name == "builder"}}}
        (tmp_path / "hosts.json").write_text(json.dumps({"all": {"hosts": hosts, "children": groups}}))
        extra = {"ansible_become": False, "ansible_python_interpreter": sys.executable, "llama_engine_cache": str(tmp_path), **variables}
        done = subprocess.run(
            ["ansible-playbook", "-i", str(tmp_path / "hosts.json"), str(tmp_path / "play.yml"), "-e", json.dumps(extra), *arguments],
            cwd=ROOT,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_LOCAL_TEMP": str(tmp_path / "tmp"), "PIP_RETRIES": "0"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        return done.returncode, " ".join(done.stdout.split())

    return run


def test_one_build_for_all_devices_made_by_one_host(role: Any) -> None:
    status, told = role({"a": facts("9.0"), "b": facts("7.5"), "c": facts()}, "--check")
    assert status == 0, told
    # Hosts tell in no order.
    builds = sorted(re.findall(r"Would (build|unpack) (b11549-\S+)", told))
    assert [verb for verb, _build in builds] == ["build", "build", "unpack"]
    cpu, cuda, unpacked = (build for _verb, build in builds)
    assert cpu.startswith("b11549-cpu-")
    assert cuda.startswith("b11549-cuda-75.90-")
    assert unpacked == cuda


def test_a_fleet_that_no_toolkit_suits_is_refused_by_name(role: Any) -> None:
    status, told = role({"new": facts("12.0"), "old": facts("9.0", driver="470.57.02")}, "--check")
    assert status == 2
    assert "needs driver 580 or later, old has 470.57.02" in told
    assert "CUDA 11.8 (distribution) compiles for compute capabilities up to 9.0, new has 12.0" in told


def test_a_device_that_the_build_leaves_out_is_refused(role: Any) -> None:
    status, told = role({"a": facts("9.0")}, "--check", llama_engine_cuda_architectures=["80-real"])
    assert status == 2
    assert "this host has devices of compute capability 9.0, which cannot run it. Add 90-real" in told


def test_too_little_room_is_told_before_anything_is_installed(role: Any, tmp_path: Path) -> None:
    host = facts("9.0")
    host["recorded"]["disks"] = [{"path": "/", "mount": "/", "free": 3 * 10**9}]
    status, told = role({"a": host}, llama_engine_root=str(tmp_path / "engine"))
    assert status == 2
    assert re.search(r"Building b11549-cuda-90-\S+ on a needs 6.0 GB at \S+/build, but the filesystem / has 3.0 GB free", told)
    assert not (tmp_path / "engine").exists()


def test_a_builder_that_makes_several_builds_divides_its_compilers(role: Any) -> None:
    """Its memory is that of all of them together."""
    status, told = role({"a": facts("9.0"), "b": facts(), "builder": facts()}, "--check")
    assert status == 0, told
    assert re.search(r"Would build b11549-cuda-90-\S+ on builder", told)
    assert "a compiles 4 at once" in told
    status, told = role({"a": facts("9.0"), "b": facts()}, "--check")
    assert (status, "a compiles 8 at once" in told) == (0, True), told


@pytest.mark.parametrize(
    ("sha256", "glibc", "free", "words"),
    [
        pytest.param("", "2.36", 10**9, "Would unpack", id="as-it-was-made"),
        pytest.param("ab" * 32, "2.36", 10**9, "but it had abababab", id="changed"),
        pytest.param("", "2.41", 10**9, "was built with glibc 2.41, a has 2.36", id="too-new-a-library"),
        pytest.param("", "2.36", 1000, "Unpacking {} needs 0.0 GB at /opt/llamacpp, but the filesystem / has 0.0 GB free", id="no-room"),
    ],
)
def test_check_mode_looks_at_the_cached_build(role: Any, tmp_path: Path, sha256: str, glibc: str, free: int, words: str) -> None:
    host = facts()
    _status, told = role({"a": host}, "--check")
    build_id = re.findall(r"Would build (b11549-\S+)", told)[0]
    content = b"x" * 1000
    (tmp_path / f"{build_id}.tar.gz").write_bytes(content)
    (tmp_path / f"{build_id}.tar.gz.sha256").write_text(f"{sha256 or hashlib.sha256(content).hexdigest()}  {build_id}.tar.gz\n")
    (tmp_path / f"{build_id}.json").write_text(json.dumps({"glibc": glibc}))
    host["recorded"]["disks"] = [{"path": "/opt/llamacpp", "mount": "/", "free": free}]
    status, told = role({"a": host}, "--check")
    assert words.format(build_id) in told, told
    assert (status == 0) is (words == "Would unpack")


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        pytest.param(
            {"_llama_engine_family": "redhat"}, "cmake, gcc-c++, git, ninja-build, openssl-devel could not be installed", id="packages"
        ),
        pytest.param({"_llama_engine_family": ""}, "CUDA 13.0 could not be installed", id="toolkit"),
    ],
)
def test_the_host_that_lacks_packages_is_named(role: Any, tmp_path: Path, variables: dict[str, Any], words: str) -> None:
    """And not the host that the build is made for."""
    status, told = role(
        {"a": facts("9.0"), "builder": facts()},
        llama_engine_root=str(tmp_path / "engine"),
        llama_engine_git_url="file:///nonexistent",
        cuda_toolkit_root=str(tmp_path / "cuda"),
        cuda_toolkit_index_url="http://127.0.0.1:9/simple",
        _cuda_toolkit_packages=[],
        _cuda_toolkit_retries=0,
        **variables,
    )
    assert status == 2
    assert re.search(rf"fatal: \[a -> builder\]\S* .*{re.escape(words)} on builder", told), told
    assert f"{words} on a" not in told
