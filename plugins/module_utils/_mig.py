# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""GPUs that are divided into instances (MIG): which there are, their memory, and the programs on them.

``nvidia-smi -L`` has the instances' UUIDs, its XML report their memory and programs; the list of programs that
``--query-compute-apps`` gives names the whole GPU only.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import Any, Optional

from ansible_collections.onprem.llamacpp.plugins.module_utils._host import Run

MIB = 2**20

# UUID of the device, PID, name, bytes or None where the driver does not tell.
Process = tuple[str, int, str, Optional[int]]

_GPU = re.compile(r"GPU \d+: .*\(UUID: (GPU-[^)]+)\)")
_INSTANCE = re.compile(r"MIG (\S+)\s+Device\s+(\d+): \(UUID: (MIG-[^)]+)\)")


def parse_list(text: str) -> dict[str, dict[int, tuple[str, str]]]:
    """Profile and UUID of the instances of every GPU, by the GPU's UUID and their index, from ``nvidia-smi -L``."""
    gpus: dict[str, dict[int, tuple[str, str]]] = {}
    instances: dict[int, tuple[str, str]] = {}
    for line in text.splitlines():
        gpu, instance = _GPU.search(line), _INSTANCE.search(line)
        if gpu:
            instances = gpus.setdefault(gpu[1], {})
        elif instance:
            instances[int(instance[2])] = (instance[1], instance[3])
    return gpus


def _mebibytes(text: Optional[str]) -> Optional[int]:
    found = re.match(r"(\d+) MiB$", (text or "").strip())
    return int(found[1]) * MIB if found else None


def parse_report(text: str) -> tuple[dict[str, dict[int, tuple[int, str]]], list[tuple[str, str, int, str, Optional[int]]]]:
    """Memory and GPU instance of each MIG device by GPU and index, and programs as (GPU, GPU instance, PID, name, bytes).

    Raises:
        ValueError: the text is no XML report.
    """
    try:
        root = ET.fromstring(text)  # noqa: S314 - the report of a tool that root installed; expat loads no external entity
    except ET.ParseError as error:
        raise ValueError(str(error)) from error
    memory: dict[str, dict[int, tuple[int, str]]] = {}
    programs = []
    for gpu in root.iter("gpu"):
        uuid = (gpu.findtext("uuid") or "").strip()
        for entry in gpu.iter("mig_device"):
            index, total = entry.findtext("index"), _mebibytes(entry.findtext("fb_memory_usage/total"))
            if index and index.strip().isdigit() and total:
                memory.setdefault(uuid, {})[int(index)] = (total, (entry.findtext("gpu_instance_id") or "").strip())
        for entry in gpu.iter("process_info"):
            pid = (entry.findtext("pid") or "").strip()
            if pid.isdigit():
                where = (entry.findtext("gpu_instance_id") or "").strip()
                name = (entry.findtext("process_name") or "").strip()
                programs.append((uuid, where, int(pid), name, _mebibytes(entry.findtext("used_memory"))))
    return memory, programs


def _instances(
    gpu: dict[str, Any], listed: dict[int, tuple[str, str]], memory: dict[int, tuple[int, str]]
) -> tuple[list[dict[str, Any]], dict[str, str], list[str]]:
    """The instances of one GPU as devices, their UUIDs by GPU instance, and warnings."""
    devices: list[dict[str, Any]] = []
    uuids: dict[str, str] = {}
    warnings = []
    for index, (profile, uuid) in sorted(listed.items()):
        if index not in memory:
            warnings.append(f"MIG instance {uuid} does not tell its memory: not planned")
            continue
        total, instance = memory[index]
        if instance in uuids:
            warnings.append(f"MIG instance {uuid} shares its memory with {uuids[instance]}: not planned")
            continue
        uuids[instance] = uuid
        share = gpu["bandwidth"] * total // gpu["total"] if gpu["total"] else 0
        named = {"uuid": uuid, "name": f"{gpu['name']} MIG {profile}", "total": total, "bandwidth": share}
        devices.append({**gpu, **named, "mig_parent": gpu["uuid"], "processes": []})
    if not devices:
        warnings.append(f"GPU {gpu['pci_address']} ({gpu['name']}) has MIG enabled and no instance to use: not planned")
    return devices, uuids, warnings


def divide(devices: list[dict[str, Any]], divided: set[str], run: Run) -> tuple[list[dict[str, Any]], list[Process], list[str]]:
    """Devices with the instances in the place of the GPUs that are divided, programs on the instances, and warnings."""
    status, listing, err = run(["nvidia-smi", "-L"])
    problem = (err or listing).strip() if status else ""
    status, report, err = run(["nvidia-smi", "-q", "-x"]) if not problem else (0, "", "")
    problem = problem or ((err or report).strip() if status else "")
    memory: dict[str, dict[int, tuple[int, str]]] = {}
    programs: list[tuple[str, str, int, str, Optional[int]]] = []
    if not problem:
        try:
            memory, programs = parse_report(report)
        except ValueError as error:
            problem = f"nvidia-smi -q -x printed no XML ({error})"
    warnings = [f"MIG instances cannot be read: {problem}"] if problem else []
    listed = parse_list(listing)
    found = []
    processes = []
    for gpu in devices:
        if gpu["uuid"] not in divided:
            found.append(gpu)
            continue
        instances, uuids, more = _instances(gpu, listed.get(gpu["uuid"], {}), memory.get(gpu["uuid"], {}))
        found += instances
        warnings += more
        processes += [
            (uuids[where], pid, name, size) for uuid, where, pid, name, size in programs if uuid == gpu["uuid"] and where in uuids
        ]
    return [{**entry, "engine_name": f"CUDA{index}"} for index, entry in enumerate(found)], processes, warnings
