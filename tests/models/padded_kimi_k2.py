# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes the tiny model again, with noise in every layer, so that its transfer takes long enough to be disturbed.

python tests/models/padded_kimi_k2.py        prints the directory (needs gguf and numpy)
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import tiny_kimi_k2
from model_cache import print_made

REPO_ID = "onprem/Padded-Kimi-K2-GGUF"
NAME = "Padded-Kimi-K2"
QUANT = "UD-Q2_K_XL"
SHARDS = 5
PADDING = 22_000_000  # bytes in each of five layers


def make(cache: Path) -> Path:
    """The repository's directory; written when it is not there yet."""
    target = cache / REPO_ID
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".padded-") as temporary:
        work = Path(temporary) / "repository"
        (work / QUANT).mkdir(parents=True)
        tiny_kimi_k2.write_model(work / QUANT / f"{NAME}-{QUANT}.gguf", tiny_kimi_k2.SPLIT_QUANTS[QUANT], SHARDS, PADDING)
        work.rename(target)
    return target


if __name__ == "__main__":
    print_made(__doc__, make)
