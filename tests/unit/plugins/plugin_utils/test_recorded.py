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


DEVICE = {"uuid": "GPU-1", "kind": "cuda", "engine_name": "CUDA0", "name": "Tesla T4", "total": 15 * 2**30, "foreign": 0}
DISK = {"path": "/models", "free": 10**12}


def without(mapping: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in mapping.items() if name != key}


def test_facts_without_what_is_optional_are_taken() -> None:
    facts = {**FACTS, "devices": [without(DEVICE, "foreign"), {**DEVICE, "processes": None}], "disks": [DISK]}
    assert _recorded.check(facts, "gpu-1") == facts


@pytest.mark.parametrize(
    ("part", "told"),
    [
        pytest.param({"memory": None}, "memory is None, expected a mapping", id="no memory"),
        pytest.param({"memory": {}}, "memory.total is missing, expected a whole number from 1 on", id="no total"),
        pytest.param({"memory": {"total": 0}}, "memory.total is 0, expected a whole number from 1 on", id="total 0"),
        pytest.param({"memory": {"total": "64 GB"}}, "memory.total is '64 GB', expected", id="total in words"),
        pytest.param({"memory": {"total": True}}, "memory.total is True, expected", id="total a boolean"),
        pytest.param({"memory": {"total": 1, "cgroup_limit": "max"}}, "memory.cgroup_limit is 'max', expected", id="limit"),
        pytest.param({"memory": {"total": 1, "bandwidth": 40}}, "memory.bandwidth is 40, expected a mapping", id="bandwidth"),
        pytest.param(
            {"memory": {"total": 1, "bandwidth": {"bytes_per_second": "fast"}}}, "memory.bandwidth.bytes_per_second is 'fast'", id="fast"
        ),
        pytest.param({"devices": None}, "devices is None, expected a list of mappings", id="no devices"),
        pytest.param({"devices": DEVICE}, "expected a list of mappings", id="one device"),
        pytest.param({"devices": [DEVICE, "T4"]}, "devices[1] is 'T4', expected a mapping", id="a device's name"),
        *(
            pytest.param({"devices": [without(DEVICE, key)]}, f"devices[0].{key} is missing, expected ", id=f"no {key}")
            for key in ("uuid", "kind", "engine_name", "name", "total")
        ),
        pytest.param({"devices": [{**DEVICE, "uuid": None}]}, "devices[0].uuid is None, expected text", id="uuid null"),
        pytest.param({"devices": [{**DEVICE, "total": -1}]}, "devices[0].total is -1, expected a whole number from 0 on", id="negative"),
        pytest.param({"devices": [{**DEVICE, "foreign": "1G"}]}, "devices[0].foreign is '1G', expected a whole number", id="foreign"),
        pytest.param({"devices": [{**DEVICE, "processes": [{}]}]}, "devices[0].processes[0].ours is missing", id="processes"),
        pytest.param({"disks": {}}, "disks is {}, expected a list of mappings", id="no disks"),
        pytest.param({"disks": [without(DISK, "path")]}, "disks[0].path is missing, expected text", id="no path"),
        pytest.param({"disks": [{**DISK, "free": 1.5}]}, "disks[0].free is 1.5, expected a whole number from 0 on", id="fraction"),
    ],
)
def test_odd_facts_are_named_with_what_was_found(part: dict[str, Any], told: str) -> None:
    with pytest.raises(_recorded.RecordedError) as error:
        _recorded.check({**FACTS, **part}, "gpu-1")
    assert told in str(error.value)
    assert str(error.value).startswith("the recorded facts of gpu-1 cannot be planned with: ")
    assert "record them again with ansible-playbook onprem.llamacpp.plan" in str(error.value)


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
