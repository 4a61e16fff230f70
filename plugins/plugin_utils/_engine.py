# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which engine a host needs, decided on the controller from facts and wishes alone.

The build id is a name made of everything that decides the result and is known before anything is built, so the same wish
on the same kind of host gives the same id with or without a network. Compilers are recorded in ``build.json``, not hashed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _floors
from ansible_collections.onprem.llamacpp.plugins.plugin_utils._canonical import digest
from ansible_collections.onprem.llamacpp.plugins.plugin_utils._engine_cuda import (
    covering_release,
    cuda_architectures,
    cuda_needs,
    cuda_problems,
)

BACKENDS = ("auto", "cpu", "cuda", "vulkan", "rpc")
SOURCES = ("git", "archive", "package")
ARCHITECTURES = ("x86_64", "aarch64")

BYTES_PER_JOB = 2 * 1024**3  # the largest C++ units of llama.cpp need some 1.5 GiB, CUDA units a little more

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

_TAG = re.compile(r"b([1-9]\d{0,6})$")
_COMMIT = re.compile(r"[0-9a-f]{7,40}$")
_SHA256 = re.compile(r"[0-9a-f]{64}$")
_PLATFORM = re.compile(r"[a-z]+-[a-z0-9][a-z0-9.]*$")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")

_USEFUL = re.compile(r"error|FAILED|fatal|Killed|No space left|undefined reference|not found", re.IGNORECASE)
_PROGRESS = re.compile(r"\[\d+/\d+\] |-- ")


def tag_number(tag: str) -> int:
    """Build number of a ``b<number>`` tag, 0 where the tag is not one."""
    match = _TAG.match(tag)
    return int(match.group(1)) if match else 0


def build_jobs(cores: int, memory: int, wanted: int = 0) -> int:
    """Compilers to run at once: one a core, and each with 2 GiB of the host's memory (bytes); a wanted number lowers it."""
    most = max(1, min(cores, memory // BYTES_PER_JOB))
    return min(most, wanted) if wanted > 0 else most


def cmake_options(backend: str, number: int, native: bool, architectures: Sequence[str], extra: Sequence[str]) -> list[str]:
    """Options of the configure step, the user's own last so that they win."""
    options = {
        "CMAKE_BUILD_TYPE": "Release",
        # Programs find the libraries beside them wherever the release lies.
        "CMAKE_BUILD_WITH_INSTALL_RPATH": "ON",
        "CMAKE_INSTALL_RPATH": "$ORIGIN/../lib",
        "GGML_NATIVE": "ON" if native else "OFF",
        "GGML_RPC": "ON" if backend == "rpc" else "OFF",
        # It switches itself on where libibverbs is present, and has had its own holes.
        "GGML_RPC_RDMA": "OFF",
        # Either would fetch the web interface from the internet during the build.
        "LLAMA_BUILD_UI": "OFF",
        "LLAMA_USE_PREBUILT_UI": "OFF",
        "LLAMA_BUILD_TESTS": "OFF",
        "LLAMA_BUILD_EXAMPLES": "OFF",
        # Sources without their history cannot know their number.
        "LLAMA_BUILD_NUMBER": str(number),
    }
    if backend == "cuda":
        options["GGML_CUDA"] = "ON"
        options["CMAKE_CUDA_ARCHITECTURES"] = ";".join(architectures)
        # Of use to the experimental tensor split alone, and found or not by what the building host happens to have.
        options["GGML_CUDA_NCCL"] = "OFF"
        # libcuda comes with the driver, which a building host need not have. The path to the release's libraries is of the old
        # kind, which holds for the libraries of libraries too: not every libcublas finds the libcublasLt beside it.
        options["CMAKE_EXE_LINKER_FLAGS"] = "-Wl,--allow-shlib-undefined -Wl,--disable-new-dtags"
    if backend == "vulkan":
        options["GGML_VULKAN"] = "ON"
    return [f"-D{key}={value}" for key, value in options.items()] + list(extra)


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
    # Packages are made for the system that they are installed on.
    platform = str((wish.get("platform") if source != "package" else "") or hardware.get("platform", ""))
    architecture = str(hardware.get("architecture", ""))
    architectures = cuda_architectures(wish, hardware) if backend == "cuda" and source != "package" else [architecture]
    force = [str(item) for item in wish.get("force") or []]
    described: dict[str, Any] = {
        "build_id": "",
        "tag": "",
        "number": 0,
        "backend": backend,
        "architectures": architectures,
        "platform": platform,
        "host_platform": str(hardware.get("platform", "")),
        "source": {"kind": source},
        "inputs": {},
        "cmake_options": [],
        "programs": PROGRAMS + ([RPC_PROGRAM] if backend == "rpc" else []),
        "packages": [],
        "jobs": build_jobs(
            int(hardware.get("cpu", {}).get("cores", 1)), int(hardware.get("memory", {}).get("total", 0)), int(wish.get("jobs") or 0)
        ),
        "release": {},
        "cuda": {},
        "toolkit": {},
        "problems": [],
    }
    problems = _wish_problems(wish, source, backend, platform, hardware)
    inputs: dict[str, Any] = {"schema_version": 1, "backend": backend, "architecture": architecture}
    if source == "package":
        described["packages"] = PACKAGES_BASE + PACKAGES_BACKEND.get(backend, []) + PACKAGES_LIBRARIES
        if packages is None:
            described["release"] = _package_release(hardware, described)
            build = described["release"].get("build", {})
            packages, number = build.get("packages"), int(build.get("number", 0))
        if packages:
            inputs["source"] = {"kind": source, "packages": {name: str(version) for name, version in packages.items()}}
            problems += _floors.refusals(number, backend == "rpc", force)
            described.update(tag=f"b{number}", number=number, inputs=inputs, source=inputs["source"])
    else:
        number = tag_number(str(wish.get("tag", "")))
        if number:
            problems += _floors.refusals(number, backend == "rpc", force)
        options = cmake_options(backend, number, bool(wish.get("native", True)), architectures, wish.get("cmake_options") or [])
        inputs.update(
            source=_source(wish, source),
            tag=str(wish.get("tag", "")),
            platform=platform,
            architectures=architectures,
            # A native build runs where the processor has at least these.
            cpu_flags=sorted(hardware.get("cpu", {}).get("flags", [])) if wish.get("native", True) else [],
            cmake_options=options,
        )
        if backend == "cuda":
            described["cuda"] = cuda_needs(wish, hardware, inputs)
            described["toolkit"] = dict(wish.get("toolkit") or {})
            inputs["toolkit"] = {key: str(described["toolkit"].get(key, "")) for key in ("source", "release")}
        described.update(tag=str(wish.get("tag", "")), number=number, inputs=inputs, source=inputs["source"], cmake_options=options)
    if inputs.get("source"):
        # A list of CUDA architectures is told apart by the digest where it is too long for a name.
        label = ".".join(item.replace("-real", "").replace("-virtual", "v") for item in architectures)[:32]
        described["build_id"] = f"{described['tag']}-{backend}-{label}-{digest(inputs, 8)}"
    if not described["release"]:
        described["release"] = _release(hardware, described["build_id"])
    if not described["release"] and described["cuda"] and not wish.get("cuda_architectures"):
        described.update(covering_release(hardware, inputs))
    if described["toolkit"] and not described["release"]:
        problems += described["toolkit"].get("problems", [])
    described["problems"] = problems
    return described


def _source(wish: Mapping[str, Any], kind: str) -> dict[str, str]:
    """What identifies the source. An archive is its content, wherever it was fetched from."""
    if kind == "archive":
        archive = wish.get("archive") or {}
        content = {"sha256": str(archive.get("sha256", "")).lower(), "folder": str(archive.get("folder", "")).strip("/")}
    else:
        content = {"url": str(wish.get("git_url", ""))}
    # The commit is stamped into the programs of either.
    return {"kind": kind, **content, "commit": str(wish.get("commit", "")).lower()}


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


def _wish_problems(wish: Mapping[str, Any], source: str, backend: str, platform: str, hardware: Mapping[str, Any]) -> list[str]:
    problems = []
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
    problems += _source_problems(wish, source)
    if not _PLATFORM.match(platform):
        problems.append(f"llama_engine_platform is '{platform}'; it is written like debian-12.")
    if backend == "cuda":
        problems += cuda_problems(wish, hardware)
    return problems


def _source_problems(wish: Mapping[str, Any], source: str) -> list[str]:
    problems = []
    tag, commit = str(wish.get("tag", "")), str(wish.get("commit", ""))
    if not _TAG.match(tag):
        problems.append(f"llama_engine_tag is '{tag}'; builds are named by their number, like b11549.")
    if commit and not _COMMIT.match(commit.lower()):
        problems.append(f"llama_engine_commit is '{commit}'; it takes 7 to 40 hexadecimal digits.")
    if source == "git" and not _URL.match(str(wish.get("git_url", ""))):
        problems.append(f"llama_engine_git_url is '{wish.get('git_url', '')}'; it takes a URL such as https://… or file:///….")
    if source == "archive":
        archive = wish.get("archive") or {}
        if not archive.get("url"):
            problems.append("llama_engine_source is archive, but llama_engine_archive.url names no URL and no path on the controller.")
        if not _SHA256.match(str(archive.get("sha256", "")).lower()):
            problems.append("llama_engine_source is archive, but llama_engine_archive.sha256 is not 64 hexadecimal digits.")
        folder = str(archive.get("folder", "")).strip("/")
        if not folder or ".." in folder.split("/"):
            problems.append("llama_engine_archive.folder names no folder of the archive; take the one with llama.cpp's CMakeLists.txt.")
    return problems


def origin(peers: Mapping[str, Mapping[str, Any]], build_id: str) -> dict[str, str]:
    """Who brings a build into the controller's cache, from the descriptions of all hosts of the batch.

    ``host`` has the release or builds it, empty when no host can; ``leader`` is the first host without the release, which
    moves it to the controller. A host builds only on its own platform: what it makes must run on all that share the id.
    """
    same = {name: peer for name, peer in peers.items() if peer.get("build_id") == build_id}
    having = [name for name, peer in same.items() if peer.get("release")]
    missing = [name for name, peer in same.items() if not peer.get("release")]
    able = [name for name in missing if same[name].get("platform") == same[name].get("host_platform")]
    return {"host": next(iter(having + able), ""), "leader": next(iter(missing), "")}


def log_end(text: str, most: int = 20) -> list[str]:
    """The lines of a build log that tell why it failed: those that speak of errors, or else the last ones."""
    lines = [line.rstrip()[:400] for line in text.splitlines() if line.strip()]
    useful = [line for line in lines if _USEFUL.search(line) and not _PROGRESS.match(line)]
    return useful[-most:] or lines[-most:]
