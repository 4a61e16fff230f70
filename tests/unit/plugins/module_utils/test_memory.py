# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's memory from the texts and tables that hosts have."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.onprem.llamacpp.plugins.module_utils import _dmi, _memory

GB = 10**9
GIB = 2**30

MEMINFO = """MemTotal:       65812448 kB
MemFree:               1 kB
MemAvailable:   60000000 kB
SwapTotal:          1024 kB
HugePages_Total:     512
Hugepagesize:       2048 kB
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            MEMINFO,
            {"total": 65812448 * 1024, "available": 60000000 * 1024, "swap_total": 2**20, "huge_pages": GIB},
            id="pages of the default size",
        ),
        # 512 of 2 MiB and 4 of 1 GiB.
        pytest.param(
            "HugePages_Total:     512\nHugepagesize:       2048 kB\nHugetlb:         5242880 kB\n", {"huge_pages": 5 * GIB}, id="all sizes"
        ),
        pytest.param("", {"total": 0, "available": 0, "swap_total": 0, "huge_pages": 0}, id="nothing"),
    ],
)
def test_amounts_are_bytes(text: str, expected: dict[str, int]) -> None:
    found = _memory.parse_meminfo(text)
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("files", "first", "expected"),
    [
        pytest.param({}, "0::/init.scope\n", None, id="no limits"),
        pytest.param({"memory.max": "max\n", "system.slice/memory.max": "max\n"}, "0::/init.scope\n", None, id="version 2 without limits"),
        pytest.param({"memory.max": f"{64 * GIB}\n"}, "0::/\n", 64 * GIB, id="container"),
        pytest.param(
            {"memory.max": f"{64 * GIB}\n", "system.slice/memory.max": f"{48 * GIB}\n"}, "0::/\n", 48 * GIB, id="the least counts"
        ),
        pytest.param({"user.slice/memory.max": f"{GIB}\n"}, "0::/\n", None, id="limits of sessions do not count"),
        pytest.param({"memory/memory.limit_in_bytes": "9223372036854771712\n"}, "4:memory:/\n", None, id="version 1 without limits"),
        pytest.param({"memory/docker/c1/memory.limit_in_bytes": f"{8 * GIB}\n"}, "4:cpuset,memory:/docker/c1\n", 8 * GIB, id="version 1"),
        pytest.param({"unified/lxc/memory.max": f"{8 * GIB}\n"}, "4:memory:/\n0::/lxc/init.scope\n", 8 * GIB, id="hybrid"),
        pytest.param({"memory.max": "nonsense\n"}, "nonsense\n", None, id="broken"),
    ],
)
def test_limit_of_control_groups(tmp_path: Path, files: dict[str, str], first: str, expected: int | None) -> None:
    for name, text in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "proc/1").mkdir(parents=True)
    (tmp_path / "proc/1/cgroup").write_text(first)
    assert _memory.cgroup_limit(str(tmp_path / "cgroup"), str(tmp_path / "proc")) == expected


def module(locator: str, bank: str = "", gib: int = 32, speed: int = 4800, configured: int | None = None, width: int = 64) -> bytes:
    """A structure of type 17 as SMBIOS 3.2 lays it out."""
    size = 0 if gib == 0 else 0x7FFF if gib >= 32 else gib * 1024
    area = bytearray(0x5C)
    area[0:4] = struct.pack("<BBH", 17, len(area), 0x1100)
    area[0x08:0x0E] = struct.pack("<HHH", width, width, size)
    area[0x10:0x12] = bytes((1, 2 if bank else 0))
    area[0x15:0x17] = struct.pack("<H", speed)
    area[0x1C:0x22] = struct.pack("<IH", gib * 1024, speed if configured is None else configured)
    return bytes(area) + b"\0".join(name.encode() for name in (locator, bank) if name) + b"\0\0"


def tables(*modules: bytes) -> bytes:
    other = struct.pack("<BBH", 16, 4, 0x1000) + b"\0\0"
    return other + b"".join(modules) + struct.pack("<BBH", 127, 4, 0x7F00) + b"\0\0"


@pytest.mark.parametrize(
    ("modules", "expected"),
    [
        pytest.param([module(f"CPU{cpu}_DIMM_{channel}1") for cpu in (1, 2) for channel in "ABCDEFGH"], 16 * 8 * 4800, id="two sockets"),
        pytest.param([module("DIMM 0", f"P0 CHANNEL {channel}") for channel in "ABCDEFGHIJKL"], 12 * 8 * 4800, id="twelve channels"),
        pytest.param([module(f"P0_Node0_Channel{n // 2}_Dimm{n % 2}") for n in range(12)], 6 * 8 * 4800, id="two modules on a channel"),
        pytest.param([module(f"ChannelA-DIMM{n}", speed=3200) for n in range(2)], 8 * 3200, id="one channel only"),
        pytest.param([module(f"Controller{n}-ChannelA-DIMM0", speed=6000) for n in range(2)], 2 * 8 * 6000, id="two controllers"),
        pytest.param([module(f"DIMM_P{cpu}_{channel}0") for cpu in (0, 1) for channel in "AB"], 4 * 8 * 4800, id="processor in the name"),
        pytest.param([module("P1-DIMMA1"), module("P1-DIMMB1", gib=0)], 8 * 4800, id="empty socket"),
        pytest.param([module("DIMM_A1", configured=4000), module("DIMM_B1")], 2 * 8 * 4000, id="run slower than it could"),
        pytest.param([module("DIMM_A1", gib=8, configured=0)], 8 * 4800, id="small, only its own speed known"),
        pytest.param([module("DIMM_A1", width=0xFFFF)], 8 * 4800, id="width not told"),
        pytest.param([module("A1"), module("B1")], 0, id="names that do not tell"),
        pytest.param([module("DIMM_A1", speed=0, configured=0)], 0, id="no speed, as in a virtual machine"),
        pytest.param([], 0, id="no modules"),
    ],
)
def test_bandwidth_by_the_tables(modules: list[bytes], expected: int) -> None:
    assert _dmi.bandwidth(_dmi.modules(tables(*modules))) == expected * 10**6


@pytest.mark.parametrize("cut", range(0, 130, 13))
def test_cut_tables_end_where_they_break(cut: int) -> None:
    whole = tables(module("DIMM_A1"), module("DIMM_B1"))
    assert _dmi.bandwidth(_dmi.modules(whole[:cut])) in (0, 8 * 4800 * 10**6)


def test_size_of_modules() -> None:
    assert [entry.size for entry in _dmi.modules(tables(module("DIMM_A1", gib=8), module("DIMM_B1", gib=64)))] == [8 * GIB, 64 * GIB]


def cpu(model: str, sockets: int = 1, cores: int = 64, flags: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"model": model, "sockets": sockets, "cores": cores, "flags": list(flags)}


EPYC = cpu("AMD EPYC 9654 96-Core Processor", 2, 192, ("avx512_bf16",))


@pytest.mark.parametrize(
    ("processor", "expected"),
    [
        pytest.param(EPYC, 500 * GB, id="two sockets of a new server"),
        pytest.param(cpu("Intel(R) Xeon(R) Platinum 8280 CPU @ 2.70GHz", 2), 240 * GB, id="two sockets of an older one"),
        pytest.param(cpu("13th Gen Intel(R) Core(TM) i9-13900K", cores=24), 50 * GB, id="desktop"),
        pytest.param(cpu("AMD EPYC 9654 96-Core Processor", cores=2, flags=("avx512_bf16",)), 24 * GB, id="two cores of a server"),
        pytest.param(cpu("", 0, 0), 12 * GB, id="nothing known"),
    ],
)
def test_bandwidth_by_class(processor: dict[str, Any], expected: int) -> None:
    assert _memory.class_bandwidth(processor) == expected


@pytest.mark.parametrize(
    ("smbios", "measured", "expected"),
    [
        pytest.param(tables(module("DIMM_A1")), 111, (111, "measured"), id="a measurement that was asked for"),
        pytest.param(tables(module("DIMM_A1")), None, (38400 * 10**6, "dmi"), id="tables"),
        pytest.param(b"", None, (500 * GB, "class"), id="class"),
    ],
)
def test_basis_of_the_bandwidth(smbios: bytes, measured: int | None, expected: tuple[int, str]) -> None:
    assert tuple(_memory.bandwidth(EPYC, smbios, measured).values()) == expected


def test_nodes_are_in_order_with_their_memory(tmp_path: Path) -> None:
    for node in (0, 10, 2):
        (tmp_path / f"node{node}").mkdir()
        (tmp_path / f"node{node}/cpulist").write_text(f"{node}-{node + 1}\n")
        (tmp_path / f"node{node}/meminfo").write_text(f"Node {node} MemTotal:       1024 kB\n")
    assert [(entry["id"], entry["cpus"], entry["memory"]) for entry in _memory.numa_nodes(str(tmp_path))] == [
        (0, "0-1", 2**20),
        (2, "2-3", 2**20),
        (10, "10-11", 2**20),
    ]
