# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.onprem.llamacpp.plugins.plugin_utils._downgrade import smaller_quants

IDENTITY = {"repo_id": "o/kimi", "commit": "c1"}
PLAN = {
    **IDENTITY,
    "quant": "Q4",
    "alternatives": [
        {"quant": "Q1", "bytes": 245, "verdict": "accept"},
        {"quant": "Q8", "bytes": 1000, "verdict": "accept"},
        {"quant": "Q2", "bytes": 381, "verdict": "accept"},
        {"quant": "Q3", "bytes": 450, "verdict": "refuse"},
        {"quant": "Q4", "bytes": 588, "verdict": "accept"},
    ],
}


def model(quant, **changes):
    return {**IDENTITY, "quant": quant, "complete": True, **changes}


CASES = {
    "all-that-fit-largest-first": ([], True, 9, ["Q2", "Q1"]),
    "bounded": ([], True, 1, ["Q2"]),
    "none-asked-for": ([], True, 0, []),
    "present-only": ([model("Q1"), model("Q8"), model("Q3")], False, 9, ["Q1"]),
    "half-there": ([model("Q2", complete=False)], False, 9, []),
    "of-another-commit": ([model("Q2", commit="c0")], False, 9, []),
    "of-another-model": ([model("Q2", repo_id="o/other")], False, 9, []),
}


@pytest.mark.parametrize(("models", "download", "limit", "quants"), CASES.values(), ids=CASES)
def test_smaller_quants(models, download, limit, quants):
    assert smaller_quants(PLAN, models, download, limit) == quants


def test_quant_that_the_plan_does_not_know_has_no_smaller_one():
    assert smaller_quants({**PLAN, "quant": "Q9"}, [], True, 9) == []
