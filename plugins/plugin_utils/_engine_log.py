# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a build log says of a failure."""

from __future__ import annotations

import re

_USEFUL = re.compile(r"error|FAILED|fatal|Killed|No space left|undefined reference|not found|out of memory", re.IGNORECASE)
_PROGRESS = re.compile(r"\[\d+/\d+\] |-- ")

# The first that fits is told: what follows from it looks like the others.
_CAUSES = (
    (r"No space left on device", "The filesystem of llama_engine_build_path is full. Free some or choose another folder."),
    (
        # g++; nvcc of its parts; collect2 of the linker; what is refused memory instead of being killed.
        r"Killed signal terminated program|(?:died due to|terminated with) signal 9\b"
        r"|out of memory allocating|virtual memory exhausted|Cannot allocate memory|std::bad_alloc",
        "A compiler or the linker ran out of memory. Set llama_engine_jobs lower, or build on a host of llama_builders with more memory.",
    ),
    (r"unsupported GNU version|unsupported clang version", "nvcc does not accept this host's C++ compiler: see the role cuda_toolkit."),
    (
        r"Unsupported gpu architecture|is not defined for option 'gpu-architecture'",
        "The CUDA toolkit does not know an architecture of the build: see llama_engine_cuda_architectures and cuda_toolkit_version.",
    ),
    (
        r"Could not resolve host|Failed to clone repository|status: \[(?:6|7|28);",
        "The build wanted to fetch something: look at llama_engine_cmake_options.",
    ),
)


def log_end(text: str, most: int = 20) -> list[str]:
    """The lines of a build log that tell why it failed: those that speak of errors, or else the last ones."""
    lines = [line.rstrip()[:400] for line in text.splitlines() if line.strip()]
    useful = [line for line in lines if _USEFUL.search(line) and not _PROGRESS.match(line)]
    return useful[-most:] or lines[-most:]


def cause(text: str) -> str:
    """The cause and what to do about it, where the log shows one that is known; else nothing."""
    return next((told for pattern, told in _CAUSES if re.search(pattern, text)), "")
