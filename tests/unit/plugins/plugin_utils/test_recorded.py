# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Recorded facts: refused when they are of another time's schema, and kept so that nothing in them is a template."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _recorded

FACTS = {"schema_version": 2, "memory": {"total": 1}, "devices": [], "disks": []}


def test_facts_of_today_are_taken() -> None:
    assert _recorded.check(FACTS, "gpu-1") == FACTS


@pytest.mark.parametrize(
    ("facts", "part"),
    [
        pytest.param({**FACTS, "schema_version": 1}, "the recorded facts of gpu-1 have schema_version 1, 2 is wanted", id="older"),
        pytest.param({**FACTS, "schema_version": 3}, "have schema_version 3, 2 is wanted", id="newer"),
        pytest.param({"memory": {}}, "have schema_version no schema_version, 2 is wanted", id="none at all"),
        pytest.param({"schema_version": 2, "memory": {}}, "they lack devices, disks", id="incomplete"),
        pytest.param({}, "gpu-1 has no recorded facts", id="empty"),
        pytest.param("text", "gpu-1 has no recorded facts", id="no mapping"),
    ],
)
def test_other_facts_are_refused_with_the_next_step(facts: Any, part: str) -> None:
    with pytest.raises(_recorded.RecordedError) as told:
        _recorded.check(facts, "gpu-1")
    assert part in str(told.value)
    assert "record them again with ansible-playbook onprem.llamacpp.plan -e llama_plan_record=DIRECTORY" in str(told.value)


@pytest.mark.parametrize(
    ("collected", "words"),
    [
        ("2026-11-02T06:00:00Z", "19 days ago"),
        ("2026-11-21T03:30:00Z", "2 hours ago"),
        ("2026-11-21T05:59:30Z", "just now"),
        ("2027-01-01T00:00:00Z", "just now"),
        ("yesterday", ""),
        ("", ""),
    ],
)
def test_age(collected: str, words: str) -> None:
    assert _recorded.age(collected, datetime(2026, 11, 21, 6, 0, tzinfo=timezone.utc)) == words


def test_what_a_host_says_is_no_template_when_it_comes_back(tmp_path: Path) -> None:
    facts = {
        **FACTS,
        "warnings": ["{{ lookup('pipe', 'id') }}", "{% for %}", "ümlaut: 'and' \"quotes\"\nlines"],
        "power": None,
        "share": 0.5,
    }
    target = tmp_path / "facts.yml"
    target.write_text(_recorded.document(facts))
    loader = DataLoader()
    loaded = loader.load_from_file(str(target))
    assert Templar(loader=loader, variables=loaded).template(loaded["llama_hardware_recorded"]) == facts
