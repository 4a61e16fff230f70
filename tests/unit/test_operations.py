# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The times that docs/operations.md computes for a thin link: done again from the catalogue's sizes."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
TEXT = " ".join((ROOT / "docs/operations.md").read_text(encoding="utf-8").split())
ROW = re.compile(r"\| (\d+) GB \((\S+)\) \| ([\d.]+) h \| (\d+) nights? \| (\d+) min \|")
ROWS = ROW.findall(TEXT)
SHARE = 0.94  # of a line's rate, as the page says
NIGHT = 8  # hours, 22:00-06:00


def hours(size: float, rate: float) -> float:
    return size * 8 / (rate * SHARE) / 3600


@pytest.mark.parametrize("row", ROWS, ids=[row[1] for row in ROWS])
def test_a_row_follows_from_the_size_in_the_catalogue(row: tuple[str, ...]) -> None:
    catalog = yaml.safe_load((ROOT / "roles/llama_plan/vars/catalog/kimi.yml").read_text(encoding="utf-8"))
    models = next(value for value in catalog.values() if "kimi-k2-instruct" in value)
    size = models["kimi-k2-instruct"]["quants"][row[1]]["bytes"]
    assert row == (
        f"{size / 1e9:.0f}",
        row[1],
        f"{hours(size, 1e8):.1f}",
        f"{math.ceil(hours(size, 1e8) / NIGHT)}",
        f"{hours(size, 1e9) * 60:.0f}",
    )


@pytest.mark.parametrize(
    "sentence",
    [
        f"Twenty hosts that each fetch 381 GB over 100 Mbit/s take {20 * hours(381e9, 1e8):.0f} hours",
        f"With a mirror they take the {hours(381e9, 1e8):.0f} hours above",
        f"one host at 1 Gbit/s {hours(381e9, 1e9) * 60:.0f} minutes",
        f"twenty that share the mirror's 1 Gbit/s {20 * hours(381e9, 1e9):.0f} hours, its 10 Gbit/s less than two",
        f"381 GB take {hours(381e9, 1e8):.1f} hours at 100 Mbit/s and {hours(381e9, 1e9) * 60:.0f} minutes at 1 Gbit/s",
        f"reading 245 GB from a disk of 150 MB/s takes {245e9 / 150e6 / 60:.0f} minutes",
        f"381 GB take {381e9 / 100e6 / 60:.0f} minutes at the 100 MB/s above",
        f"llama_model_rate_limit: {int(0.48 * 1e8 / 8)} # bytes per second: about half of 100 Mbit/s",
    ],
)
def test_a_sentence_follows_from_the_same_sum(sentence: str) -> None:
    assert sentence in TEXT


def test_the_page_has_the_table() -> None:
    assert len(ROWS) == 3
    assert 20 * hours(381e9, 1e10) < 2
