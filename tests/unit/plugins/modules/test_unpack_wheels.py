# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Folders made of wheels: whole or not there, verified, and the same the second time."""

from __future__ import annotations

import hashlib
import os
import stat
import zipfile

import pytest

from ansible_collections.onprem.llamacpp.plugins.module_utils import _wheels

ELF = b"\x7fELF and more"
FILES = {
    "nvidia/cu13/bin/nvcc": ELF,
    "nvidia/cu13/bin/nvcc.profile": b"TOP = ..",
    "nvidia/cu13/include/cuda.h": b"#define CUDA",
    "nvidia/cu13/lib/libcudart.so.13": ELF,
    "nvidia/cu13/lib/libcudart_static.a": b"!<arch>",
    "nvidia_cuda_nvcc-13.0.88.dist-info/METADATA": b"Name: nvidia-cuda-nvcc",
}


def write_wheel(folder, files=None, name="nvidia_cuda_nvcc-13.0.88-py3-none-manylinux2014_x86_64.whl"):
    path = folder / name
    with zipfile.ZipFile(path, "w") as archive:
        for inside, content in (files or FILES).items():
            archive.writestr(inside, content)
    return {"name": "nvidia-cuda-nvcc", "version": "13.0.88", "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "wheels"
    folder.mkdir()
    return folder


@pytest.fixture
def unpack(run_module, tmp_path, source):
    def run(wheels, **arguments):
        return run_module(
            "unpack_wheels", path=str(tmp_path / "13.0.2"), source=str(source), inside="nvidia/cu13", wheels=wheels, **arguments
        )

    return run


def test_a_toolkit_is_laid_out_with_permissions_and_links(unpack, source, tmp_path):
    status, result = unpack([write_wheel(source)])
    made = tmp_path / "13.0.2"
    assert (status, result["changed"], result["needed"]) == (0, True, True)
    assert {str(path.relative_to(made)) for path in made.rglob("*") if path.is_file() and not path.is_symlink()} == {
        *("bin/nvcc", "bin/nvcc.profile", "include/cuda.h", "lib/libcudart.so.13", "lib/libcudart_static.a", "wheels.json"),
    }
    assert stat.S_IMODE((made / "bin/nvcc").stat().st_mode) == 0o755
    assert stat.S_IMODE((made / "include/cuda.h").stat().st_mode) == 0o644
    assert os.readlink(made / "lib/libcudart.so") == "libcudart.so.13"
    assert os.readlink(made / "lib64") == "lib"


def test_a_second_run_changes_nothing(unpack, source):
    wheels = [write_wheel(source)]
    unpack(wheels)
    (source / "nvidia_cuda_nvcc-13.0.88-py3-none-manylinux2014_x86_64.whl").unlink()
    assert unpack(wheels)[1]["changed"] is False


def test_check_mode_makes_nothing(unpack, source, tmp_path):
    _status, result = unpack([write_wheel(source)], _ansible_check_mode=True)
    assert (result["changed"], result["needed"], (tmp_path / "13.0.2").exists()) == (True, True, False)


def test_other_wheels_replace_the_folder(unpack, source, tmp_path):
    unpack([write_wheel(source)])
    status, _result = unpack([write_wheel(source, {"nvidia/cu13/bin/nvcc": b"\x7fELF newer"})])
    assert status == 0
    assert (tmp_path / "13.0.2/bin/nvcc").read_bytes() == b"\x7fELF newer"
    assert not (tmp_path / "13.0.2/include").exists()


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        pytest.param(lambda folder, _wheel: next(folder.iterdir()).unlink(), "nvidia-cuda-nvcc 13.0.88 is missing", id="missing"),
        pytest.param(lambda _folder, wheel: wheel.update(sha256="0" * 64), "expected 000", id="tampered"),
        pytest.param(lambda _folder, wheel: wheel.update(version="13.0.89"), "13.0.89 is missing", id="another-version"),
        pytest.param(
            lambda folder, wheel: wheel.update(write_wheel(folder, {"nvidia/cu13/../../etc/x": ELF})),
            "would lie outside the folder",
            id="path-outside",
        ),
    ],
)
def test_nothing_is_left_of_wheels_that_are_refused(unpack, source, tmp_path, break_it, words):
    wheel = write_wheel(source)
    break_it(source, wheel)
    status, result = unpack([wheel])
    assert status == 1
    assert words in result["msg"]
    assert [path.name for path in tmp_path.iterdir()] == ["wheels"]


def test_a_broken_archive_is_told(unpack, source, tmp_path):
    path = source / "nvidia_cuda_nvcc-13.0.88-py3-none-any.whl"
    path.write_bytes(b"no archive")
    wheel = {"name": "nvidia-cuda-nvcc", "version": "13.0.88", "sha256": hashlib.sha256(b"no archive").hexdigest()}
    status, result = unpack([wheel])
    assert (status, "could not be made" in result["msg"], (tmp_path / "13.0.2").exists()) == (1, True, False)


def test_the_wheel_of_this_architecture_is_taken(source):
    mine = write_wheel(source)
    write_wheel(source, {"nvidia/cu13/bin/nvcc": b"other"}, "nvidia_cuda_nvcc-13.0.88-py3-none-manylinux2014_aarch64.whl")
    assert [os.path.basename(path) for path in _wheels.find(str(source), [mine])] == [
        "nvidia_cuda_nvcc-13.0.88-py3-none-manylinux2014_x86_64.whl"
    ]
