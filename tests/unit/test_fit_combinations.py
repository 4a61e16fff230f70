# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the memory model is compared with an engine over: enough, no two the same, and mostly models of the size that matters."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

LISTED = yaml.safe_load((Path(__file__).resolve().parents[2] / "benchmarks/fit.yml").read_text())["combinations"]


def test_no_combination_is_measured_twice() -> None:
    asked = [json.dumps({key: value for key, value in entry.items() if key != "quick"}, sort_keys=True) for entry in LISTED]
    assert [entry for entry in asked if asked.count(entry) > 1] == []


def test_there_are_enough_combinations() -> None:
    assert len(LISTED) >= 60
    assert len([entry for entry in LISTED if (entry["shape"], entry["count"]) == ("kimi-k2", 2)]) >= 20
    assert len([entry for entry in LISTED if entry.get("quick")]) == 12
