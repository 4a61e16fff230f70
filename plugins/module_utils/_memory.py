# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's memory: how much, what limits it, and how fast it is. Sizes are bytes, speeds bytes per second."""

from __future__ import annotations

import glob
import os
import re
from typing import Any, Optional

from ansible_collections.onprem.llamacpp.plugins.module_utils import _dmi
from ansible_collections.onprem.llamacpp.plugins.module_utils._host import read_text

KIB = 1024
GB = 10**9

# Our servers run below these control groups, whatever the session is that asks.
GROUPS = ("system.slice", "system.slice/system-llamacpp.slice")
# What version 1 shows where there is no limit: the largest number of whole pages.
_NO_LIMIT = 2**62

_SERVERS = re.compile(r"EPYC|Xeon|Threadripper PRO|Ampere|Altra|Neoverse|Graviton|Grace|Power(9|10)", re.IGNORECASE)
# A core does not read faster than this, however wide the memory is; matters in small virtual machines.
_PER_CORE = 12 * GB


def parse_meminfo(text: str) -> dict[str, int]:
    """Memory that the kernel manages, what is available of it, swap and huge pages, from the text of ``/proc/meminfo``."""
    found = {key: int(value) for key, value in re.findall(r"^(\w+):\s+(\d+)", text, re.MULTILINE)}
    # Kernels before 4.19 tell only of huge pages of the default size.
    huge = found.get("Hugetlb", found.get("HugePages_Total", 0) * found.get("Hugepagesize", 0))
    return {
        "total": found.get("MemTotal", 0) * KIB,
        "available": found.get("MemAvailable", 0) * KIB,
        "swap_total": found.get("SwapTotal", 0) * KIB,
        "huge_pages": huge * KIB,
    }


def _with_parents(path: str) -> list[str]:
    parts = [part for part in path.split("/") if part]
    return ["/".join(parts[:count]) for count in range(len(parts) + 1)]


def cgroup_limit(root: str = "/sys/fs/cgroup", proc: str = "/proc") -> Optional[int]:
    """The least memory limit that a system service would live under; None where there is none.

    Looked at are the root of the hierarchy (which has a limit in a container), the slices of our servers, and the groups
    that the first process is in. Version 2, version 1 and both at once (hybrid).
    """
    first = {"": "", "memory": ""}
    for line in read_text(os.path.join(proc, "1", "cgroup")).splitlines():
        fields = line.split(":", 2)
        if len(fields) == 3:
            first.update(dict.fromkeys(fields[1].split(","), fields[2]))
    limits = []
    for base, name, path in (
        (root, "memory.max", first[""]),
        (os.path.join(root, "unified"), "memory.max", first[""]),
        (os.path.join(root, "memory"), "memory.limit_in_bytes", first["memory"]),
    ):
        for group in {*_with_parents(path), *GROUPS}:
            text = read_text(os.path.join(base, group, name)).strip()
            if text.isdigit() and int(text) < _NO_LIMIT:
                limits.append(int(text))
    return min(limits) if limits else None


def class_bandwidth(cpu: dict[str, Any]) -> int:
    """A default by the class of the processor, for hosts of which nothing better is known.

    For each socket: 250 GB/s for servers with DDR5 (known by instructions that came with it), 120 GB/s for other servers,
    50 GB/s for everything else (two channels of DDR4-3200); and no more than 12 GB/s for each core.
    """
    server = _SERVERS.search(cpu["model"])
    newer = {"amx_tile", "avx512_bf16", "sve2"} & set(cpu["flags"])
    socket = 250 * GB if server and newer else 120 * GB if server else 50 * GB
    return min(socket * max(1, cpu["sockets"]), _PER_CORE * max(1, cpu["cores"]))


def bandwidth(cpu: dict[str, Any], tables: bytes, measured: Optional[int] = None) -> dict[str, Any]:
    """How fast the memory is and how that is known: measured when that was asked, else the peak by SMBIOS, else by class."""
    if measured:
        return {"bytes_per_second": measured, "basis": "measured"}
    peak = _dmi.bandwidth(_dmi.modules(tables))
    if peak:
        return {"bytes_per_second": peak, "basis": "dmi"}
    return {"bytes_per_second": class_bandwidth(cpu), "basis": "class"}


def numa_nodes(root: str = "/sys/devices/system/node") -> list[dict[str, Any]]:
    """The host's NUMA nodes with their processors and memory."""
    nodes = []
    for folder in sorted(glob.glob(os.path.join(root, "node[0-9]*")), key=lambda path: int(path.rsplit("node", 1)[1])):
        total = re.search(r"MemTotal:\s+(\d+) kB", read_text(os.path.join(folder, "meminfo")))
        nodes.append(
            {
                "id": int(folder.rsplit("node", 1)[1]),
                "cpus": read_text(os.path.join(folder, "cpulist")).strip(),
                "memory": int(total.group(1)) * KIB if total else 0,
            }
        )
    return nodes
