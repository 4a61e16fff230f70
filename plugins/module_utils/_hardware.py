# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host is made of, put together from what procfs, sysfs, SMBIOS and ``nvidia-smi`` tell.

The readers take a root folder or a text and return plain data, so that captured systems can be read in tests.
Sizes are bytes. None of them raises for a missing or broken source: a caller gets an empty value and a warning.
"""

from __future__ import annotations

import platform
import re
import socket
from collections.abc import Sequence
from typing import Any, Optional

from ansible_collections.onprem.llamacpp.plugins.module_utils import (
    _disks,
    _dmi,
    _driver_state,
    _engine_config,
    _installed,
    _instance,
    _measure,
    _memory,
    _nvidia,
    _pci,
    _processes,
)
from ansible_collections.onprem.llamacpp.plugins.module_utils._host import Run, read_text, run_command

SCHEMA_VERSION = 2

# What ggml picks kernels by; two hosts that agree on these can share a native build.
CPU_FLAGS = frozenset(
    "sse4_2 avx avx2 avx_vnni f16c fma bmi2 avx512f avx512cd avx512bw avx512dq avx512vl avx512vbmi avx512_vnni avx512_bf16"
    " amx_tile amx_int8 amx_bf16 asimd asimddp asimdhp i8mm sve sve2 bf16 svei8mm sme".split()
)


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


def parse_cpuinfo(text: str) -> dict[str, Any]:
    """Model, sockets, cores, threads and the flags that matter to an engine, from the text of ``/proc/cpuinfo``."""
    model, flags, threads = "", set(), 0
    cores: set[tuple[str, str]] = set()
    packages: set[str] = set()
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
            packages.add(package)
        elif key == "core id":
            core = value
            cores.add((package, core))
        elif key in ("flags", "Features"):
            flags.update(value.split())
    return {
        "model": model,
        "sockets": len(packages) or 1,
        "cores": len(cores) or threads,
        "threads": threads,
        "flags": sorted(flags & CPU_FLAGS),
    }


def memory_facts(cpu: dict[str, Any], measured: bool) -> dict[str, Any]:
    """The host's memory: amounts, limits and speed."""
    found = _memory.parse_meminfo(read_text("/proc/meminfo"))
    speed = _measure.memory(found["available"]) if measured else None
    return {**found, "cgroup_limit": _memory.cgroup_limit(), "bandwidth": _memory.bandwidth(cpu, _dmi.read_tables(), speed)}


def disk_facts(paths: list[str], measured: bool, may_write: bool) -> list[dict[str, Any]]:
    """The filesystems of paths; one that holds several of them is measured once."""
    mounts = read_text("/proc/self/mounts")
    disks = [_disks.disk(path, mounts) for path in paths]
    speeds: dict[str, Optional[int]] = {}
    for disk in disks if measured else []:
        speeds[disk["mount"]] = speeds.get(disk["mount"]) or _measure.disk(disk["path"], may_write)
        disk["sequential_read"] = speeds[disk["mount"]]
    return disks


def cuda_devices(cards: list[dict[str, Any]], host_memory: int, run: Run = run_command) -> tuple[list[dict[str, Any]], list[str]]:
    """NVIDIA devices as their driver tells of them or, where none answers, as the bus does, and warnings."""
    devices, warnings, answers = _nvidia.devices(run, _processes.is_our_server, host_memory)
    if not answers:
        devices, more = _pci.undriven(cards, host_memory)
        return devices, warnings + more
    nodes = {card["pci_address"]: card["numa_node"] for card in cards}
    for device in devices:
        device["numa_node"] = nodes.get(device["pci_address"], -1)
        for process in device["processes"]:
            process["unit"] = _processes.process_unit(process["pid"])
    return devices, warnings + _pci.unlisted(cards, devices, warnings)


def collect(
    paths: list[str],
    ports: list[int],
    engine_root: str = "/opt/llamacpp",
    model_root: str = "/var/lib/llamacpp/models",
    device_backend: str = "auto",
    engine_environment: Optional[dict[str, str]] = None,
    measure: Sequence[str] = (),
    may_write: bool = True,
) -> dict[str, Any]:
    """Everything about this host that a plan needs, except the time it was collected.

    Args:
        paths: whose filesystems are told.
        ports: on which listening programs are told.
        engine_root: folder of the engine releases.
        model_root: folder of the published models.
        device_backend: where devices are read from.
        engine_environment: of an engine that is asked for its devices.
        measure: what is measured, of V(memory) and V(disk).
        may_write: whether a measurement may make a file, which it removes.
    """
    os_facts: dict[str, Any] = dict(parse_os_release(read_text("/etc/os-release")))
    os_facts["kernel"] = platform.release()
    version = re.search(r"systemd (\d+)", run_command(["systemctl", "--version"])[1])
    os_facts["systemd"] = int(version.group(1)) if version else 0
    cpu = parse_cpuinfo(read_text("/proc/cpuinfo"))
    memory = memory_facts(cpu, "memory" in measure)
    engines = _installed.engines(engine_root, uses=_instance.engine_uses())
    instances = _installed.instances()
    cards = _pci.scan()
    devices: list[dict[str, Any]] = []
    warnings: list[str] = []
    if device_backend in ("vulkan", "rpc"):
        devices = _installed.devices_in_use(instances) if device_backend == "rpc" else []
        if not devices:
            devices, warnings = _installed.list_devices(device_backend, engines, instances, engine_environment)
    elif device_backend != "cpu":
        devices, warnings = cuda_devices(cards, memory["total"])
    return {
        "schema_version": SCHEMA_VERSION,
        "hostname": socket.gethostname(),
        "architecture": platform.machine(),
        "glibc": platform.libc_ver()[1],
        "python": platform.python_version(),
        "os": os_facts,
        "platform": platform_name(os_facts),
        "memory": memory,
        "cpu": {**cpu, "numa_nodes": _memory.numa_nodes()},
        "devices": devices,
        "driver": _driver_state.collect(os_facts["family"]),
        "other_gpus": _pci.others(cards),
        "disks": disk_facts(paths, "disk" in measure, may_write),
        "engines": engines,
        "engine_config": _engine_config.read(),
        "models": _installed.models(model_root, _instance.model_uses()),
        "partial_models": _installed.partial_models(model_root),
        "instances": instances,
        "listeners": _processes.listeners(ports),
        "tuning": _installed.tuning(),
        "warnings": warnings,
    }
