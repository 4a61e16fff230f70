# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is special about engines for CUDA: one build serves hosts with different devices."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _cuda_architectures
from ansible_collections.onprem.llamacpp.plugins.plugin_utils._canonical import digest
from ansible_collections.onprem.llamacpp.plugins.plugin_utils._cuda import OLDEST_DRIVER, driver_number, major


def cuda_architectures(wish: Mapping[str, Any], hardware: Mapping[str, Any]) -> list[str]:
    """CUDA architectures as CMake names them: the user's, else those that the devices of all hosts of the build need."""
    wanted = [str(item) for item in wish.get("cuda_architectures") or []]
    if wanted:
        return sorted(set(wanted))
    hosts = wish.get("cuda_hosts") or [_cuda_architectures.devices_of(hardware)]
    return _cuda_architectures.needed(capability for host in hosts for capability in host["compute_capabilities"])


def fleet(peers: Mapping[str, Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Hosts that could share one CUDA build, by what their builds have in common; each with its devices and its driver."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name in sorted(peers):
        if peers[name].get("cuda"):
            found.setdefault(peers[name]["cuda"]["kind"], []).append({"host": name, **peers[name]["cuda"]["devices"]})
    return found


def cuda_needs(wish: Mapping[str, Any], hardware: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """``kind``, which hosts have in common whose builds differ in CUDA architectures alone, and what the host needs of a toolkit."""
    devices = _cuda_architectures.devices_of(hardware)
    named = [item for item in map(str, wish.get("cuda_architectures") or []) if _cuda_architectures.valid(item)]
    if named:
        # What is compiled for counts, whatever the host has.
        devices["compute_capabilities"] = [_cuda_architectures.capability(item) for item in named]
    return {"kind": digest(_without_architectures(inputs) if not named else dict(inputs), 8), "devices": devices}


def _without_architectures(inputs: Mapping[str, Any]) -> dict[str, Any]:
    options = [item for item in inputs["cmake_options"] if not item.startswith("-DCMAKE_CUDA_ARCHITECTURES=")]
    return {**inputs, "architectures": [], "cmake_options": options}


def cuda_problems(wish: Mapping[str, Any], hardware: Mapping[str, Any]) -> list[str]:
    """What speaks against a CUDA build: no architecture, one that CMake does not know, or none for a device of this host."""
    wanted = cuda_architectures(wish, hardware)
    if not wanted:
        return ["No CUDA architecture is known: the host shows no NVIDIA device. Set llama_engine_cuda_architectures, e.g. ['90-real']."]
    wrong = [item for item in wanted if not _cuda_architectures.valid(item)]
    if wrong:
        return [f"llama_engine_cuda_architectures holds {', '.join(wrong)}; CMake's names are like 90 or 90-real."]
    lacking = _cuda_architectures.uncovered(wanted, _cuda_architectures.devices_of(hardware)["compute_capabilities"])
    if not lacking:
        return []
    return [
        f"The build is for the CUDA architectures {', '.join(wanted)}, but this host has devices of compute capability {', '.join(lacking)}"
        f", which cannot run it. Add {', '.join(_cuda_architectures.needed(lacking))} to llama_engine_cuda_architectures or leave it empty."
    ]


def device_problem(hardware: Mapping[str, Any], devices_text: str) -> str:
    """A sentence where an engine with the CUDA backend lists no CUDA device although the host's driver answers.

    A backend that is loaded at the start stays away without an error where a library of it is missing. An engine that could not
    list its devices at all says nothing about that.
    """
    devices = [device for device in hardware.get("devices", []) if device.get("kind") == "cuda" and device.get("driver", True)]
    if not devices or not devices_text.startswith("Available devices") or re.search(r"^\s*CUDA\d+:", devices_text, re.MULTILINE):
        return ""
    return (
        f"lists no CUDA device, although the driver of this host shows {len(devices)}. It says: {' '.join(devices_text.split())}."
        " Its CUDA backend did not load: look for a library that it lacks (ldd on libggml-cuda.so) and at the version of the driver."
    )


def _serves(release: str, drivers: Sequence[str]) -> bool:
    """Whether drivers run what a release of the toolkit made."""
    oldest = OLDEST_DRIVER.get(major(release)) if re.match(r"\d+\.", release) else None
    return bool(oldest) and all(driver_number(driver) >= driver_number(str(oldest)) for driver in drivers)


def covering_release(hardware: Mapping[str, Any], inputs: Mapping[str, Any], toolkit_named: bool = False) -> dict[str, Any]:
    """A release of the host that is for other CUDA architectures too, or for fewer, but for all that its own devices need.

    So a host that joins the fleet or leaves it, or a run for some hosts only, gives those that serve nothing new. The toolkit too is
    chosen for all hosts of a run: another one that this host's driver serves is as good, unless the user has named one.
    """
    devices = _cuda_architectures.devices_of(hardware)
    own = devices["compute_capabilities"]
    for engine in hardware.get("engines", []):
        found = engine.get("build", {}).get("inputs", {})
        if not engine.get("intact") or found.get("backend") != "cuda" or "cmake_options" not in found:
            continue
        built = found.get("architectures", [])
        as_wanted = dict(inputs)
        if not toolkit_named and _serves(str(found.get("toolkit", {}).get("release", "")), devices["driver_versions"]):
            as_wanted["toolkit"] = found["toolkit"]
        if _without_architectures(found) == _without_architectures(as_wanted) and not _cuda_architectures.uncovered(built, own):
            known = {"build_id": engine["build_id"], "architectures": built, "cmake_options": found["cmake_options"]}
            return {"release": dict(engine), "inputs": found, **known}
    return {}
