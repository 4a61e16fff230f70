# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NVIDIA devices as ``nvidia-smi`` tells of them. Sizes are bytes; a lost or broken device is a warning, never a device.

Two calls: all fields of all devices, and the programs that hold memory; two more where a device is divided (MIG).
"""

from __future__ import annotations

import csv
import re
from typing import Any, Callable, Optional

from ansible_collections.onprem.llamacpp.plugins.module_utils import _gpu_models, _mig
from ansible_collections.onprem.llamacpp.plugins.module_utils._device import device
from ansible_collections.onprem.llamacpp.plugins.module_utils._host import Run, run_command
from ansible_collections.onprem.llamacpp.plugins.module_utils._pci import address

MIB = 2**20

FIELDS: tuple[str, ...] = (
    *("uuid", "name", "memory.total", "pci.bus_id", "pci.device_id", "driver_version", "compute_cap", "mig.mode.current"),
    *("ecc.mode.current", "power.limit"),
    *("pcie.link.gen.current", "pcie.link.width.current", "pcie.link.gen.max", "pcie.link.width.max"),
)
# Without these a row is no device; the others came with some driver or other and are left out where one does not know them.
NEEDED = frozenset(("uuid", "name", "memory.total", "pci.bus_id"))
PROCESS_FIELDS = "gpu_uuid,pid,process_name,used_memory"

_UNKNOWN_FIELD = re.compile(r'Field "([^"]+)" is not a valid field to query')
_NO_HANDLE = re.compile(r"Unable to determine the device handle for GPU\s*([0-9A-Fa-f:.]+): (.*)")
# Profiles of NVIDIA's virtual GPUs end in the memory and a letter: GRID T4-16Q, NVIDIA A100-40C, NVIDIA A100-4-20C.
_VIRTUAL = re.compile(r"^GRID |\bvGPU\b|-\d+[ABCQ](ME)?$")
# What a device that has no memory of its own prints for it; a broken one prints other words in brackets.
_NO_MEMORY = ("[N/A]", "N/A", "[Not Supported]")


def _query(run: Run, fields: tuple[str, ...]) -> tuple[tuple[str, ...], int, str, str]:
    """Asks for fields, and again without each that the driver does not know: at most once for every one of them."""
    while True:
        status, out, err = run(["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"])
        unknown = _UNKNOWN_FIELD.search(out + err)
        if status in (124, 127) or not unknown or unknown[1] not in fields or unknown[1] in NEEDED:
            return fields, status, out, err
        fields = tuple(field for field in fields if field != unknown[1])


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0


def _watts(text: str) -> Optional[float]:
    return float(text) if re.match(r"\d+(\.\d+)?$", text) else None


def _row(cells: dict[str, str], index: int, host_memory: int) -> tuple[Optional[dict[str, Any]], str]:
    """A device, or why the row is none."""
    where = f"GPU {address(cells['pci.bus_id'])} ({cells['name']})"
    model = _gpu_models.find(cells.get("pci.device_id", "")[2:6], cells["name"])
    memory = cells["memory.total"]
    unified = memory in _NO_MEMORY and (model is None or not model.total)
    if not cells["uuid"].startswith("GPU-"):
        return None, f"{where} has no UUID ({cells['uuid'] or 'empty'}): not planned, check the driver's log (dmesg) and restart the host"
    if not memory.isdigit() and not unified:
        return (
            None,
            f"{where} does not tell its memory ({memory or 'empty'}): not planned, check the driver's log (dmesg) and restart the host",
        )
    ecc = cells.get("ecc.mode.current")
    virtual = bool(_VIRTUAL.search(cells["name"]))
    capability = cells.get("compute_cap", "")
    if not re.match(r"\d+\.\d+$", capability):
        capability = model.compute_capability if model else ""
    return device(
        cells["uuid"],
        "cuda",
        f"CUDA{index}",
        cells["name"],
        host_memory if unified else int(memory) * MIB,
        pci_address=address(cells["pci.bus_id"]),
        driver_version=cells.get("driver_version", ""),
        compute_capability=capability,
        # What a virtual GPU gets of it depends on its neighbours.
        bandwidth=model.bandwidth if model and not virtual else 0,
        unified=unified,
        virtual=virtual,
        ecc={"Enabled": True, "Disabled": False}.get(ecc or ""),
        power_limit=_watts(cells.get("power.limit", "")),
        pcie={
            "generation": _number(cells.get("pcie.link.gen.current", "")),
            "width": _number(cells.get("pcie.link.width.current", "")),
            "max_generation": _number(cells.get("pcie.link.gen.max", "")),
            "max_width": _number(cells.get("pcie.link.width.max", "")),
        },
    ), ""


def parse_rows(text: str, fields: tuple[str, ...], host_memory: int = 0) -> tuple[list[dict[str, Any]], set[str], list[str]]:
    """Devices from ``--query-gpu``'s lines, the UUIDs of those that are divided (MIG), and warnings."""
    devices: list[dict[str, Any]] = []
    divided = set()
    warnings = []
    for line in filter(str.strip, text.splitlines()):
        lost = _NO_HANDLE.search(line)
        row = [cell.strip() for cell in next(csv.reader([line], skipinitialspace=True))]
        if lost:
            warnings.append(f"GPU {address(lost[1])} is lost ({lost[2].strip()}): not planned, restart the host")
        elif len(row) != len(fields):
            warnings.append(f"nvidia-smi printed a line that is no device: {line.strip()}")
        else:
            cells = dict(zip(fields, row))
            found, problem = _row(cells, len(devices), host_memory)
            if found is None:
                warnings.append(problem)
                continue
            devices.append(found)
            if cells.get("mig.mode.current") == "Enabled":
                divided.add(found["uuid"])
    return devices, divided, warnings


def parse_processes(text: str) -> list[_mig.Process]:
    """The programs that ``--query-compute-apps`` lists."""
    found: list[_mig.Process] = []
    for row in csv.reader(text.splitlines(), skipinitialspace=True):
        # A program's own name may have commas in it.
        if len(row) >= 4 and row[1].strip().isdigit():
            used = row[-1].strip()
            name = ", ".join(cell.strip() for cell in row[2:-1])
            found.append((row[0].strip(), int(row[1]), name, int(used) * MIB if used.isdigit() else None))
    return found


def _hold(target: dict[str, Any], pid: int, name: str, size: Optional[int], ours: bool) -> str:
    """Notes a program on the device whose memory it holds; the warning where nobody knows how much."""
    target["processes"].append({"pid": pid, "name": name, "bytes": size or 0, "ours": ours})
    if not ours:
        target["foreign"] += size or 0
    return f"memory that {name} (PID {pid}) holds on {target['engine_name']} is unknown" if size is None and not ours else ""


def devices(
    run: Run = run_command, ours: Callable[[int], bool] = lambda pid: False, host_memory: int = 0
) -> tuple[list[dict[str, Any]], list[str], bool]:
    """NVIDIA devices with the memory that programs hold, warnings, and whether there is a driver that answers.

    Args:
        run: runs a program.
        ours: whether a process is one of our servers.
        host_memory: bytes; what devices without memory of their own share.
    """
    fields, status, out, err = _query(run, FIELDS)
    if status == 127:
        return [], [], False
    text = out if status == 0 else f"{out}\n{err}"
    found, divided, warnings = parse_rows(text, fields, host_memory) if status == 0 or _NO_HANDLE.search(text) else ([], set(), [])
    answers = status == 0 or bool(warnings) or "No devices were found" in text
    if not found:
        if status != 0:
            warnings = warnings or [f"nvidia-smi failed ({status}): {(err or out).strip() or 'no message'}"]
        return [], warnings or ["nvidia-smi lists no device"], answers
    processes: list[_mig.Process] = []
    if divided:
        found, processes, more = _mig.divide(found, divided, run)
        warnings += more
    status, out, err = run(["nvidia-smi", f"--query-compute-apps={PROCESS_FIELDS}", "--format=csv,noheader,nounits"])
    if status != 0:
        warnings.append(f"memory held by other programs is unknown: {(err or out).strip() or f'status {status}'}")
    else:
        processes += parse_processes(out)
    by_uuid = {entry["uuid"]: entry for entry in found}
    for uuid, pid, name, size in processes:
        if uuid in by_uuid:
            warnings.append(_hold(by_uuid[uuid], pid, name, size, ours(pid)))
    return found, [warning for warning in warnings if warning], True
