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


def test_this_machine() -> None:
    facts = _hardware.collect(["/var/lib/llamacpp/models"], [1], engine_root="/nonexistent", model_root="/nonexistent")
    assert facts["memory"]["total"] > 0 and facts["cpu"]["threads"] > 0 and facts["disks"][0]["total"] > 0
    json.dumps(facts)
