# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Upstream's own binaries for Linux: which files a host takes, what they were linked against, and what speaks against them.

Names, systems, toolkits and CUDA architectures are those of upstream's release workflow at b11549. All of these builds choose
the processor's variant when they start, and all contain RPC.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _cuda, _cuda_architectures, _engine_source

ARCHITECTURES = {"x86_64": "x64", "aarch64": "arm64"}
PREFIXES = {"cpu": "", "rpc": "", "vulkan": "vulkan-", "cuda": "cuda-"}

UBUNTU_22, UBUNTU_24 = ("Ubuntu 22.04", "2.35"), ("Ubuntu 24.04", "2.39")

# The first nightly build known to have CUDA binaries for Linux.
FIRST_CUDA = 11063


class Cuda(NamedTuple):
    """One CUDA build of upstream's: for which processors, and the architectures in it, as CMake names them."""

    processors: tuple[str, ...]
    architectures: tuple[str, ...]
    # The oldest branch of the driver that compiles the virtual ones, as far as it is known.
    driver: str


CUDA = {
    "12.8": Cuda(
        ("x86_64",),
        ("50-virtual", "61-virtual", "70-virtual", "75-virtual", "80-virtual", "86-real", "89-real", "90-virtual", "120a-real"),
        "570",
    ),
    "13.4": Cuda(("x86_64", "aarch64"), ("75-virtual", "80-virtual", "86-real", "89-real", "90-virtual", "120a-real", "121a-real"), "580"),
}


def cuda_label(wish: Mapping[str, Any], architecture: str) -> str:
    """The CUDA release of the binaries: the user's, else the oldest for the processor, which asks least of the driver."""
    named = str((wish.get("release") or {}).get("cuda") or "")
    return named or next((label for label, build in CUDA.items() if architecture in build.processors), "")


def files(wish: Mapping[str, Any], backend: str, architecture: str) -> list[str]:
    """The names of the files, the programs' first."""
    label = cuda_label(wish, architecture)
    middle = PREFIXES.get(backend, "") + (f"{label}-" if backend == "cuda" else "")
    name = f"llama-{wish.get('tag', '')}-bin-ubuntu-{middle}{ARCHITECTURES.get(architecture, '')}.tar.gz"
    return [name, f"cudart-{name}"] if backend == "cuda" else [name]


def system(backend: str, architecture: str) -> tuple[str, str]:
    """The system that the binaries were built on, and its glibc."""
    return UBUNTU_22 if backend != "cuda" and architecture == "x86_64" else UBUNTU_24


def identity(wish: Mapping[str, Any], backend: str, architecture: str) -> dict[str, Any]:
    """What identifies the binaries: their content, wherever they were fetched from."""
    sums = (wish.get("release") or {}).get("sha256") or {}
    return {"kind": "release", "files": {name: str(sums.get(name, "")).lower() for name in files(wish, backend, architecture)}}


def architectures(wish: Mapping[str, Any], architecture: str) -> list[str]:
    """The CUDA architectures in the binaries."""
    label = cuda_label(wish, architecture)
    return list(CUDA[label].architectures) if label in CUDA else []


def problems(wish: Mapping[str, Any], backend: str, hardware: Mapping[str, Any]) -> list[str]:
    """What speaks against the binaries on this host; what cannot run is told before what is only missing."""
    architecture = str(hardware.get("architecture", ""))
    found = _engine_source.pin_problems(wish)
    if not found and architecture in ARCHITECTURES:
        name = files(wish, backend, architecture)[0]
        found += _cuda_problems(wish, hardware, name) if backend == "cuda" else []
        built_on, glibc = system(backend, architecture)
        if _cuda.driver_number(str(hardware.get("glibc", ""))) < _cuda.driver_number(glibc):
            found.append(
                f"{name} was built on {built_on} and needs glibc {glibc}, but {hardware.get('platform', 'this host')} has"
                f" {hardware.get('glibc') or 'none that is known'}. Take llama_engine_source git or archive, compiled on such a host."
            )
    release = wish.get("release") or {}
    if not str(release.get("url", "")):
        found.append("llama_engine_source is release, but llama_engine_release.url names no folder with upstream's tarballs.")
    sums = release.get("sha256") or {}
    lacking = [name for name in files(wish, backend, architecture) if not _engine_source.SHA256.match(str(sums.get(name, "")).lower())]
    if lacking and not found:
        found.append(
            f"llama_engine_release.sha256 has no checksum of {' and '.join(lacking)}. Fetch what the project publishes, compare it, and put"
            " the 64 hexadecimal digits there by the file's name."
        )
    return found


def _cuda_problems(wish: Mapping[str, Any], hardware: Mapping[str, Any], name: str) -> list[str]:
    architecture, label = str(hardware.get("architecture", "")), cuda_label(wish, str(hardware.get("architecture", "")))
    if label not in CUDA or architecture not in CUDA[label].processors:
        have = [known for known, build in CUDA.items() if architecture in build.processors]
        return [f"llama_engine_release.cuda is '{label}', but for {architecture} there are binaries for {' and '.join(have)} only."]
    if _engine_source.tag_number(str(wish.get("tag", ""))) < FIRST_CUDA:
        return [
            f"There are no CUDA binaries for Linux of {wish.get('tag', '')}; b{FIRST_CUDA} has them. Take a later tag or the source git."
        ]
    devices = _cuda_architectures.devices_of(hardware)
    built = CUDA[label].architectures
    lacking = _cuda_architectures.uncovered(built, devices["compute_capabilities"])
    if lacking:
        return [
            f"{name} has code for the CUDA architectures {', '.join(built)}, but this host has devices of compute capability"
            f" {', '.join(lacking)}, which cannot run it. Take llama_engine_source git, which builds for the devices of the fleet."
        ]
    real = [item for item in built if item.endswith("-real")]
    compiled_by_driver = _cuda_architectures.uncovered(real, devices["compute_capabilities"])
    oldest = CUDA[label].driver if compiled_by_driver else _cuda.OLDEST_DRIVER[_cuda.major(label)]
    return [
        f"{name} needs the NVIDIA driver {oldest} or later on this host, which has {version}."
        " Bring a newer driver (nvidia_driver_upgrade), or take llama_engine_source git, whose toolkit follows the drivers of the fleet."
        for version in devices["driver_versions"]
        if _cuda.driver_number(version) < _cuda.driver_number(oldest)
    ]
