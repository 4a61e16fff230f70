# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which engine a host needs, decided on the controller from facts and wishes alone.

The build id is a name made of everything that decides the result and is known before anything is built, so the same wish
on the same kind of host gives the same id with or without a network. Compilers are recorded in ``build.json``, not hashed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Optional

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _engine_options, _engine_release, _engine_source, _floors
from ansible_collections.onprem.llamacpp.plugins.plugin_utils._canonical import digest
from ansible_collections.onprem.llamacpp.plugins.plugin_utils._engine_cuda import (
    covering_release,
    cuda_architectures,
    cuda_needs,
    cuda_problems,
)

BACKENDS = ("auto", "cpu", "cuda", "vulkan", "rpc")
SOURCES = ("git", "archive", "release", "package")
ARCHITECTURES = ("x86_64", "aarch64")

# Debian packages the engine from its release 14 (forky) on.
PACKAGE_PLATFORMS = re.compile(r"debian-(forky|sid|1[4-9]|[2-9]\d)$")
PACKAGES_BASE = ["llama.cpp-tools", "llama.cpp-tools-extra"]
PACKAGES_BACKEND = {
    "cuda": ["libggml0-backend-cuda"],
    "rpc": ["libggml0-backend-rpc"],
    "vulkan": ["libggml0-backend-vulkan"],
}
# The libraries hold most of the engine; a release names their versions too.
PACKAGES_LIBRARIES = ["libggml0", "libllama0"]

PROGRAMS = ["llama-server", "llama-bench", "llama-fit-params", "llama-gguf-split", "llama-quantize"]
RPC_PROGRAM = "ggml-rpc-server"

_PLATFORM = re.compile(r"[a-z]+-[a-z0-9][a-z0-9.]*$")


def backend_of(wish: Mapping[str, Any], hardware: Mapping[str, Any]) -> str:
    """The backend meant by ``auto``: cuda where an NVIDIA device with a driver was found, else cpu."""
    backend = str(wish.get("backend") or "auto")
    if backend != "auto":
        return backend
    usable = any(device.get("kind") == "cuda" and device.get("driver", True) for device in hardware.get("devices", []))
    return "cuda" if usable else "cpu"


def describe(
    hardware: Mapping[str, Any],
    wish: Mapping[str, Any],
    packages: Optional[Mapping[str, str]] = None,
    number: int = 0,
) -> dict[str, Any]:
    """The engine for a host: its id, what goes into it, the release that the host already has, and what speaks against it.

    A packaged engine has no id before it is installed, unless the host has it: then, or with the ``packages`` (name to
    version) and the build ``number`` found after the installation, it has one too.
    """
    source = str(wish.get("source", "git"))
    backend = backend_of(wish, hardware)
    architecture = str(hardware.get("architecture", ""))
    described: dict[str, Any] = {
        "build_id": "",
        "tag": "",
        "number": 0,
        "backend": backend,
        "architectures": [architecture],
        "platform": str(hardware.get("platform", "")),
        "host_platform": str(hardware.get("platform", "")),
        "glibc": str(hardware.get("glibc", "")),
        "source": {"kind": source},
        "inputs": {},
        "cmake_options": [],
        "programs": PROGRAMS + ([RPC_PROGRAM] if backend == "rpc" else []),
        "packages": [],
        "jobs": _engine_options.build_jobs(
            int(hardware.get("cpu", {}).get("cores", 1)), _build_memory(hardware.get("memory", {})), int(wish.get("jobs") or 0)
        ),
        "release": {},
        "cuda": {},
        "toolkit": {},
        "problems": [],
    }
    inputs: dict[str, Any] = {"schema_version": 1, "backend": backend, "architecture": architecture}
    if source == "package":
        label = _describe_package(described, inputs, hardware, packages, number)
    elif source == "release":
        label = _describe_release(described, inputs, hardware, wish)
    else:
        label = _describe_build(described, inputs, hardware, wish)
    if inputs.get("source"):
        described.update(inputs=inputs, source=inputs["source"])
        described["build_id"] = f"{described['tag']}-{backend}-{label}-{digest(inputs, 8)}"
    problems = _wish_problems(wish, hardware, described)
    if described["number"] or (source == "package" and described["build_id"]):
        problems += _floors.refusals(described["number"], backend == "rpc", [str(item) for item in wish.get("force") or []])
    if not described["release"]:
        described["release"] = _release(hardware, described["build_id"])
    if not described["release"] and described["cuda"] and not wish.get("cuda_architectures"):
        described.update(covering_release(hardware, inputs, bool(wish.get("toolkit_named"))))
    if described["toolkit"] and not described["release"]:
        problems += described["toolkit"].get("problems", [])
    described["problems"] = problems
    return described


def _build_memory(memory: Mapping[str, Any]) -> int:
    """Memory that a build may take: what is available now, for a server of the host may hold most of the total."""
    total = int(memory.get("total", 0))
    return min(total, int(memory.get("available") or total))


def _describe_package(
    described: dict[str, Any], inputs: dict[str, Any], hardware: Mapping[str, Any], packages: Optional[Mapping[str, str]], number: int
) -> str:
    """Completes what is known of a packaged engine; the label of its id."""
    described["packages"] = PACKAGES_BASE + PACKAGES_BACKEND.get(described["backend"], []) + PACKAGES_LIBRARIES
    if packages is None:
        described["release"] = _package_release(hardware, described)
        build = described["release"].get("build", {})
        packages, number = build.get("packages"), int(build.get("number", 0))
    if packages:
        inputs["source"] = {"kind": "package", "packages": {name: str(version) for name, version in packages.items()}}
        described.update(tag=f"b{number}", number=number)
    return str(inputs["architecture"])


def _describe_release(described: dict[str, Any], inputs: dict[str, Any], hardware: Mapping[str, Any], wish: Mapping[str, Any]) -> str:
    """Completes what is known of upstream's binaries; the label of their id."""
    backend, architecture = described["backend"], inputs["architecture"]
    tag = str(wish.get("tag", ""))
    inputs.update(source=_engine_release.identity(wish, backend, architecture), tag=tag)
    described.update(tag=tag, number=_engine_source.tag_number(tag), glibc=_engine_release.system(backend, architecture)[1])
    if backend != "cuda":
        return str(architecture)
    described["architectures"] = _engine_release.architectures(wish, architecture)
    return _engine_release.cuda_label(wish, architecture)


def _describe_build(described: dict[str, Any], inputs: dict[str, Any], hardware: Mapping[str, Any], wish: Mapping[str, Any]) -> str:
    """Completes what is known of an engine that is compiled; the label of its id."""
    backend, architecture, cpu = described["backend"], inputs["architecture"], str(wish.get("cpu", "native"))
    tag = str(wish.get("tag", ""))
    number = _engine_source.tag_number(tag)
    architectures = cuda_architectures(wish, hardware) if backend == "cuda" else [architecture]
    options = _engine_options.cmake_options(backend, number, cpu, architecture, architectures, wish.get("cmake_options") or [])
    platform = str(wish.get("platform") or hardware.get("platform", ""))
    inputs.update(
        source=_engine_source.identity(wish, str(wish.get("source", "git"))),
        tag=tag,
        platform=platform,
        architectures=architectures,
        # A native build runs where the processor has at least these.
        cpu_flags=sorted(hardware.get("cpu", {}).get("flags", [])) if cpu == "native" else [],
        cmake_options=options,
    )
    if backend == "cuda":
        described["cuda"] = cuda_needs(wish, hardware, inputs)
        described["toolkit"] = dict(wish.get("toolkit") or {})
        inputs["toolkit"] = {key: str(described["toolkit"].get(key, "")) for key in ("source", "release")}
    described.update(tag=tag, number=number, platform=platform, architectures=architectures, cmake_options=options)
    # A list of CUDA architectures is told apart by the digest where it is too long for a name.
    return ".".join(item.replace("-real", "").replace("-virtual", "v") for item in architectures)[:32]


def _release(hardware: Mapping[str, Any], build_id: str) -> dict[str, Any]:
    for engine in hardware.get("engines", []):
        if build_id and engine.get("build_id") == build_id and engine.get("intact"):
            return dict(engine)
    return {}


def _package_release(hardware: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    for engine in hardware.get("engines", []):
        build = engine.get("build", {})
        if (
            engine.get("intact")
            and build.get("source", {}).get("kind") == "package"
            and build.get("backend") == wanted["backend"]
            and set(build.get("packages", {})) == set(wanted["packages"])
        ):
            return dict(engine)
    return {}


def _wish_problems(wish: Mapping[str, Any], hardware: Mapping[str, Any], described: Mapping[str, Any]) -> list[str]:
    problems = []
    backend, source = described["backend"], str(described["source"]["kind"])
    if backend not in BACKENDS:
        problems.append(f"llama_engine_backend is '{backend}', which is none of {', '.join(BACKENDS)}.")
    if source not in SOURCES:
        problems.append(f"llama_engine_source is '{source}', which is none of {', '.join(SOURCES)}.")
    unknown = sorted(set(map(str, wish.get("force") or [])) - set(_floors.FORCES))
    if unknown:
        problems.append(f"llama_engine_force holds {', '.join(unknown)}; it knows {' and '.join(_floors.FORCES)}.")
    architecture = hardware.get("architecture", "")
    if architecture not in ARCHITECTURES:
        problems.append(f"The processor architecture is {architecture or 'unknown'}; engines exist for {' and '.join(ARCHITECTURES)}.")
    family = hardware.get("os", {}).get("family", "")
    if family not in ("debian", "redhat"):
        problems.append(f"The system {hardware.get('platform', '')} is of no family that this role can install on (Debian, Red Hat).")
    if source == "package":
        if not PACKAGE_PLATFORMS.match(str(hardware.get("platform", ""))):
            problems.append(
                f"llama_engine_source is package, but {hardware.get('platform', 'this system')} has no llama.cpp packages;"
                " Debian has them from 14 (forky) on. Take the source git or archive."
            )
        return problems
    if source == "release":
        return problems + _engine_release.problems(wish, backend, hardware)
    problems += _engine_source.problems(wish, source)
    if not _PLATFORM.match(described["platform"]):
        problems.append(f"llama_engine_platform is '{described['platform']}'; it is written like debian-12.")
    problems += _engine_options.cpu_problems(str(wish.get("cpu", "native")), str(architecture), described["platform"], hardware)
    if backend == "cuda":
        problems += cuda_problems(wish, hardware)
    return problems
