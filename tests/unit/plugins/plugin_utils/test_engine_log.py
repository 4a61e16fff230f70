# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is told of a build that failed."""

from __future__ import annotations

import pytest

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _engine_log


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            "[1/9] Building CXX object common/error.cpp.o\n\n-- Looking for x - not found\nlast",
            ["[1/9] Building CXX object common/error.cpp.o", "-- Looking for x - not found", "last"],
            id="no-error-line",
        ),
        pytest.param(
            "[1/9] Building a\nFAILED: [code=1] a.o\na.cpp:3:1: error: no\n[2/9] Building b\nninja: build stopped",
            ["FAILED: [code=1] a.o", "a.cpp:3:1: error: no"],
            id="compiler-error",
        ),
        pytest.param(
            "c++: fatal error: Killed signal terminated program cc1plus\n",
            ["c++: fatal error: Killed signal terminated program cc1plus"],
            id="killed",
        ),
        pytest.param("", [], id="empty"),
    ],
)
def test_log_end(text, expected):
    assert _engine_log.log_end(text) == expected


def test_log_end_is_bounded():
    assert _engine_log.log_end("\n".join(f"error {number}" for number in range(100)), 2) == ["error 98", "error 99"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        pytest.param("c++: fatal error: Killed signal terminated program cc1plus", "llama_engine_jobs", id="killed-for-memory"),
        pytest.param("nvcc error   : 'cicc' died due to signal 9 (Kill signal)", "llama_engine_jobs", id="nvcc-killed"),
        pytest.param("nvcc error   : 'ptxas' died due to signal 11 (Invalid memory reference)", "", id="nvcc-crashed"),
        pytest.param("collect2: fatal error: ld terminated with signal 9 [Killed]", "llama_engine_jobs", id="linker-killed"),
        pytest.param(
            "cc1plus: out of memory allocating 65536 bytes after a total of 1048576 bytes", "llama_engine_jobs", id="limit-of-memory"
        ),
        pytest.param("virtual memory exhausted: Cannot allocate memory", "llama_engine_jobs", id="no-address-space"),
        pytest.param("fatal error: error writing to /tmp/ccXYZ.s: No space left on device", "llama_engine_build_path", id="disk-full"),
        pytest.param(
            "#error -- unsupported GNU version! gcc versions later than 15 are not supported!", "cuda_toolkit", id="compiler-too-new"
        ),
        pytest.param("nvcc fatal   : Unsupported gpu architecture 'compute_50'", "llama_engine_cuda_architectures", id="architecture"),
        pytest.param("fatal: unable to access 'https://…': Could not resolve host: github.com", "cmake_options", id="fetches-something"),
        pytest.param("a.cpp:3:1: error: expected ';'", "", id="unknown"),
    ],
)
def test_cause(line, words):
    told = _engine_log.cause(f"[1/2] Building a\n{line}\nninja: build stopped\n")
    assert words in told
    assert bool(told) is bool(words)
