# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How an engine is compiled: options of the configure step, the processors that the result runs on, and how many compilers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

CPUS = ("native", "baseline", "all")

# What a baseline build takes for granted: facts' name of the instructions, and the option that compiles them in. Processors
# have had them since 2013 (Intel Haswell) and 2015 (AMD Excavator). On aarch64 the baseline is what every 64-bit ARM has.
BASELINE = {"sse4_2": "SSE42", "avx": "AVX", "avx2": "AVX2", "bmi2": "BMI2", "f16c": "F16C", "fma": "FMA"}

# The compiler must know the newest instructions of all variants; on aarch64 that takes g++ 14.
_OLD_COMPILERS = ("debian-11", "debian-12", "ubuntu-22.04", "ubuntu-24.04")

BYTES_PER_JOB = 2 * 1024**3  # the largest C++ units of llama.cpp need some 1.5 GiB, CUDA units a little more


def build_jobs(cores: int, memory: int, wanted: int = 0) -> int:
    """Compilers to run at once: one a core, and each with 2 GiB of memory (bytes); a wanted number lowers it."""
    most = max(1, min(cores, memory // BYTES_PER_JOB))
    return min(most, wanted) if wanted > 0 else most


def cpu_options(cpu: str, architecture: str) -> dict[str, str]:
    """Options that decide on which processors a build runs."""
    if cpu == "native":
        return {"GGML_NATIVE": "ON"}
    if cpu == "all":
        return {"GGML_NATIVE": "OFF", "GGML_BACKEND_DL": "ON", "GGML_CPU_ALL_VARIANTS": "ON"}
    named = BASELINE.values() if architecture == "x86_64" else ()
    return {"GGML_NATIVE": "OFF", **{f"GGML_{name}": "ON" for name in named}}


def cpu_problems(cpu: str, architecture: str, platform: str, hardware: Mapping[str, Any]) -> list[str]:
    """What speaks against a build for these processors, or against running it on this host."""
    if cpu not in CPUS:
        return [f"llama_engine_cpu is '{cpu}', which is none of {', '.join(CPUS)}."]
    flags = set(hardware.get("cpu", {}).get("flags", []))
    lacking = sorted(set(BASELINE) - flags) if cpu == "baseline" and architecture == "x86_64" else []
    if lacking:
        return [
            f"llama_engine_cpu is baseline, but the processor of this host lacks {', '.join(lacking)}."
            " Take native, which builds for the very processor, or all."
        ]
    if cpu == "all" and architecture == "aarch64" and platform in _OLD_COMPILERS:
        return [
            f"llama_engine_cpu is all, which takes g++ 14 on aarch64, but the build is for {platform}, whose compiler is older."
            " Take native or baseline, or a newer llama_engine_platform."
        ]
    return []


def cmake_options(
    backend: str, number: int, cpu: str, architecture: str, cuda_architectures: Sequence[str], extra: Sequence[str]
) -> list[str]:
    """Options of the configure step, the user's own last so that they win."""
    options = {
        "CMAKE_BUILD_TYPE": "Release",
        # Programs find the libraries beside them wherever the release lies.
        "CMAKE_BUILD_WITH_INSTALL_RPATH": "ON",
        "CMAKE_INSTALL_RPATH": "$ORIGIN/../lib",
        **cpu_options(cpu, architecture),
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
        options["CMAKE_CUDA_ARCHITECTURES"] = ";".join(cuda_architectures)
        # Of use to the experimental tensor split alone, and found or not by what the building host happens to have.
        options["GGML_CUDA_NCCL"] = "OFF"
        # libcuda comes with the driver, which a building host need not have. The path to the release's libraries is of the old
        # kind, which holds for the libraries of libraries too: not every libcublas finds the libcublasLt beside it.
        options["CMAKE_EXE_LINKER_FLAGS"] = "-Wl,--allow-shlib-undefined -Wl,--disable-new-dtags"
    if backend == "vulkan":
        options["GGML_VULKAN"] = "ON"
    return [f"-D{key}={value}" for key, value in options.items()] + list(extra)
