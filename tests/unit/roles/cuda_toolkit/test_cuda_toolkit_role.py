# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role says where a toolkit cannot be had, and what it leaves: run on this machine, without root and without a network."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import os
import re
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[4]
CLOSED = "http://127.0.0.1:9/simple"
PLAY = [
    {
        "hosts": "all",
        "connection": "local",
        "gather_facts": False,
        "tasks": [
            {"ansible.builtin.import_role": {"name": "onprem.llamacpp.cuda_toolkit"}},
        ],
    }
]
FACTS = {
    "architecture": "x86_64",
    "platform": "debian-12",
    "os": {"family": "debian"},
    "devices": [{"kind": "cuda", "compute_capability": "9.0", "driver_version": "580.95.05"}],
    "disks": [],
}


@pytest.fixture
def role(tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """Runs the role on recorded facts, with packages that need not be installed; exit status and what was told, in one line."""

    def run(facts: dict[str, Any] | None = None, *arguments: str, **variables: Any) -> tuple[int, str]:
        (tmp_path / "play.yml").write_text(json.dumps(PLAY))
        extra = {
            "ansible_facts": {"llama_hardware": {**FACTS, **(facts or {})}},
            "ansible_become": False,
            "ansible_python_interpreter": sys.executable,
            "cuda_toolkit_root": str(tmp_path / "cuda"),
            "_cuda_toolkit_packages": [],
            "_cuda_toolkit_retries": 0,
            **variables,
        }
        done = subprocess.run(
            ["ansible-playbook", "-i", "localhost,", str(tmp_path / "play.yml"), "-e", json.dumps(extra), *arguments],
            cwd=ROOT,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_LOCAL_TEMP": str(tmp_path / "tmp"), "PIP_RETRIES": "0"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=180,
            check=False,
        )
        return done.returncode, " ".join(done.stdout.split())

    return run


def left(tmp_path: Path) -> list[str]:
    """What lies under the toolkit's folder when the role has failed, but for the folder that wheels are brought to."""
    return [path.name for path in (tmp_path / "cuda").glob("*") if not path.name.startswith("wheels-")]


def test_an_index_that_cannot_be_reached(role: Any, tmp_path: Path) -> None:
    status, told = role(cuda_toolkit_index_url=CLOSED)
    assert status == 2
    assert f"CUDA 13.0 could not be installed on localhost from {CLOSED}" in told
    assert "name a mirror in cuda_toolkit_index_url, or put the wheels into a folder on the controller" in told
    assert "Traceback" not in told
    assert left(tmp_path) == []


def test_a_folder_without_the_wheels(role: Any, tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels/nvidia_cuda_nvcc-13.0.88-py3-none-manylinux2014_x86_64.whl").write_bytes(b"something else")
    status, told = role(cuda_toolkit_wheel_directory=str(tmp_path / "wheels"))
    assert status == 2
    assert "nvidia_cuda_nvcc-13.0.88-py3-none-manylinux2014_x86_64.whl has the sha256" in told
    assert "nvidia-cublas 13.1.0.3 is missing" in told
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("facts", "variables", "words"),
    [
        pytest.param(
            {"disks": [{"path": "/", "mount": "/", "free": 10**9}]},
            {},
            "CUDA 13.0 needs 1.5 GB at",
            id="no-room",
        ),
        pytest.param(
            {"devices": [{"kind": "cuda", "compute_capability": "7.0", "driver_version": "550.163.01"}]},
            {"cuda_toolkit_source": "pypi"},
            "CUDA 13.0 (pypi) compiles for compute capability 7.5 and later, localhost has 7.0",
            id="device-that-cuda-13-dropped",
        ),
        pytest.param(
            {"platform": "debian-13"},
            {"cuda_toolkit_source": "distribution", "cuda_toolkit_host_compiler": "/usr/bin/g++-14"},
            "CUDA 12.4 (distribution) accepts g++ 13 at most, this system has 14",
            id="compiler-too-new",
        ),
        pytest.param({"architecture": "riscv64"}, {}, "is not known for debian-12 on riscv64", id="architecture"),
    ],
)
def test_told_before_anything_is_fetched(role: Any, tmp_path: Path, facts: dict[str, Any], variables: dict[str, Any], words: str) -> None:
    status, told = role(facts, **variables)
    assert status == 2
    assert words in told
    assert not (tmp_path / "cuda").exists()


def test_check_mode_says_what_would_be_done(role: Any, tmp_path: Path) -> None:
    status, told = role(None, "--check")
    assert status == 0
    assert f"Would unpack CUDA 13.0.2 of the package index of pip at {tmp_path}/cuda/13.0.2" in told
    assert not (tmp_path / "cuda").exists()


NVIDIA = {"cuda_toolkit_source": "nvidia", "cuda_toolkit_version": "13.0", "cuda_toolkit_repository_url": "http://127.0.0.1:9/cuda/"}


def test_the_address_of_a_repository_has_no_slash_too_many(role: Any) -> None:
    """The role nvidia_driver writes the same file: with another address in it each run would change it."""
    status, told = role(None, "--check", **NVIDIA)
    assert status == 2
    assert "cannot be fetched from http://127.0.0.1:9/cuda/debian12/x86_64/3bf863cc.pub" in told


def test_the_hosts_own_repositories_are_left_alone(role: Any) -> None:
    status, told = role(None, "--check", nvidia_driver_manage_repository=False, **NVIDIA)
    assert status == 0, told
    assert "TASK [onprem.llamacpp.cuda_toolkit : Write the repository] *" in told and "changed=0" in told


@pytest.mark.parametrize("wanted", [True, False])
def test_nothing_is_on_the_path_of_logins_unless_asked(role: Any, tmp_path: Path, wanted: bool) -> None:
    status, told = role(None, "--check", "--diff", cuda_toolkit_profile=wanted)
    assert status == 0, told
    assert ("llamacpp-cuda.sh" in told) == (f"+export PATH={tmp_path}/cuda/13.0.2/bin:$PATH" in told) == wanted


def make_wheel(folder: Path, version: str, files: int = 0) -> dict[str, Any]:
    """A small wheel that stands for a toolkit, with so many files besides; what the role knows of it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"nvidia_cuda_nvcc-{version}.1-py3-none-manylinux2014_x86_64.whl"
    about = f"nvidia_cuda_nvcc-{version}.1.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("nvidia/cu13/bin/nvcc", f"#!/bin/sh\necho {version}\n")
        archive.writestr("nvidia/cu13/include/cuda.h", "typedef int CUresult;\nCUresult cuInit(unsigned int flags);\n")
        for number in range(files):
            archive.writestr(f"nvidia/cu13/include/{number}.h", "")
        archive.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: nvidia-cuda-nvcc\nVersion: {version}.1\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-manylinux2014_x86_64\n")
    pin = {"name": "nvidia-cuda-nvcc", "version": f"{version}.1", "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    return {"release": f"{version}.1", "inside": "nvidia/cu13", "wheels": {"x86_64": [pin]}}


def test_two_builds_on_one_host_take_the_index_and_unpack_once(role: Any, tmp_path: Path) -> None:
    """Two kinds of hosts have their builds made by one builder, at once and in the same folders."""
    project = tmp_path / "simple/nvidia-cuda-nvcc"
    wheels = {"13.0": make_wheel(project, "13.0", files=3000)}
    (wheel,) = (path.name for path in project.iterdir())
    (project / "index.html").write_text(f'<a href="{wheel}">{wheel}</a>')
    asked = []

    class Index(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_arguments: Any) -> None:
            asked.append(self.path)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Index, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        index = f"http://127.0.0.1:{server.server_port}/simple"
        status, told = role(None, "-i", "other,", _cuda_toolkit_wheels=wheels, cuda_toolkit_index_url=index)
        server.shutdown()
    assert status == 0, told
    assert [path for path in asked if path.endswith(".whl")] == [f"/simple/nvidia-cuda-nvcc/{wheel}"]
    (unpacked,) = re.findall(r"TASK \[onprem.llamacpp.cuda_toolkit : Unpack the wheels\] \*+ (.*?) TASK", told)
    assert sorted(re.findall(r"(\w+): \[", unpacked)) == ["changed", "ok"]
    assert sorted(left(tmp_path)) == ["13.0.1", "stubs"]
    assert "echo 13.0" in (tmp_path / "cuda/13.0.1/bin/nvcc").read_text()


def test_versions_lie_side_by_side(role: Any, tmp_path: Path) -> None:
    folder = tmp_path / "wheels"
    wheels = {version: make_wheel(folder, version) for version in ("13.0", "13.1")}
    for version in wheels:
        wish = {"cuda_toolkit_source": "pypi", "cuda_toolkit_version": version, "cuda_toolkit_wheel_directory": str(folder)}
        status, told = role(None, _cuda_toolkit_wheels=wheels, **wish)
        assert status == 0, told
    assert sorted(left(tmp_path)) == ["13.0.1", "13.1.1", "stubs"]
    for version in wheels:
        assert version in (tmp_path / f"cuda/{version}.1/bin/nvcc").read_text()
        assert (tmp_path / f"cuda/stubs/{version}/libcuda.so.1").exists()


def test_what_others_take_of_the_role_is_declared() -> None:
    declared = yaml.safe_load((ROOT / "roles/cuda_toolkit/meta/argument_specs.yml").read_text())["argument_specs"]
    taken = {
        name
        for path in [*ROOT.glob("playbooks/*.yml"), *ROOT.glob("roles/*/tasks/*.yml")]
        for name in re.findall(r"name: onprem\.llamacpp\.cuda_toolkit\n\s+tasks_from: (\w+)", path.read_text())
    }
    assert taken == declared.keys() - {"main"}
