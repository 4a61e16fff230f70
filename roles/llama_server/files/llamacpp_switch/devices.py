# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The health of NVIDIA devices around a start: what their driver counts and what it tells the kernel's log."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Collection
from typing import NamedTuple

XID_LINE = re.compile(r"NVRM: Xid \(PCI:(?P<address>[0-9a-fA-F:.]+)\): (?P<xid>\d+)(?P<rest>.*)")
# An application ended or was ended: it follows from other errors and says nothing about the device.
HARMLESS_XIDS = frozenset({43, 45})
FIELDS = (
    "uuid",
    "ecc.errors.uncorrected.volatile.total",
    "clocks_throttle_reasons.hw_slowdown",
    "clocks_throttle_reasons.hw_thermal_slowdown",
    "clocks_throttle_reasons.sw_thermal_slowdown",
)
COMMAND_SECONDS = 60
WHOLE_GPU = re.compile(r"GPU \d+: .*\(UUID: (?P<uuid>GPU-[^)]+)\)")
PART_OF_GPU = re.compile(r"\(UUID: (?P<uuid>MIG-[^)]+)\)")

Address = tuple[int, ...]  # domain, bus and device


class Health(NamedTuple):
    """One device: errors that its memory could not correct since the driver was loaded (None where it does not count), and
    what slows it down."""

    uncorrected: object
    slowed_by: list[str]


def read_health(text: str) -> dict[str, Health]:
    """Devices by UUID, from nvidia-smi's answer to FIELDS as CSV without header and units."""
    found = {}
    for line in text.splitlines():
        values = [value.strip() for value in line.split(",")]
        if len(values) == len(FIELDS):
            slowed = [name.rpartition(".")[2] for name, value in zip(FIELDS[2:], values[2:]) if value == "Active"]
            found[values[0]] = Health(int(values[1]) if values[1].isdecimal() else None, slowed)
    return found


def read_address(text: str) -> Address:
    """An address on the PCI bus, which the driver writes as ``00000000:1E:00.0`` and the kernel's log as ``0000:1e:00``; empty for none."""
    try:
        return tuple(int(number, 16) for number in text.strip().partition(".")[0].split(":"))
    except ValueError:
        return ()


def read_xids(lines: list[str], addresses: Collection[Address] = ()) -> list[str]:
    """Errors of the driver in the kernel's log that speak of a device, not of a program that ended; of these devices, if any are named."""
    found = []
    for line in lines:
        match = XID_LINE.search(line)
        if not match or int(match["xid"]) in HARMLESS_XIDS or (addresses and read_address(match["address"]) not in addresses):
            continue
        found.append(f"Xid {match['xid']} on {match['address']}{match['rest']}"[:200])
    return found


def problems(before: dict[str, Health], after: dict[str, Health], xids: list[str]) -> tuple[list[str], list[str]]:
    """What forbids to serve on these devices, and what is only worth a word."""
    bad = [f"the driver reports {xid}" for xid in xids]
    told = []
    for uuid, health in after.items():
        counted, earlier = health.uncorrected, before.get(uuid, Health(0, [])).uncorrected
        if isinstance(counted, int) and counted > (earlier if isinstance(earlier, int) else 0):
            bad.append(f"the memory of {uuid} had {counted} errors that it could not correct")
        elif counted:
            told.append(f"the memory of {uuid} has had {counted} errors that it could not correct since its driver was loaded")
        if health.slowed_by:
            told.append(f"{uuid} is slowed down by {', '.join(health.slowed_by)}")
    return bad, told


def ask_health(uuids: list[str]) -> dict[str, Health]:
    """The devices as their driver tells of them now, a part of a GPU as its GPU; those are missing of which it tells nothing."""
    if not uuids:
        return {}
    found = read_health(_output("nvidia-smi", f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader,nounits"))
    return {uuid: found[gpu] for uuid, gpu in ask_gpus(uuids).items() if gpu in found}


def ask_gpus(uuids: list[str]) -> dict[str, str]:
    """The GPU that each device is, or is a part of as far as the driver tells."""
    found, gpu = {uuid: uuid for uuid in uuids}, ""
    if any(uuid.startswith("MIG-") for uuid in uuids):
        for line in _output("nvidia-smi", "-L").splitlines():
            whole, part = WHOLE_GPU.search(line), PART_OF_GPU.search(line)
            gpu = whole["uuid"] if whole else gpu
            if part and part["uuid"] in found:
                found[part["uuid"]] = gpu
    return found


def ask_addresses(uuids: list[str]) -> set[Address]:
    """Where the devices are on the PCI bus; empty when that is not known of all of them."""
    text = _output("nvidia-smi", "--query-gpu=uuid,pci.bus_id", "--format=csv,noheader") if uuids else ""
    pairs = (line.partition(",") for line in text.splitlines())
    places = {uuid.strip(): read_address(place) for uuid, _comma, place in pairs}
    found = [places.get(gpu, ()) for gpu in ask_gpus(uuids).values()] if places else []
    return set(found) if all(found) else set()


def ask_free(uuids: list[str]) -> dict[str, int]:
    """Bytes that are free of the devices that their driver tells of, by UUID."""
    text = _output("nvidia-smi", "--query-gpu=uuid,memory.free", "--format=csv,noheader,nounits") if uuids else ""
    found = {}
    for line in text.splitlines():
        uuid, _comma, free = (part.strip() for part in line.partition(","))
        if uuid in uuids and free.isdecimal():
            found[uuid] = int(free) * 2**20
    return found


def ask_xids(since: float, addresses: Collection[Address] = ()) -> list[str]:
    """Errors in the kernel's log since a time, in seconds since the epoch: of devices at these addresses, or with none given of all."""
    lines = _output("journalctl", "--dmesg", "--quiet", "--no-pager", "--output=cat", f"--since=@{since:.0f}").splitlines()
    return read_xids(lines, addresses)


def _output(*argv: str) -> str:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(argv, capture_output=True, timeout=COMMAND_SECONDS, check=False, errors="replace")
        return done.stdout if done.returncode == 0 else ""
    return ""
