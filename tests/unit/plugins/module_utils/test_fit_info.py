# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asking an engine through stubs; the engine is a script that answers as llama-fit-params does."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from ansible_collections.onprem.llamacpp.plugins.module_utils import _fit_info
from ansible_collections.onprem.llamacpp.plugins.module_utils._memory_model import Setup

MIB = 2**20
ANSWER = "echo '0.00.007 I llama_fit_params: printing' >&2; echo 'RPC0 11153 1098 392'; echo 'Host 1190 0 252'"


def program(folder: Path, script: str) -> str:
    path = folder / "llama-fit-params"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    for parent in (folder, *folder.parents[:3]):
        parent.chmod(parent.stat().st_mode | stat.S_IXOTH)
    return str(path)


def engine(folder: Path, script: str = ANSWER, **environment: str) -> _fit_info.Engine:
    return _fit_info.Engine(program(folder, script), environment, "/", 5)


def test_stubs_have_the_size_of_the_shards_and_hold_nothing_else(tmp_path):
    files = []
    for number, size in ((1, 40 * 10**9), (2, 30 * 10**9)):
        header = tmp_path / f"header-{number}"
        header.write_bytes(b"GGUF" + bytes(1000 * number))
        files.append({"path": f"Q/Model-Q-0000{number}-of-00002.gguf", "size": size, "header": str(header)})
    archive, folder = tmp_path / "headers.zip", tmp_path / "stubs"
    folder.mkdir()
    _fit_info.pack(files, str(archive))
    first = _fit_info.unpack(str(archive), str(folder))
    assert first == str(folder / "Model-Q-00001-of-00002.gguf")
    assert [(folder / name).stat().st_size for name in sorted(os.listdir(folder))] == [40 * 10**9, 30 * 10**9]
    with Path(first).open("rb") as stub:
        assert stub.read(1005) == b"GGUF" + bytes(1001)
    assert sum(entry.stat().st_blocks * 512 for entry in folder.iterdir()) < MIB


def test_names_in_an_archive_cannot_leave_the_folder(tmp_path):
    header = tmp_path / "header"
    header.write_bytes(b"GGUF")
    _fit_info.pack([{"path": "../../outside.gguf", "size": 10, "header": str(header)}], str(tmp_path / "headers.zip"))
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    assert _fit_info.unpack(str(tmp_path / "headers.zip"), str(folder)) == str(folder / "outside.gguf")


def test_the_private_folder_is_gone_even_after_a_failure(tmp_path):
    with pytest.raises(RuntimeError), _fit_info.private_folder(str(tmp_path)) as folder:
        assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
        raise RuntimeError
    assert os.listdir(tmp_path) == []


def test_figures_are_read_in_the_order_of_the_devices(tmp_path):
    found = engine(tmp_path, "echo 'CUDA1 2 2 2'; echo 'CUDA0 1 1 1'; echo 'Host 5 0 5'").ask("/x", Setup(4096), ["CUDA0", "CUDA1"])
    assert found == [{part: size * MIB for part in ("weights", "context", "compute")} for size in (1, 2)]


@pytest.mark.parametrize(
    ("setup", "expected"),
    [
        pytest.param(Setup(4096, n_gpu_layers=999), {"LLAMA_ARG_N_GPU_LAYERS": "999"}, id="everything"),
        pytest.param(
            Setup(4096, n_gpu_layers=999, n_cpu_moe=7, tensor_split=[40.0, 22.0]),
            {"LLAMA_ARG_N_GPU_LAYERS": "999", "LLAMA_ARG_N_CPU_MOE": "7", "LLAMA_ARG_TENSOR_SPLIT": "40,22"},
            id="some experts on the host, two devices",
        ),
        pytest.param(
            Setup(4096, n_gpu_layers=9, n_cpu_moe="all"), {"LLAMA_ARG_N_GPU_LAYERS": "9", "LLAMA_ARG_CPU_MOE": "1"}, id="all experts"
        ),
    ],
)
def test_the_placement_is_told_in_the_environment(tmp_path, setup, expected):
    told = engine(
        tmp_path,
        f"env | grep LLAMA_ARG_ > {tmp_path}/told; {ANSWER}",
        LLAMA_ARG_CTX_SIZE="4096",
        LLAMA_ARG_N_CPU_MOE="99",
        LLAMA_ARG_MODEL="/gone",
    )
    tmp_path.chmod(0o777)
    told.ask("/x", setup, ["RPC0"])
    found = dict(line.split("=", 1) for line in (tmp_path / "told").read_text().splitlines())
    assert found == {"LLAMA_ARG_CTX_SIZE": "4096", **expected}


@pytest.mark.parametrize(
    ("script", "message"),
    [
        pytest.param("echo 'error: no such model' >&2; exit 1", "error: no such model", id="it fails"),
        pytest.param("exit 0", "no message", id="it says nothing"),
        pytest.param("echo 'RPC7 1 1 1'", "says nothing of RPC0: it sees RPC7", id="other devices"),
        pytest.param("sleep 30", "did not answer within", id="it hangs"),
    ],
)
def test_an_engine_that_cannot_be_asked_is_one_sentence(tmp_path, script, message):
    asked = engine(tmp_path, script)
    asked.timeout = 0.5
    with pytest.raises(_fit_info.FitError, match=message):
        asked.ask("/x", Setup(4096), ["RPC0"])


def test_an_engine_without_the_program_is_one_sentence():
    with pytest.raises(_fit_info.FitError, match="cannot be run: No such file"):
        _fit_info.Engine("/nowhere/llama-fit-params", {}, "/", 5).ask("/x", Setup(4096), ["RPC0"])


def test_the_module_tells_why_it_could_not_ask(run_module, shape_models, tmp_path):
    status, result = run_module(
        "llama_fit_info",
        engine="/nowhere",
        header=shape_models["llama"].header,
        model="/x",
        placement={"ctx_size": 4096, "n_gpu_layers": 999},
        devices=[{"engine_name": "RPC0", "capacity": 2**34}],
        work_root=str(tmp_path),
    )
    assert status == 0
    assert not result["asked"]
    assert "/nowhere/bin/llama-fit-params cannot be run" in result["reason"]
    assert os.listdir(tmp_path) == []


def test_the_module_returns_a_placement(run_module, shape_models, tmp_path):
    release = tmp_path / "release"
    (release / "bin").mkdir(parents=True)
    program(release / "bin", "echo 'RPC0 9000 1000 400'")
    status, result = run_module(
        "llama_fit_info",
        engine=str(release),
        header=shape_models["kimi-linear"].header,
        model="/x",
        placement={"ctx_size": 131072, "n_gpu_layers": 999, "n_cpu_moe": "all"},
        devices=[{"uuid": "u", "engine_name": "RPC0", "capacity": 12 * 2**30}],
        work_root=str(tmp_path),
    )
    assert status == 0, result
    assert result["asked"] and result["fits"]
    assert result["devices"] == [{"uuid": "u", "engine_name": "RPC0", "weights": 9000 * MIB, "context": 1000 * MIB, "compute": 400 * MIB}]
    assert set(result["placement"]) == {"n_gpu_layers", "n_cpu_moe", "tensor_split"}
