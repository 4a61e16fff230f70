# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dashboard, rules and scrape configuration name only metrics that the engine's ``/metrics`` gives."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
MONITORING = ROOT / "docs/monitoring"
# What a server of the pinned build answered at /metrics, with its types.
CAPTURED = (ROOT / "tests/unit/fixtures/metrics/b11549.txt").read_text()
GIVEN = dict(re.findall(r"^# TYPE (llamacpp:\w+) (\w+)$", CAPTURED, re.MULTILINE))
METRIC = re.compile(r"llamacpp:\w+")
# Dividing or taking rates of what goes up and down means nothing.
RATED = re.compile(r"\b(?:rate|increase)\((llamacpp:\w+)")


def expressions() -> list[str]:
    dashboard = json.loads((MONITORING / "grafana-dashboard.json").read_text())
    found = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    found += [variable["query"] for variable in dashboard["templating"]["list"]]
    rules = yaml.safe_load((MONITORING / "llamacpp-rules.yml").read_text())
    return found + [rule["expr"] for group in rules["groups"] for rule in group["rules"]]


def test_captured_metrics_have_values() -> None:
    assert len(GIVEN) >= 15
    assert all(re.search(rf"^{name} [0-9.e+-]+$", CAPTURED, re.MULTILINE) for name in GIVEN)


@pytest.mark.parametrize("expression", expressions())
def test_metrics_are_those_of_the_engine(expression: str) -> None:
    assert set(METRIC.findall(expression)) <= GIVEN.keys()
    assert {GIVEN[name] for name in RATED.findall(expression)} <= {"counter"}


def test_a_metric_that_is_not_given_would_be_seen() -> None:
    assert not set(METRIC.findall("rate(llamacpp:kv_cache_usage_ratio[5m])")) <= GIVEN.keys()


def test_scrape_reads_the_key_from_a_file() -> None:
    job: dict[str, Any] = yaml.safe_load((MONITORING / "prometheus.yml").read_text())["scrape_configs"][0]
    assert job["metrics_path"] == "/metrics"
    assert job["authorization"].keys() == {"type", "credentials_file"}


def test_panels_do_not_lie_over_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads((MONITORING / "grafana-dashboard.json").read_text())["panels"]:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken
        taken |= cells
