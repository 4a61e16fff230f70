# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts read from texts and folders as hosts have them."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.onprem.llamacpp.plugins.module_utils import _hardware

MIB = 2**20
UUID = "GPU-6ee1a3b4-5b57-9c38-6a6e-0d4f2f3a9e11"
# Written from nvidia-smi's documentation, not captured: no test machine has a device.
T4_ROW = f"0, {UUID}, Tesla T4, 15360, 00000000:00:1E.0, 550.163.01, 7.5\n"


@pytest.mark.parametrize(
    ("text", "family", "platform"),
    [
        ('ID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n', "debian", "debian-12"),
        ("ID=debian\nVERSION_CODENAME=forky\n", "debian", "debian-forky"),
        ('ID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"\n', "debian", "ubuntu-24.04"),
        ('ID="almalinux"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.4"\n', "redhat", "almalinux-9.4"),
        ("ID=void\n", "other", "void-unknown"),
    ],
    ids=["bookworm", "testing without a number", "ubuntu", "el", "other"],
)
def test_distribution(text: str, family: str, platform: str) -> None:
    facts = _hardware.parse_os_release(text)
    assert facts["family"] == family
    assert _hardware.platform_name(facts) == platform


def test_memory_is_in_bytes() -> None:
    assert _hardware.parse_meminfo("MemTotal:       65812448 kB\nMemFree: 1 kB\nSwapTotal:  1024 kB\n") == {
        "total": 65812448 * 1024,
        "swap_total": 1024 * 1024,
    }
    assert _hardware.parse_meminfo("") == {"total": 0, "swap_total": 0}


def test_cores_are_counted_once_for_their_threads() -> None:
    block = "processor : {}\nmodel name : EPYC\nphysical id : {}\ncore id : {}\nflags : fpu avx2 avx512f sse4_2\n\n"
    text = "".join(block.format(n, n // 4, n % 2) for n in range(8))
    facts = _hardware.parse_cpuinfo(text)
    assert (facts["threads"], facts["cores"], facts["flags"]) == (8, 4, ["avx2", "avx512f", "sse4_2"])


def answers(**texts: Any) -> _hardware.Run:
    def run(argv: list[str]) -> tuple[int, str, str]:
        for key, (status, out, err) in texts.items():
            if key in argv[1].replace("-", "_"):
                return status, out, err
        return 0, "", ""

    return run


def test_device_with_a_stranger_and_our_own_server() -> None:
    apps = f"{UUID}, 100, 3000\n{UUID}, 200, 512\n"
    devices, warnings = _hardware.nvidia_devices(
        answers(query_gpu=(0, T4_ROW, ""), query_compute=(0, apps, "")), ours=lambda pid: pid == 100
    )
    assert warnings == []
    assert [(entry["uuid"], entry["total"], entry["foreign"], entry["compute_capability"]) for entry in devices] == [
        (UUID, 15360 * MIB, 512 * MIB, "7.5")
    ]


@pytest.mark.parametrize(
    ("texts", "count", "warning"),
    [
        pytest.param({"query_gpu": (127, "", "nvidia-smi: No such file")}, 0, "", id="no tool, no device, nothing to warn of"),
        pytest.param({"query_gpu": (124, "", "nvidia-smi did not answer within 20 s")}, 0, "did not answer", id="hangs"),
        pytest.param(
            {"query_gpu": (9, "NVIDIA-SMI has failed because it couldn't communicate", "")}, 0, "couldn't communicate", id="no driver"
        ),
        pytest.param({"query_gpu": (0, "", "")}, 0, "lists no device", id="driver without a device"),
        pytest.param({"query_gpu": (0, "0, GPU-1, NVIDIA GB10, [N/A], 1, 580.95, 12.1\n", "")}, 1, "", id="memory shared with the host"),
        pytest.param(
            {"query_gpu": (0, T4_ROW, ""), "query_compute": (6, "", "unknown error")}, 1, "unknown error", id="processes unreadable"
        ),
    ],
)
def test_a_broken_tool_is_a_warning(texts: dict[str, Any], count: int, warning: str) -> None:
    devices, warnings = _hardware.nvidia_devices(answers(**texts))
    assert len(devices) == count
    assert warning in " ".join(warnings)
    assert bool(warnings) == bool(warning)


def test_a_driver_that_does_not_know_the_compute_capability_is_asked_without() -> None:
    def run(argv: list[str]) -> tuple[int, str, str]:
        if "compute_cap" in argv[1]:
            return 2, 'Field "compute_cap" is not a valid field to query.', ""
        return (0, T4_ROW.replace(", 7.5", ""), "") if "query-gpu" in argv[1] else (0, "", "")

    devices, warnings = _hardware.nvidia_devices(run)
    assert (devices[0]["name"], devices[0]["compute_capability"], warnings) == ("Tesla T4", "", [])


def test_a_tool_that_hangs_is_given_up() -> None:
    started = time.monotonic()
    status, _out, err = _hardware.run_command(["sleep", "60"], timeout=0.2)
    assert status == 124 and "did not answer" in err
    assert time.monotonic() - started < 30


def test_engine_devices() -> None:
    text = "Available devices:\n  RPC0: 127.0.0.1:50052 (24105 MiB, 20000 MiB free)\n"
    text += "  Vulkan0: llvmpipe (LLVM 19, 256 bits) (24105 MiB, 1 MiB free)\n"
    found = _hardware.engine_devices(text, "rpc")
    assert [(entry["engine_name"], entry["total"]) for entry in found] == [("RPC0", 24105 * MIB), ("Vulkan0", 24105 * MIB)]
    assert _hardware.engine_devices("Available devices:\n  (none)\n", "rpc") == []


def test_device_of_an_rpc_server_that_is_busy_with_our_own_server() -> None:
    device = {"uuid": "RPC0", "kind": "rpc", "engine_name": "RPC0", "name": "127.0.0.1:50052", "total": 24105 * MIB, "foreign": 0}
    instance = {"active": "active", "plan": {"engine_backend": "rpc", "devices": [{**device, "capacity": 1}]}}
    assert _hardware.devices_in_use([instance]) == [device]
    assert _hardware.devices_in_use([{**instance, "active": "failed"}]) == []


def test_the_engine_in_use_is_asked_before_a_newer_one() -> None:
    asked = []

    def run(argv: list[str]) -> tuple[int, str, str]:
        asked.append(argv[0])
        return 0, "Available devices:\n  (none)\n", "no Vulkan driver\n"

    programs = {"programs": {"llama-server": "bin/llama-server"}, "backend": "vulkan"}
    engines = [
        {"build_id": "b2", "path": "/r/b2", "intact": True, "build": {**programs, "number": 2}},
        {"build_id": "b3", "path": "/r/b3", "intact": True, "build": {**programs, "number": 3}},
        {"build_id": "b4", "path": "/r/b4", "intact": False, "build": {**programs, "number": 4}},
    ]
    devices, warnings = _hardware.list_devices("vulkan", engines, [{"document": {"build_id": "b2"}}], None, run)
    assert (asked, devices) == (["/r/b2/bin/llama-server"], [])
    assert warnings == ["/r/b2/bin/llama-server --list-devices shows no device: no Vulkan driver"]


def test_disk_of_a_path_that_is_not_there_yet(tmp_path: Path) -> None:
    mounts = f"dev / ext4 rw 0 0\ndev2 {tmp_path} xfs rw 0 0\ndev3 {tmp_path}/other tmpfs rw 0 0\n"
    found = _hardware.disk(f"{tmp_path}/not/there", mounts)
    assert (found["mount"], found["filesystem"], found["path"]) == (str(tmp_path), "xfs", f"{tmp_path}/not/there")
    assert 0 < found["free"] <= found["total"]


def test_listener_is_named() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        found = _hardware.listeners([port])
    assert [(entry["address"], entry["port"], entry["pid"]) for entry in found] == [("127.0.0.1", port, os.getpid())]
    assert found[0]["program"]
    assert _hardware.listeners([port]) == []


def publish(root: Path, size: int) -> None:
    folder = root / "org--tiny" / ("a" * 40) / "Q2_K"
    folder.mkdir(parents=True)
    (folder / "tiny.gguf").write_bytes(b"x" * size)
    files = [{"path": "tiny.gguf", "name": "tiny.gguf", "size": 10, "sha256": "0" * 64}]
    (folder / "manifest.json").write_text(
        json.dumps({"repo_id": "org/tiny", "commit": "a" * 40, "quant": "Q2_K", "files": files, "bytes": 10})
    )


@pytest.mark.parametrize(("size", "complete"), [(10, True), (9, False)])
def test_model_is_complete_when_every_size_is_right(tmp_path: Path, size: int, complete: bool) -> None:
    publish(tmp_path, size)
    (tmp_path / "org--broken" / "c" / "q").mkdir(parents=True)
    (tmp_path / "org--broken" / "c" / "q" / "manifest.json").write_text("{nonsense")
    found = _hardware.models(str(tmp_path))
    assert [(entry["repo_id"], entry["quant"], entry["complete"]) for entry in found] == [("org/tiny", "Q2_K", complete)]


def test_bytes_of_a_download_under_way_are_counted(tmp_path: Path) -> None:
    staging = tmp_path / "org--tiny" / ("a" * 40) / ".UD-Q2_K_XL.staging"
    staging.mkdir(parents=True)
    (staging / "one.gguf.part").write_bytes(b"x" * 1000)
    expected = {"repo_id": "org/tiny", "commit": "a" * 40, "quant": "UD-Q2_K_XL", "bytes": 1000}
    assert _hardware.partial_models(str(tmp_path)) == [expected]
    assert _hardware.models(str(tmp_path)) == []


@pytest.mark.parametrize(
    ("installed", "intact"),
    [
        ("llama.cpp-tools 0.7.0-1 hold\n", True),
        ("llama.cpp-tools 0.7.0-1 install\n", False),
        ("llama.cpp-tools 0.8.0-1 hold\n", False),
    ],
    ids=["as built and held", "hold gone", "another version"],
)
def test_packaged_engine_is_intact_while_its_package_is(tmp_path: Path, installed: str, intact: bool) -> None:
    release = tmp_path / "releases" / "b11669-cpu-x86_64-12345678"
    (release / "bin").mkdir(parents=True)
    (release / "bin/llama-server").write_text("#!/bin/sh\n")
    (release / "bin/llama-server").chmod(0o755)
    build = {"build_id": release.name, "programs": {"llama-server": "bin/llama-server"}, "packages": {"llama.cpp-tools": "0.7.0-1"}}
    (release / "build.json").write_text(json.dumps(build))
    found = _hardware.engines(str(tmp_path), lambda argv: (0, installed, ""))
    assert [entry["intact"] for entry in found] == [intact]


def test_release_without_its_program_is_not_intact(tmp_path: Path) -> None:
    release = tmp_path / "releases" / "b1-cpu-x-1"
    release.mkdir(parents=True)
    (release / "build.json").write_text(json.dumps({"build_id": release.name, "programs": {"llama-server": "bin/llama-server"}}))
    assert [entry["intact"] for entry in _hardware.engines(str(tmp_path))] == [False]


def test_this_machine() -> None:
    facts = _hardware.collect(["/var/lib/llamacpp/models"], [1], engine_root="/nonexistent", model_root="/nonexistent")
    assert facts["memory"]["total"] > 0 and facts["cpu"]["threads"] > 0 and facts["disks"][0]["total"] > 0
    json.dumps(facts)
