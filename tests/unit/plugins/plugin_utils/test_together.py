# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several models on one host: what each finds of devices, memory and disk after the ones before it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Optional

import jsonschema
import pytest

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _instances, _plan_report, _together

ROOT = Path(__file__).resolve().parents[4]
GIB, GB = 2**30, 10**9
MODELS = "/models"
SIZES = {"S": 4 * GB, "M": 12 * GB, "L": 40 * GB}
# A dense model by its sizes: on the devices as a whole where they hold it, else in host memory.
ENTRIES = {name: {"alias": name, "repo_id": f"org/{name}-GGUF", "layers": 10, "quants": {}} for name in ("big", "tiny")}
for _entry in ENTRIES.values():
    _entry["quants"] = {quant: {"bytes": size} for quant, size in SIZES.items()}
SETTINGS = {
    **{"model": "big", "quant": "M", "quant_policy": "refuse", "use_case": "", "instance": "main", "devices": [], "revision": "main"},
    **{"endpoint": "https://hub.example", "model_root": MODELS, "backend": "auto", "host": "0.0.0.0", "port": 8080, "placement": {}},
    **{"ctx_size": 0, "parallel": 1, "cache_type_k": "f16", "cache_type_v": "f16", "ubatch_size": 512, "ram_reserve": 4 * GIB},
    **{"vram_margin": GIB, "disk_buffer": GB, "link_bits_per_second": 10**9, "problems": [], "require_gpu": False},
}


def host(cards: tuple[int, ...] = (), ram_gib: int = 64, free_gb: int = 500, **more: Any) -> dict[str, Any]:
    devices = [
        {"uuid": f"GPU-{index}", "kind": "cuda", "engine_name": f"CUDA{index}", "name": "card", "total": gib * GIB, "foreign": 0}
        for index, gib in enumerate(cards)
    ]
    disks = [{"path": MODELS, "free": free_gb * GB, "filesystem": "ext4"}]
    return {"hostname": "gpu-1", "memory": {"total": ram_gib * GIB}, "devices": devices, "disks": disks, "models": [], **more}


def inputs(facts: dict[str, Any], *further: dict[str, Any], serving: Optional[dict[str, Any]] = None, **main: Any) -> dict[str, Any]:
    """What plan_inputs returns for a host; further instances count their ports on from 8081."""
    own = {**SETTINGS, **main}
    numbered = [{"port": 8081 + number, "model": "tiny", "quant": "S", **each} for number, each in enumerate(further)]
    ports = {"spare_port": 0, "front_port": 8443, "front_metrics_port": 9464, **(serving or {}), "port": own["port"]}
    wishes = {"main": {"settings": own, "entry": ENTRIES[own["model"]], "question": {}, "ports": _instances.ports(ports, serving or {})}}
    for each in _instances.read(numbered):
        settings = _instances.settings(each, own)
        wish = {"settings": settings, "entry": ENTRIES[each["model"]], "question": {}, "ports": _instances.ports(each, serving or {})}
        wishes[each["name"]] = wish
    return {"facts": facts, "recorded": False, "wishes": wishes}


def plans(*given: Any, **main: Any) -> dict[str, dict[str, Any]]:
    known = inputs(*given, **main)
    return _together.plan_host(known["facts"], known["wishes"]).plans


def where(plan: dict[str, Any]) -> str:
    """Regime and devices of a plan, or that it is refused."""
    if plan["verdict"] == "refuse":
        return "refused"
    in_use = [share["uuid"][-1] for share in plan["memory"]["devices"] if share["weights"]]
    return " ".join([plan["fit"], *in_use])


def running(plan: dict[str, Any], **more: Any) -> dict[str, Any]:
    """An instance of the host's facts that serves a plan."""
    return {"name": plan["instance"], "active": "active", "committed": True, "plan": plan, "port": 8080, **more}


A, B = {"name": "a"}, {"name": "b"}
LEFT = {
    "one device for both": ((host((24,)), A), ["vram 0", "vram 0"]),
    "the device is full": ((host((16,)), A), ["vram 0", "resident"]),
    "main leaves room": ((host((24,)), {**A, "quant": "M"}), ["vram 0", "resident"]),
    "a device each": ((host((16, 16)), {**A, "devices": ["CUDA1"], "quant": "M"}), ["vram 0", "vram 1"]),
    "a device that is not main's": ((host((16, 16)), {**A, "devices": [0]}), ["vram 1", "vram 0"]),
    "all devices are another's": ((host((16,)), {**A, "devices": ["GPU-0"], "quant": "M"}), ["resident", "vram 0"]),
    "memory for two": ((host(ram_gib=32), A), ["resident", "resident"]),
    "memory for one": ((host(ram_gib=18), {**A, "quant": "M"}), ["resident", "refused"]),
    "memory for two, not three": ((host(ram_gib=32), A, {**B, "quant": "L"}), ["resident", "resident", "refused"]),
    "in their order": ((host((24,)), {**A, "quant": "M"}, B), ["vram 0", "resident", "vram 0"]),
    "disk for one": ((host(free_gb=14), {**A, "quant": "M"}), ["resident", "refused"]),
    "disk for both": ((host(free_gb=26), {**A, "quant": "M"}), ["resident", "resident"]),
    "the same files are fetched once": ((host(free_gb=14), {**A, "model": "big", "quant": "M"}), ["resident", "resident"]),
    "no device is left where one is required": ((host((16,)), {**A, "require_gpu": True}), ["vram 0", "refused"]),
}


@pytest.mark.parametrize(("given", "places"), LEFT.values(), ids=LEFT)
def test_each_is_planned_on_what_is_left(given: Any, places: list[str]) -> None:
    assert [where(plan) for plan in plans(*given).values()] == places


def test_a_refusal_says_host_instance_want_have_and_what_to_do() -> None:
    known = inputs(host(ram_gib=18), {**A, "quant": "M"})
    told = _together.refusals(_together.plan_host(known["facts"], known["wishes"]))
    assert told.startswith("tiny M is refused on gpu-1, instance a: memory: M needs")
    assert "main has 15.0 GB of memory and is planned before it: give that less (a smaller quant, its devices," in told
    assert "no smaller quant fits either" in told
    known = inputs(host(ram_gib=24), {**A, "quant": "L"})
    told = _together.refusals(_together.plan_host(known["facts"], known["wishes"]))
    assert "would fit: quant: M or quant_policy: downgrade in llama_instances" in told


def test_problems_of_all_instances_of_all_hosts_come_together() -> None:
    fleet = {
        "one": inputs(host(ram_gib=18), {**A, "quant": "M"}, {**B, "quant": "Q9"}),
        "two": inputs(host(), A, quant="Q9"),
        "three": inputs(host(), A),
    }
    _plans, refused = _plan_report.plan_all(fleet, [])
    assert set(refused) == {"one", "two"}
    assert "tiny M is refused on gpu-1, instance a" in refused["one"] and "tiny Q9 is refused on gpu-1, instance b" in refused["one"]


def test_another_instances_wish_that_makes_no_sense_leaves_mains_plan() -> None:
    known = inputs(host(), {**A, "quant_policy": "perhaps"})
    planned = _together.plan_host(known["facts"], known["wishes"])
    assert list(planned.plans) == ["main"]
    assert planned.errors == ["llama_instances: a: quant_policy 'perhaps' is not known: it is refuse, downgrade or force"]


def test_ports_that_clash_are_refused_before_anything_changes() -> None:
    told = plans(host(), A, serving={"fronted": True})["a"]
    assert (told["verdict"], told["reasons"][0][:45]) == ("refuse", "port: 8443 is the front_port of a and the fro")


def test_one_engine_serves_all_so_one_device_decides_its_backend() -> None:
    made = plans(host((16,)), {**A, "devices": [0]})
    assert [plan["engine_backend"] for plan in made.values()] == ["cuda", "cuda"]
    assert made["main"]["devices"] == []


def test_devices_that_are_not_cudas_are_named_to_the_engine() -> None:
    facts = host((16, 16))
    facts["devices"] = [{**card, "kind": "vulkan", "engine_name": f"Vulkan{n}"} for n, card in enumerate(facts["devices"])]
    made = plans(facts, {**A, "devices": ["Vulkan1"]}, backend="vulkan", quant="L")
    told = [(plan["confined"], [device["engine_name"] for device in plan["devices"]]) for plan in made.values()]
    assert told == [(True, []), (True, ["Vulkan1"])]
    assert not plans(facts, A, backend="vulkan")["main"]["confined"]


def deployed(facts: dict[str, Any], *further: dict[str, Any], **main: Any) -> dict[str, Any]:
    """The host once its instances were planned and serve: facts of the next run."""
    made = plans(facts, *further, **main)
    models = [
        {
            **{key: plan[key] for key in ("repo_id", "commit", "quant")},
            **{"path": f"{MODELS}/{name}", "bytes": plan["download"]["bytes"], "complete": True, "manifest": {"files": []}},
            "used_by": [{"instance": name, "link": "current"}],
        }
        for name, plan in made.items()
    ]
    return {**facts, "instances": [running(plan, port=8080 + number) for number, plan in enumerate(made.values())], "models": models}


@pytest.mark.parametrize("cards", [(), (24,), (16, 16), (16,)], ids=["processor", "one device", "two devices", "a small one"])
def test_a_second_run_changes_nothing(cards: tuple[int, ...]) -> None:
    wishes = [{**A, **({"devices": [1]} if len(cards) > 1 else {})}]
    first = plans(host(cards), *wishes)
    second = plans(deployed(host(cards), *wishes), *wishes)
    for name in first:
        assert second[name]["kept"] and second[name]["verdict"] == "accept"
        assert [second[name][key] for key in ("placement", "memory", "orders")] == [
            first[name][key] for key in ("placement", "memory", "orders")
        ]


def test_a_placement_stays_while_it_fits_and_moves_when_main_needs_the_room() -> None:
    facts = deployed(host((24,)), A, quant="S")
    assert (plans(facts, A, quant="S")["a"]["kept"], plans(facts, A, quant="M")["a"]["kept"]) == (True, True)
    larger = plans({**facts, "devices": host((16,))["devices"]}, A, quant="M")
    assert [where(plan) for plan in larger.values()] == ["vram 0", "resident"]
    assert not larger["a"]["kept"]


TURNS = {
    "main first": (host((24,)), {"quant": "S"}, {"quant": "S"}, [0, 1]),
    "nothing runs yet": (host((24,), instances=[]), None, {"quant": "M"}, [0, 1]),
    "the other makes room": (host((16,)), {"quant": "S"}, {"quant": "M"}, [1, 0]),
}


@pytest.mark.parametrize(("facts", "before", "now", "turns"), TURNS.values(), ids=TURNS)
def test_who_makes_room_is_switched_first(facts: dict[str, Any], before: Any, now: dict[str, Any], turns: list[int]) -> None:
    known = deployed(facts, {**A, "vram_margin": 0}, **before) if before else facts
    made = plans(known, {**A, "vram_margin": 0}, **now)
    assert [plan["turn"] for plan in made.values()] == turns


def test_two_that_need_each_others_room_are_refused_with_what_to_stop() -> None:
    """Each on a device of its own, and now the other way round, where both are nearly full."""
    facts = deployed(host((16, 16)), {**A, "quant": "M", "devices": [1]}, devices=[0])
    known = inputs(facts, {**A, "quant": "M", "devices": [0]}, devices=[1])
    told = _together.refusals(_together.plan_host(facts, known["wishes"]))
    assert "main has no room until a has moved, nor the other way round: systemctl stop llamacpp@a, and run again" in told
    stopped = [entry if entry["name"] == "main" else {**entry, "active": "inactive"} for entry in facts["instances"]]
    made = _together.plan_host({**facts, "instances": stopped}, known["wishes"]).plans
    assert [(where(plan), plan["turn"]) for plan in made.values()] == [("vram 1", 0), ("vram 0", 1)]


def test_an_instance_that_was_taken_out_keeps_what_it_has_and_is_named() -> None:
    facts = deployed(host((24,)), {**A, "quant": "M"}, quant="S")
    alone = plans(facts, quant="M")["main"]
    assert (where(alone), alone["beside"][0]["instance"], alone["beside"][0]["declared"]) == ("resident", "a", False)
    known = inputs(facts, quant="M", require_gpu=True)
    told = _together.refusals(_together.plan_host(facts, known["wishes"]))
    assert "which llama_instances does not declare: declare it, or remove it (playbooks/remove.yml -e llama_remove_instances=a)" in told
    moved = plans(facts, quant="S", port=8081)["main"]
    assert moved["reasons"][0].startswith("port: 8081 is that of instance a, which llama_instances does not declare")
    facts["instances"][1]["front_ports"] = [8444]
    other = plans(facts, {**B, "port": 8082, "front_port": 8444}, quant="S", serving={"fronted": True})["b"]
    assert other["reasons"][0].startswith("port: 8444 is that of instance a, which llama_instances does not declare")


@pytest.mark.parametrize(
    ("listener", "words"),
    [
        pytest.param(
            {"program": "llama-server", "pid": 77, "unit": "session-1.scope"},
            "port: 8081 is held by llama-server (PID 77, session-1.scope): stop it (kill 77, a llama-server that was started by hand)"
            " or choose another one in llama_instances",
            id="a stranger",
        ),
        pytest.param(
            {"program": "llama-server", "pid": 78, "unit": "llamacpp@b.service"},
            "llamacpp@b.service is to have another port by the same inventory: change its port in a run of its own",
            id="an instance that would move away",
        ),
        pytest.param({"program": "llama-server", "pid": 79, "unit": "llamacpp@a.service"}, "", id="itself"),
    ],
)
def test_who_holds_the_port_of_an_instance_is_named(listener: dict[str, Any], words: str) -> None:
    facts = host(listeners=[{"address": "127.0.0.1", "port": 8081, **listener}])
    told = "; ".join(plans(facts, A, B)["a"]["reasons"])
    assert (words in told) if words else not told


def test_models_of_another_instance_are_never_in_the_way() -> None:
    """The disk is full of a model that nothing uses and another instance wishes for."""
    wanted = {"repo_id": "org/tiny-GGUF", "commit": "", "quant": "S", "path": f"{MODELS}/s", "bytes": SIZES["S"], "complete": True}
    wanted.update(manifest={"files": []}, used_by=[])
    facts = host(free_gb=10, models=[wanted])
    assert where(plans(facts, prune=True)["main"]) == "resident"
    assert where(plans(facts, A, prune=True)["main"]) == "refused"


def test_a_streaming_model_keeps_its_floor() -> None:
    """Its guide's figure for the memory of the host is not another instance's to fill."""
    entry = {**ENTRIES["big"], "experts": 8, "quants": {"L": {"bytes": 90 * GB, "ram_streaming": 50 * GB}}}
    known = inputs(host(ram_gib=64), {**A, "quant": "L"}, quant="L")
    known["wishes"]["main"]["entry"] = entry
    made = _together.plan_host(known["facts"], known["wishes"]).plans
    assert [where(plan) for plan in made.values()] == ["streaming", "streaming"]
    assert made["a"]["memory"]["host"]["capacity"] < 64 * GIB - 50 * GB < made["main"]["memory"]["host"]["capacity"]


def test_the_document_has_a_plan_for_each_instance() -> None:
    from datetime import datetime, timezone  # noqa: PLC0415

    fleet = {"one": inputs(host((24,)), A), "two": inputs(host())}
    made, _refused = _plan_report.plan_all(fleet, [])
    now = datetime(2026, 11, 21, tzinfo=timezone.utc)
    told = json.loads(json.dumps(_plan_report.document(fleet, made, [], now)))
    jsonschema.validate(told, json.loads((ROOT / "docs/plan.schema.json").read_text()), cls=jsonschema.Draft202012Validator)
    assert [(plan["inventory_hostname"], plan["instance"]) for plan in told["plans"]] == [("one", "main"), ("one", "a"), ("two", "main")]
    text = "\n".join(_plan_report.lines(told, now))
    assert "━━ one, instance a ━" in text and "2 hosts, 3 instances: 3 accept" in text
    assert "beside       main, which has 9.1 GB of memory and 13.1 GB of devices" in text
