# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plans of a fleet in words and as a document, made of real planner results on the example's kinds of host."""

from __future__ import annotations

import copy
import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _plan_report, _plan_text

ROOT = Path(__file__).resolve().parents[4]
CATALOG = yaml.safe_load((ROOT / "roles/llama_plan/vars/catalog/kimi.yml").read_text())["_llama_plan_catalog_kimi"]
SCHEMA = json.loads((ROOT / "docs/plan.schema.json").read_text())
ENTRY = {"alias": "kimi-k2-instruct", **CATALOG["kimi-k2-instruct"]}
NOW = datetime(2026, 11, 21, 6, 0, tzinfo=timezone.utc)
MODELS = "/var/lib/llamacpp/models"


def known(ram_gb: float, vram_gib: tuple[int, ...] = (), free_gb: int = 2000, **wish: Any) -> dict[str, Any]:
    """What plan_inputs returns for a host."""
    settings = {
        **{"model": "kimi-k2-instruct", "quant": "UD-Q2_K_XL", "quant_policy": "refuse", "use_case": "", "instance": "main"},
        **{"endpoint": "https://hub.example", "revision": "main", "model_root": MODELS, "backend": "auto", "host": "0.0.0.0", "port": 8080},
        **{"ctx_size": 0, "parallel": 1, "cache_type_k": "f16", "cache_type_v": "f16", "ubatch_size": 512, "ram_reserve": 4 * 2**30},
        **{"vram_margin": 2**30, "disk_buffer": None, "link_bits_per_second": 10**9, "problems": []},
        **wish,
    }
    devices = [
        {"uuid": f"GPU-{index}", "kind": "cuda", "engine_name": f"CUDA{index}", "name": "Tesla T4", "total": gib * 2**30, "foreign": 0}
        for index, gib in enumerate(vram_gib)
    ]
    facts = {
        "schema_version": 2,
        "collected_at": "2026-11-02T06:00:00Z",
        "hostname": "gpu-1",
        "memory": {"total": int(ram_gb * 1e9)},
        "devices": devices,
        "disks": [{"path": MODELS, "free": free_gb * 10**9}],
    }
    question = {"repo_id": ENTRY["repo_id"], "revision": "main", "endpoint": "https://hub.example"}
    return {"facts": facts, "recorded": True, "wishes": {"main": {"settings": settings, "entry": ENTRY, "question": question, "ports": {}}}}


FLEET: dict[str, Any] = {
    "t4-64": known(67.4, (15,)),
    "t4-96": known(101, (15,)),
    "t4-64-downgrade": known(67.4, (15,), quant_policy="downgrade"),
    "a100x2-512": known(540, (80, 80)),
    "cpu-512": known(540),
    "tiny": known(2, free_gb=1),
    "eight": known(2000, (80,) * 8),
    "unknown-quant": known(540, quant="Q9"),
    "nothing-fits": known(2, quant="auto"),
    "lost": None,
}


def report(fleet: dict[str, Any]) -> dict[str, Any]:
    plans, _refused = _plan_report.plan_all(fleet, [])
    return _plan_report.document(fleet, plans, ["http://127.0.0.1:9 cannot be reached: refused."], NOW)


def test_the_document_follows_its_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    told = json.loads(json.dumps(report(FLEET)))
    jsonschema.validate(told, SCHEMA, cls=jsonschema.Draft202012Validator)
    assert told["meta"]["unplanned"] == ["lost"]
    assert [plan["inventory_hostname"] for plan in told["plans"]] == [host for host in FLEET if host != "lost"]


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("plans", 0, "verdict"), "maybe"),
        (("plans", 0, "inventory_hostname"), ""),
        (("plans", 1, "memory", "devices", 0, "weights"), -1),
        (("plans", 1, "expected", "basis"), "guess"),
        (("meta", "schema_version"), 2),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_the_schema_refuses_what_is_not_a_plan(where: tuple[Any, ...], value: Any) -> None:
    told = copy.deepcopy(report(FLEET))
    inner = told
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(told, SCHEMA, cls=jsonschema.Draft202012Validator)


def test_refused_hosts_are_told_why() -> None:
    _plans, refused = _plan_report.plan_all(FLEET, [])
    assert set(refused) == {"t4-64", "tiny", "unknown-quant", "nothing-fits"}
    assert "is refused on gpu-1: memory: UD-Q2_K_XL needs 96.0 GB" in refused["t4-64"]


def test_a_wish_that_cannot_be_understood_is_that_hosts_problem_alone() -> None:
    plans, refused = _plan_report.plan_all({"good": known(540), "bad": known(540, use_case="fun")}, [])
    assert [host for host, own in plans.items() if own] == ["good"]
    assert "use case 'fun' is not known" in refused["bad"]


def test_each_host_is_planned_with_the_answer_to_its_own_question() -> None:
    files = [{"path": "x-UD-Q2_K_XL.gguf", "size": 360 * 10**9, "sha256": "0" * 64}]
    offer = {"UD-Q2_K_XL": {"bytes": 360 * 10**9, "shards": 1, "complete": True, "files": files}}
    answer = {"__llama_plan_ask": known(540)["wishes"]["main"]["question"], "commit": "a" * 40, "quants": offer}
    other = known(540)
    wish = other["wishes"]["main"]
    wish["question"] = {**wish["question"], "revision": "v2"}
    plans, _refused = _plan_report.plan_all({"asked": known(540), "other": other}, [answer])
    assert [plans[host]["main"]["download"]["bytes"] for host in ("asked", "other")] == [360 * 10**9, 381 * 10**9]


def test_the_terminal_shows_every_host_and_the_fleet() -> None:
    lines = _plan_report.lines(report(FLEET), NOW)
    assert max(len(line) for line in lines) <= 100
    told = "\n".join(lines)
    for part in (
        "━━ t4-64 ━",
        "✘ refuse     kimi-k2-instruct UD-Q2_K_XL, 381 GB",
        "facts        recorded 2026-11-02T06:00:00Z, 19 days ago; the host was not asked",
        "would fit    streaming: UD-TQ1_0 (245 GB), UD-IQ1_S (281 GB)",
        "▼ downgrade  kimi-k2-instruct UD-IQ1_S instead of UD-Q2_K_XL, 281 GB",
        "download     381 GB, about 51 min at 1 Gbit/s",
        "10 hosts: 4 accept, 1 downgrade, 4 refuse, 1 without a plan",
        "http://127.0.0.1:9 cannot be reached: refused. Sizes are those of the catalogue.",
    ):
        assert part in told, part


def test_a_device_that_is_not_used_does_not_go_by_anothers_name() -> None:
    host = known(540, (1, 80))  # the first card is too small to hold anything, so the second is counted as the first
    plan = report({"a": host})["plans"][0]
    assert [device["engine_name"] for device in plan["memory"]["devices"]] == ["CUDA0", "CUDA0"]
    rows = [line for line in _plan_text.text(plan) if "Tesla T4" in line]
    assert [row.split("  ")[0] for row in rows] == [" not used", " CUDA0"]


def test_the_document_says_where_devices_are() -> None:
    host = known(540, (15,))
    host["facts"]["devices"][0].update(uuid="", pci_address="0000:3b:00.0")
    plan = report({"a": host})["plans"][0]
    assert plan["hardware"]["devices"][0]["pci_address"] == "0000:3b:00.0"
    assert plan["memory"]["devices"][0]["uuid"] == "0000:3b:00.0"


@pytest.mark.parametrize(
    ("expected", "words"),
    [
        ({"tokens_per_second": 6.0, "low": 4.2, "high": 11.0, "basis": "bandwidth"}, "4.2 to 11 tokens/s"),
        ({"tokens_per_second": 1.5, "low": None, "high": None, "basis": "guide"}, "about 1.5 tokens/s"),
        ({"tokens_per_second": 1.5, "basis": "guide"}, "about 1.5 tokens/s"),
        ({"tokens_per_second": None, "basis": "none"}, ""),
    ],
    ids=["range", "one figure", "today's planner", "unknown"],
)
def test_speed_is_a_range_where_there_is_one(expected: dict[str, Any], words: str) -> None:
    assert _plan_text.speed(expected) == words


def test_advisories_are_told_with_their_source() -> None:
    plan = _plan_report.plan_all({"a": known(540)}, [])[0]["a"]["main"]
    plan["advisories"] = [{"id": "x", "severity": "warning", "text": "Take care.", "source": "PR 1"}]
    assert " warning      Take care. [PR 1]" in _plan_text.text(plan)


def test_a_long_name_keeps_the_fleets_table_in_shape() -> None:
    plans = report({"a" * 90: known(540), "<script>alert(1)</script>": known(67.4)})["plans"]
    lines = _plan_text.summary(plans, ["b" * 90])
    assert max(len(line) for line in lines) <= 100
    assert any(line.startswith("a" * 23 + "…") for line in lines)
