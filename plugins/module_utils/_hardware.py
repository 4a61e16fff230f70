# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host is made of, read from procfs, sysfs and ``nvidia-smi``.

Every function takes a root folder or a text and returns plain data, so that captured systems can be read in tests.
Sizes are bytes. Nothing here raises for a missing or broken source: a caller gets an empty value and a warning.
"""

from __future__ import annotations

import csv
import glob
import os
import platform
import re
import socket
import struct
from typing import Any, Callable, Optional

from ansible_collections.onprem.llamacpp.plugins.module_utils import _installed
from ansible_collections.onprem.llamacpp.plugins.module_utils._host import Run, read_text, run_command

KIB = 1024
MIB = 1024 * 1024

# What ggml picks kernels by; two hosts that agree on these can share a native build.
CPU_FLAGS = frozenset(
    "sse4_2 avx avx2 avx_vnni f16c fma bmi2 avx512f avx512cd avx512bw avx512dq avx512vl avx512vbmi avx512_vnni avx512_bf16"
    " amx_tile amx_int8 amx_bf16 asimd asimddp asimdhp i8mm sve sve2 bf16 svei8mm sme".split()
)

GPU_FIELDS: tuple[str, ...] = ("index", "uuid", "name", "memory.total", "pci.bus_id", "driver_version", "compute_cap")


def parse_os_release(text: str) -> dict[str, str]:
    """The identity of the distribution from the text of ``os-release``."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        key, separator, value = line.partition("=")
        if separator:
            values[key.strip()] = value.strip().strip("\"'")
    name = values.get("ID", "unknown")
    relatives = {name, *values.get("ID_LIKE", "").split()}
    family = "debian" if relatives & {"debian", "ubuntu"} else "redhat" if relatives & {"rhel", "fedora", "centos"} else "other"
    return {"id": name, "version_id": values.get("VERSION_ID", ""), "codename": values.get("VERSION_CODENAME", ""), "family": family}


def platform_name(os_facts: dict[str, Any]) -> str:
    """Distribution and release, as in V(debian-12); a release without a number goes by its codename."""
    return f"{os_facts['id']}-{os_facts['version_id'] or os_facts['codename'] or 'unknown'}"


def parse_meminfo(text: str) -> dict[str, int]:
    """Memory the kernel manages and swap, from the text of ``/proc/meminfo``."""
    found = dict(re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE))
    return {"total": int(found.get("MemTotal", 0)) * KIB, "swap_total": int(found.get("SwapTotal", 0)) * KIB}


def parse_cpuinfo(text: str) -> dict[str, Any]:
    """Model, cores, threads and the flags that matter to an engine, from the text of ``/proc/cpuinfo``."""
    model, flags, threads = "", set(), 0
    cores: set[tuple[str, str]] = set()
    package = core = ""
    for line in text.splitlines():
        key, _separator, value = (part.strip() for part in line.partition(":"))
        if key == "processor":
            threads += 1
            package = core = ""
        elif key in ("model name", "Model") and not model:
            model = value
        elif key == "physical id":
            package = value
        elif key == "core id":
            core = value
            cores.add((package, core))
        elif key in ("flags", "Features"):
            flags.update(value.split())
    return {"model": model, "cores": len(cores) or threads, "threads": threads, "flags": sorted(flags & CPU_FLAGS)}


def numa_nodes(root: str = "/sys/devices/system/node") -> list[dict[str, Any]]:
    """The host's NUMA nodes with their processors and memory."""
    nodes = []
    for folder in sorted(glob.glob(os.path.join(root, "node[0-9]*"))):
        total = re.search(r"MemTotal:\s+(\d+) kB", read_text(os.path.join(folder, "meminfo")))
        nodes.append(
            {
                "id": int(folder.rsplit("node", 1)[1]),
                "cpus": read_text(os.path.join(folder, "cpulist")).strip(),
                "memory": int(total.group(1)) * KIB if total else 0,
            }
        )
    return nodes


def disk(path: str, mounts: str) -> dict[str, Any]:
    """Room on the filesystem that holds a path, or would hold it once it is made.

    Args:
        path: absolute path; its nearest existing parent is looked at.
        mounts: text of ``/proc/self/mounts``.
    """
    existing = os.path.abspath(path)
    while not os.path.exists(existing):
        existing = os.path.dirname(existing)
    real = os.path.realpath(existing)
    best, kind = "/", ""
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = fields[1].encode().decode("unicode_escape")
        if (real == point or real.startswith(point.rstrip("/") + "/")) and len(point) >= len(best):
            best, kind = point, fields[2]
    room = os.statvfs(real)
    return {"path": path, "mount": best, "filesystem": kind, "total": room.f_blocks * room.f_frsize, "free": room.f_bavail * room.f_frsize}


def parse_gpu_rows(text: str, fields: tuple[str, ...] = GPU_FIELDS) -> list[dict[str, Any]]:
    """Devices from ``nvidia-smi --query-gpu=… --format=csv,noheader,nounits`` (memory in MiB there, bytes here)."""
    devices: list[dict[str, Any]] = []
    for row in csv.reader(text.splitlines(), skipinitialspace=True):
        if len(row) != len(fields):
            continue
        values = dict(zip(fields, (cell.strip() for cell in row)))
        memory = values["memory.total"]
        devices.append(
            {
                "uuid": values["uuid"],
                "kind": "cuda",
                "engine_name": f"CUDA{len(devices)}",
                "name": values["name"],
                # Devices that share the host's memory print no number of their own.
                "total": int(memory) * MIB if memory.isdigit() else 0,
                "foreign": 0,
                "pci_address": values["pci.bus_id"],
                "driver_version": values["driver_version"],
                "compute_capability": values.get("compute_cap", ""),
            }
        )
    return devices


def nvidia_devices(run: Run = run_command, ours: Callable[[int], bool] = lambda pid: False) -> tuple[list[dict[str, Any]], list[str]]:
    """NVIDIA devices with the memory that programs other than our servers hold, and warnings."""
    fields = GPU_FIELDS
    status, out, err = run(["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"])
    if status not in (0, 124, 127) and "compute_cap" in out + err:  # drivers before 510 do not know the field
        fields = GPU_FIELDS[:-1]
        status, out, err = run(["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"])
    if status == 127:
        return [], []
    if status != 0:
        return [], [f"nvidia-smi failed ({status}): {(err or out).strip() or 'no message'}"]
    devices = parse_gpu_rows(out, fields)
    warnings = [] if devices else ["nvidia-smi lists no device"]
    status, out, err = run(["nvidia-smi", "--query-compute-apps=gpu_uuid,pid,used_memory", "--format=csv,noheader,nounits"])
    if status != 0:
        warnings.append(f"memory held by other programs is unknown: {(err or out).strip()}")
    for row in csv.reader(out.splitlines() if status == 0 else [], skipinitialspace=True):
        if len(row) == 3 and row[1].isdigit() and row[2].strip().isdigit() and not ours(int(row[1])):
            for device in devices:
                if device["uuid"] == row[0]:
                    device["foreign"] += int(row[2]) * MIB
    return devices, warnings


def process_unit(pid: int, proc: str = "/proc") -> str:
    """The systemd unit a process belongs to, or nothing."""
    found = re.findall(r"([^/\s]+\.(?:service|scope))", read_text(os.path.join(proc, str(pid), "cgroup")))
    return found[-1] if found else ""


def is_our_server(pid: int, proc: str = "/proc") -> bool:
    """Whether a process runs in one of our instances' units."""
    return process_unit(pid, proc).startswith("llamacpp@")


def _address(text: str) -> str:
    raw = bytes.fromhex(text)
    words = struct.unpack(f"<{len(raw) // 4}I", raw)
    packed = struct.pack(f">{len(words)}I", *words)
    return socket.inet_ntop(socket.AF_INET6 if len(packed) == 16 else socket.AF_INET, packed)


def listeners(ports: list[int], proc: str = "/proc") -> list[dict[str, Any]]:
    """Who listens on the TCP ports asked for; the process is 0 where it may not be seen."""
    found: dict[str, dict[str, Any]] = {}
    for name in ("net/tcp", "net/tcp6"):
        for line in read_text(os.path.join(proc, name)).splitlines()[1:]:
            fields = line.split()
            if len(fields) < 10 or fields[3] != "0A":
                continue
            address, port = fields[1].split(":")
            if int(port, 16) in ports:
                found[fields[9]] = {"address": _address(address), "port": int(port, 16), "pid": 0, "program": "", "unit": ""}
    if not found:
        return []
    for link in glob.iglob(os.path.join(proc, "[0-9]*", "fd", "*")):
        try:
            target = os.readlink(link)
        except OSError:
            continue
        inode = target[8:-1] if target.startswith("socket:[") else ""
        if inode in found and not found[inode]["pid"]:
            pid = int(link.split(os.sep)[-3])
            program = read_text(os.path.join(proc, str(pid), "comm")).strip()
            found[inode].update(pid=pid, program=program, unit=process_unit(pid, proc))
    return sorted(found.values(), key=lambda entry: (entry["port"], entry["address"]))


def collect(
    paths: list[str],
    ports: list[int],
    engine_root: str = "/opt/llamacpp",
    model_root: str = "/var/lib/llamacpp/models",
    device_backend: str = "auto",
    engine_environment: Optional[dict[str, str]] = None,
) -> dict[str, Any]:
    """Everything about this host that a plan needs, except the time it was collected."""
    warnings: list[str] = []
    os_facts: dict[str, Any] = dict(parse_os_release(read_text("/etc/os-release")))
    os_facts["kernel"] = platform.release()
    version = re.search(r"systemd (\d+)", run_command(["systemctl", "--version"])[1])
    os_facts["systemd"] = int(version.group(1)) if version else 0
    engines = _installed.engines(engine_root)
    instances = _installed.instances()
    devices: list[dict[str, Any]] = []
    if device_backend in ("vulkan", "rpc"):
        devices = _installed.devices_in_use(instances) if device_backend == "rpc" else []
        if not devices:
            devices, warnings = _installed.list_devices(device_backend, engines, instances, engine_environment)
    elif device_backend != "cpu":
        devices, warnings = nvidia_devices(ours=is_our_server)
    mounts = read_text("/proc/self/mounts")
    return {
        "schema_version": 1,
        "hostname": socket.gethostname(),
        "architecture": platform.machine(),
        "glibc": platform.libc_ver()[1],
        "python": platform.python_version(),
        "os": os_facts,
        "platform": platform_name(os_facts),
        "memory": parse_meminfo(read_text("/proc/meminfo")),
        "cpu": {**parse_cpuinfo(read_text("/proc/cpuinfo")), "numa_nodes": numa_nodes()},
        "devices": devices,
        "disks": [disk(path, mounts) for path in paths],
        "engines": engines,
        "models": _installed.models(model_root),
        "partial_models": _installed.partial_models(model_root),
        "instances": instances,
        "listeners": listeners(ports),
        "warnings": warnings,
    }
