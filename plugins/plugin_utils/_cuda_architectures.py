# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""CUDA architectures: what devices need, and which devices a build for given architectures runs on.

Architectures are written as CMake names them: ``90-real`` is machine code for compute capability 9.0, ``90-virtual`` is
code that the driver compiles when it loads it, ``90`` is both. A letter narrows: ``120a`` is for 12.0 alone, ``120f``
for later devices of the same major version too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_NAME = re.compile(r"(?P<major>\d{1,2})(?P<minor>\d)(?P<letter>[af]?)(?P<kind>-real|-virtual)?$")


def valid(architecture: str) -> bool:
    """Whether CMake knows such a name; V(native) and V(all) hang on the machine that builds and are not among them."""
    return bool(_NAME.match(architecture))


def number(capability: str) -> tuple[int, int]:
    """A compute capability that can be compared."""
    major, minor = capability.split(".")
    return int(major), int(minor)


def capability(architecture: str) -> str:
    """The compute capability that an architecture is named after."""
    match = _NAME.match(architecture)
    return f"{match['major']}.{match['minor']}" if match else ""


def needed(capabilities: Iterable[str]) -> list[str]:
    """The architectures that devices of these compute capabilities run best, in their order."""
    return [f"{value.replace('.', '')}-real" for value in sorted(set(capabilities), key=number)]


def covers(architecture: str, device_capability: str) -> bool:
    """Whether code for an architecture runs on a device."""
    match = _NAME.match(architecture)
    if not match:
        return False
    own = (int(match["major"]), int(match["minor"]))
    device = number(device_capability)
    # llama.cpp turns 12X into 12Xa, for the sake of instructions that only that very device has.
    if match["letter"] == "a" or (own[0] == 12 and not match["letter"]):
        return device == own
    if match["letter"] == "f" or match["kind"] == "-real":
        return device[0] == own[0] and device >= own
    return device >= own


def uncovered(architectures: Sequence[str], capabilities: Iterable[str]) -> list[str]:
    """The compute capabilities that a build for these architectures does not run on."""
    wanted = sorted(set(capabilities), key=number)
    return [value for value in wanted if not any(covers(architecture, value) for architecture in architectures)]


def devices_of(hardware: Mapping[str, Any]) -> dict[str, list[str]]:
    """``compute_capabilities`` and ``driver_versions`` of a host's NVIDIA devices; what is not known is left out."""
    devices = [device for device in hardware.get("devices", []) if device.get("kind") == "cuda"]
    capabilities = {str(device.get("compute_capability") or "") for device in devices} - {""}
    return {
        "compute_capabilities": sorted(capabilities, key=number),
        "driver_versions": sorted({str(device.get("driver_version") or "") for device in devices} - {""}),
    }
