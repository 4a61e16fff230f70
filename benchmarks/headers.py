# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long it takes to read the header of Kimi K2."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / ".collections"), str(ROOT / "tests" / "models")]

import gguf
import shapes

from ansible_collections.onprem.llamacpp.plugins.module_utils._gguf import Budget, read_header
from ansible_collections.onprem.llamacpp.plugins.module_utils._headers import LocalFile

PAIRS = 3


def _ours(path: Path) -> int:
    file = LocalFile(str(path))
    try:
        header, _data = read_header(file.fetch, path.stat().st_size, path.name, Budget())
    finally:
        file.close()
    return len(header.tensors)


def _theirs(path: Path) -> int:
    return len(gguf.GGUFReader(path).tensors)


def _seconds(read: Callable[[Path], int], path: Path) -> float:
    began = time.perf_counter()
    count = read(path)
    spent = time.perf_counter() - began
    if count < 1000:
        raise RuntimeError(f"{read.__name__} found {count} tensors, so it did not read the header")
    return spent


def header_vs_ggufpy() -> dict[str, Any]:
    """How many times as long gguf.GGUFReader takes for a header of 163,840 tokens, as many merges and 1,096 tensors.

    Median of pairs, one reader after the other. The file is sparse, so both have the header in memory and neither reads weights.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kimi-k2.gguf"
        shapes.write_file(shapes.SHAPES["kimi-k2"], path, tokens=163_840)
        ratios = []
        for _ in range(PAIRS):
            ours = _seconds(_ours, path)
            ratios.append(_seconds(_theirs, path) / ours)
    return {"value": round(statistics.median(ratios), 1), "unit": "times", "bar": ">= 10", "against": "gguf.GGUFReader, same file"}
