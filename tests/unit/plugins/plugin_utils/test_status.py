# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.onprem.llamacpp.plugins.filter import status
from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _status


def told(**changes):
    return {
        "deployment": {"id": "a" * 12, "alias": "kimi", "repo_id": "o/kimi", "quant": "UD-Q2_K_XL", "build_id": "b1"},
        "previous": "",
        "committed": True,
        "journal": {"state": "committed", "to": "a" * 12},
        "gate": {"tokens_per_second": 5.25, "gap_seconds": 1.24, "warnings": [], "finished_at": "2026-01-01T00:00:00Z"},
        "actual": {
            "devices": [{"planned": 8_000_000_000, "actual": 8_400_000_000}],
            "host": [{"planned": 2_000_000_000, "actual": 2_100_000_000}],
        },
        "active_state": "active",
        "health": "ok",
        "inspection": {"drift": [], "devices": {}, "xids": [], "uptime_seconds": 90061, "restarts": 0},
        **changes,
    }


FAILED = {
    "state": "failed",
    "to": "a" * 12,
    "reason": "the server needed more than 600 s.",
    "undo_reason": "there is no other deployment to go back to",
}
CASES = {
    "well": ({}, {}, "ok", []),
    "declared-so": ({}, {"model": "kimi", "quant": "UD-Q2_K_XL"}, "ok", []),
    "declared-as-repository": ({}, {"model": "o/kimi", "quant": "auto"}, "ok", []),
    "other-quant-declared": ({}, {"quant": "UD-TQ1_0"}, "degraded", ["it serves UD-Q2_K_XL, declared is UD-TQ1_0"]),
    "other-model-declared": ({}, {"model": "gemma"}, "degraded", ["it serves kimi, declared is gemma"]),
    "drift": ({"inspection": {"drift": ["unit.conf is not as it was deployed"]}}, {}, "degraded", ["unit.conf is not"]),
    "gate-warned": ({"gate": {"warnings": ["only loopback answers"]}}, {}, "degraded", ["only loopback"]),
    "last-switch-undone": (
        {"journal": {"state": "undone", "to": "b" * 12, "reason": "the completion was empty"}},
        {},
        "degraded",
        ["the last switch, to bbbbbbbbbbbb, was undone: the completion was empty"],
    ),
    "last-switch-failed": (
        {"committed": False, "journal": {**FAILED, "committed": "a" * 12}},
        {},
        "degraded",
        ["the last switch, to aaaaaaaaaaaa, failed: the server needed more than 600 s; going back failed too: there is no other"],
    ),
    "failed-and-never-proven": (
        {"committed": False, "journal": {**FAILED, "committed": "b" * 12}},
        {},
        "failed",
        ["its deployment has not passed the gate", "the last switch, to aaaaaaaaaaaa, failed: the server"],
    ),
    "memory-errors": ({"inspection": {"devices": {"GPU-1": {"uncorrected": 2, "slowed_by": []}}}}, {}, "degraded", ["the memory of GPU-1"]),
    "hot": ({"inspection": {"devices": {"GPU-1": {"slowed_by": ["hw_slowdown"]}}}}, {}, "degraded", ["GPU-1 is slowed down"]),
    "restarted": ({"inspection": {"restarts": 2}}, {}, "degraded", ["the server was restarted 2 times"]),
    "down": ({"active_state": "failed"}, {}, "failed", ["its unit is failed"]),
    "loading": ({"health": "loading"}, {}, "failed", ["it is loading its model"]),
    "not-proven": ({"committed": False}, {}, "failed", ["its deployment has not passed the gate"]),
    "declared-nowhere": ({}, None, "degraded", ["llama_instances does not declare it"]),
    "nothing": ({"deployment": {}, "gate": {}, "actual": {}, "health": "none"}, {}, "failed", ["nothing is deployed"]),
}


@pytest.mark.parametrize(("changes", "declared", "state", "reasons"), CASES.values(), ids=CASES)
def test_state_of_an_instance(changes, declared, state, reasons):
    found = _status.instance(told(**changes), declared)
    assert found["state"] == state
    assert len(found["reasons"]) == len(reasons)
    assert all(said.startswith(start) for said, start in zip(found["reasons"], reasons)), found["reasons"]


def test_worst_instance_decides():
    hosts = {"a": {"main": told()}, "b": {"main": told(inspection={"restarts": 1})}}
    made = _status.document(hosts)
    assert (made["state"], made["exit_code"]) == ("degraded", 1)
    made = _status.document({**hosts, "c": None, "d": {}})
    assert (made["state"], made["exit_code"]) == ("failed", 2)
    assert made["hosts"]["c"]["reasons"] == ["it cannot be reached"]
    assert made["hosts"]["d"]["reasons"] == ["nothing is deployed"]


def test_every_host_is_held_to_its_own_variables():
    hosts = {name: {"main": told()} for name in ("a", "b", "c")}
    declared = {"a": {"quant": "UD-Q2_K_XL"}, "b": {"quant": "Q4_K_M", "model": "kimi"}, "c": {"model": "gemma"}}
    made = _status.document(hosts, declared)["hosts"]
    assert {name: host["instances"]["main"]["reasons"] for name, host in made.items()} == {
        "a": [],
        "b": ["it serves UD-Q2_K_XL, declared is Q4_K_M"],
        "c": ["it serves kimi, declared is gemma"],
    }


ENGINES = {
    "as-declared": ({"llama_engine_tag": "b11549"}, []),
    "another": (
        {"llama_engine_tag": "b1154", "llama_engine_source": "archive"},
        ["its engine is b11549-cpu-x86_64-1a2b3c4d, declared is b1154 (llama_engine_tag)"],
    ),
    "the-distribution's": ({"llama_engine_tag": "b11669", "llama_engine_source": "package"}, []),
    "not-declared": ({"llama_engine_tag": None, "llama_engine_source": None}, []),
}


@pytest.mark.parametrize(("variables", "reasons"), ENGINES.values(), ids=ENGINES)
def test_every_declared_instance_is_held_to_the_engine_of_its_host(variables, reasons):
    served = told(deployment={**told()["deployment"], "build_id": "b11549-cpu-x86_64-1a2b3c4d"})
    found = {"__llama_server_found": {"instances": {"main": served, "small": served}}}
    hostvars = {"a": {**variables, **found, "llama_instances": [{"name": "small", "model": "kimi"}]}}
    instances = status.server_status(["a"], hostvars)["hosts"]["a"]["instances"]
    assert {name: each["reasons"] for name, each in instances.items()} == {"main": reasons, "small": reasons}


def test_table_has_a_row_for_every_instance_and_a_line_for_every_reason():
    hosts = {"a": {"main": told(), "small": told(active_state="failed")}, "c": None}
    declared = {"a": {"llama_instances": [{"name": "small", "model": "kimi"}]}}
    lines = _status.text(_status.document(hosts, declared))
    assert lines[0].split()[:3] == ["host", "instance", "state"]
    assert "gap" in lines[0] and "1.2s" in lines[1]
    assert lines[1].split()[:7] == ["a", "main", "ok", "kimi", "UD-Q2_K_XL", "b1", "5.25"]
    assert "10.0/10.5 GB" in lines[1] and "1d1h" in lines[1] and "2026-01-01 00:00" in lines[1]
    assert lines[4:] == ["a small: its unit is failed", "c: it cannot be reached"]


def test_benchmark_stands_beside_what_the_gate_found():
    made = _status.document({"a": {"main": told(benchmark={"tokens_per_second": 6.5})}})
    assert made["hosts"]["a"]["instances"]["main"]["benchmark"] == 6.5
    heading, row = _status.text(made)
    assert row[heading.index("benchmark") :].split()[0] == "6.5"


DURATIONS = {0: "-", 59: "0m59s", 3600: "1h0m", 90061: "1d1h"}


@pytest.mark.parametrize(("seconds", "words"), DURATIONS.items())
def test_duration(seconds, words):
    assert _status.duration(seconds) == words


DECLARED = [{"name": "small", "port": 8081, "model": "kimi"}]
FURTHER = {
    "declared": (DECLARED, {"main": {}, "small": {}}, "ok", ""),
    "not-deployed": (DECLARED, {"main": {}}, "failed", "small is declared in llama_instances and not deployed"),
    "taken-out": ([], {"main": {}, "small": {}}, "degraded", "llama_instances does not declare it"),
    "another-quant": ([{**DECLARED[0], "quant": "Q4_K_M"}], {"main": {}, "small": {}}, "degraded", "declared is Q4_K_M"),
    "by-its-alias": ([{**DECLARED[0], "model": "x", "alias": "kimi"}], {"main": {}, "small": {}}, "ok", ""),
    "whatever-fits": ([{**DECLARED[0], "quant": "Q4_K_M", "quant_policy": "downgrade"}], {"main": {}, "small": {}}, "ok", ""),
}


@pytest.mark.parametrize(("declared", "found", "state", "words"), FURTHER.values(), ids=FURTHER)
def test_further_instances_are_held_to_what_is_declared(declared, found, state, words):
    hosts = {"a": {name: told(**changes) for name, changes in found.items()}}
    made = _status.document(hosts, {"a": {"llama_instances": declared}})
    assert made["state"] == state
    assert words in " ".join(_status.text(made)[1:])


def test_an_instance_that_variables_describe_is_declared():
    made = _status.document({"a": {"edge": told()}}, {"a": {"llama_server_instance": "edge", "llama_instances": None}})
    assert made["state"] == "ok"
