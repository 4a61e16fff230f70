# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which CUDA toolkit and which C++ compiler suit a build, decided from facts and tables alone.

A toolkit must know the devices of every host that will use the build, their drivers must serve it, and its ``nvcc`` must
accept a C++ compiler that the building system has. The oldest demand of the fleet decides, so hosts are named in refusals.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Optional

from ansible_collections.onprem.llamacpp.plugins.plugin_utils._cuda_architectures import number

SOURCES = ("pypi", "nvidia", "distribution")


class Toolkit(NamedTuple):
    """One release: the newest g++ that its ``nvcc`` accepts, and the compute capabilities that it compiles for."""

    gcc: int
    lowest: tuple[int, int]
    highest: tuple[int, int]


# g++: the limit in crt/host_config.h of that very release. Compute capabilities: those that its nvcc and ptxas list.
# CUDA | g++ at most | compute capabilities
_TABLE = """
11.8 | 11 | 3.5 |  9.0
12.0 | 12 | 5.0 |  9.0
12.4 | 13 | 5.0 |  9.0
12.6 | 13 | 5.0 |  9.0
12.8 | 14 | 5.0 | 12.0
12.9 | 14 | 5.0 | 12.1
13.0 | 15 | 7.5 | 12.1
13.1 | 15 | 7.5 | 12.1
13.2 | 15 | 7.5 | 12.1
13.3 | 15 | 7.5 | 12.1
13.4 | 16 | 7.5 | 12.1
13.5 | 16 | 7.5 | 12.1
"""
# Came with 12.9, although 12.8 knows 12.0.
_UNKNOWN = {"12.8": {(10, 3)}}

# Oldest driver that runs programs of a major version: "Minor Version Compatibility" in NVIDIA's CUDA Compatibility guide.
OLDEST_DRIVER = {11: "450.80.02", 12: "525.60.13", 13: "580"}

_VERSION = re.compile(r"\d{2}\.\d$")


def _read(table: str) -> dict[str, Toolkit]:
    rows = {}
    for line in table.strip().splitlines():
        version, gcc, lowest, highest = (cell.strip() for cell in line.split("|"))
        rows[version] = Toolkit(int(gcc), number(lowest), number(highest))
    return rows


TOOLKITS = _read(_TABLE)


def driver_number(version: str) -> tuple[int, ...]:
    """A driver's version that can be compared."""
    return tuple(int(part) for part in re.findall(r"\d+", version))


def major(version: str) -> int:
    """A toolkit's major version."""
    return int(version.split(".", maxsplit=1)[0])


def _device_problem(version: str, hosts: Sequence[Mapping[str, Any]]) -> str:
    """The first device or driver of the hosts that a toolkit does not suit."""
    toolkit = TOOLKITS[version]
    for host in hosts:
        for capability in host.get("compute_capabilities", []):
            value = number(capability)
            if value < toolkit.lowest:
                return f"compiles for compute capability {_dotted(toolkit.lowest)} and later, {host['host']} has {capability}"
            if value in _UNKNOWN.get(version, ()):
                return f"does not compile for compute capability {capability}, which {host['host']} has"
            if value > toolkit.highest:
                return f"compiles for compute capabilities up to {_dotted(toolkit.highest)}, {host['host']} has {capability}"
        oldest = OLDEST_DRIVER[major(version)]
        for driver in host.get("driver_versions", []):
            if driver_number(driver) < driver_number(oldest):
                return f"needs driver {oldest} or later, {host['host']} has {driver}"
    return ""


def _dotted(value: tuple[int, int]) -> str:
    return f"{value[0]}.{value[1]}"


def host_compiler(version: str, compilers: Sequence[int]) -> Optional[int]:
    """The g++ (major version) to compile with; the first of the list is the system's own. None where none is accepted."""
    accepted = [compiler for compiler in compilers if compiler <= TOOLKITS[version].gcc]
    if not accepted:
        return None
    return compilers[0] if compilers[0] in accepted else max(accepted)


def _compiler_problem(version: str, compilers: Sequence[int]) -> str:
    if not compilers or host_compiler(version, compilers) is not None:
        return ""
    return f"accepts g++ {TOOLKITS[version].gcc} at most, this system has {', '.join(map(str, sorted(compilers)))}"


def _candidates(wish: Mapping[str, Any], offers: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    """Pairs of source and version in the order in which they are tried: pinned parts first, then the newest first."""
    source, version = str(wish.get("source") or "auto"), str(wish.get("version") or "")
    sources = SOURCES if source == "auto" else (source,)
    if version and source == "nvidia":
        return [(source, version)]  # what NVIDIA's repository has grows without us
    found = [(name, offered) for name in sources for offered in offers.get(name, []) if offered in TOOLKITS]
    return [pair for pair in found if version in ("", pair[1])]


def choose(
    platform: str,
    hosts: Sequence[Mapping[str, Any]],
    wish: Mapping[str, Any],
    offers: Mapping[str, Sequence[str]],
    compilers: Sequence[int],
) -> dict[str, Any]:
    """``source``, ``version``, ``compiler`` (major version, 0 for the system's own) and ``problems``, which speak against it all.

    Args:
        platform: of the building system, such as V(debian-12).
        hosts: who will use the build, each with C(host), C(compute_capabilities) and C(driver_versions).
        wish: C(source) and C(version) as the role's variables name them.
        offers: versions by source that can be had on the platform, the preferred ones first.
        compilers: major versions of g++ that can be had there, the system's own first.
    """
    nothing = {"source": "", "version": "", "compiler": 0}
    problems = wish_problems(wish)
    if problems:
        return {**nothing, "problems": problems}
    candidates = _candidates(wish, offers)
    reasons = []
    for source, version in candidates:
        why = _device_problem(version, hosts) or _compiler_problem(version, compilers)
        if not why:
            compiler = host_compiler(version, compilers) or 0
            own = bool(compilers) and compiler == compilers[0]
            return {"source": source, "version": version, "compiler": 0 if own else compiler, "problems": []}
        reasons.append(f"CUDA {version} ({source}) {why}")
    wanted = " ".join(filter(None, ["CUDA toolkit", str(wish.get("version") or "")]))
    if wish.get("source", "auto") != "auto":
        wanted += f" from {wish['source']}"
    if not candidates:
        known = "; ".join(f"{name}: {', '.join(offers[name])}" for name in SOURCES if offers.get(name)) or "none"
        return {
            **nothing,
            "problems": [f"No {wanted} is known for {platform}; known are {known}. Set cuda_toolkit_source and cuda_toolkit_version."],
        }
    step = (
        "Upgrade the drivers that are too old, set llama_engine_cuda_architectures on hosts of one kind so that they get a build of"
        " their own, or name another cuda_toolkit_source or cuda_toolkit_version."
    )
    return {**nothing, "problems": [f"No {wanted} suits this build on {platform}: {'; '.join(reasons)}. {step}"]}


def wish_problems(wish: Mapping[str, Any]) -> list[str]:
    """What no platform could fulfil."""
    problems = []
    source, version = str(wish.get("source") or "auto"), str(wish.get("version") or "")
    if source not in ("auto", *SOURCES):
        problems.append(f"cuda_toolkit_source is '{source}', which is none of auto, {', '.join(SOURCES)}.")
    if version and not _VERSION.match(version):
        problems.append(f"cuda_toolkit_version is '{version}'; it is written like 13.0.")
    elif version and version not in TOOLKITS:
        problems.append(f"cuda_toolkit_version is {version}; its limits are known for {', '.join(TOOLKITS)}.")
    return problems
