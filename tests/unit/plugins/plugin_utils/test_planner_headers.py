# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans from headers and from an engine's answer: placement, settings, speed."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
from test_planner import A100, K2, T4, device, host, listing, wish

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _plan_text, _planner

GIB = 2**30
QUANT = "UD-Q2_K_XL"


def offer(model: Any, quant: str = QUANT) -> dict[str, Any]:
    """A repository that holds one quant whose header was read."""
    found = listing(**{quant.replace("-", "__"): model.header["bytes"]})
    found["quants"][quant]["header"] = model.header
    return found


def planned(model: Any, facts: dict[str, Any], exact: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    return _planner.plan(facts, wish(**changes), K2, offer(model), exact)


@pytest.mark.parametrize(
    ("facts", "fit", "placement"),
    [
        pytest.param(host(101, T4), "streaming", {"n_cpu_moe": "all", "load_mode": "mmap", "repack": False, "warmup": False}, id="T4"),
        pytest.param(host(540, T4), "resident", {"n_cpu_moe": "all", "load_mode": "none", "repack": True}, id="T4 with much memory"),
        pytest.param(host(540, A100), "resident", {"n_cpu_moe": 34}, id="two A100 take the experts of 27 layers"),
        pytest.param(host(101, [device(81920, index=i) for i in range(8)]), "vram", {"n_cpu_moe": None}, id="eight A100 take all"),
        pytest.param(host(540, []), "resident", {"n_gpu_layers": 0}, id="no device"),
    ],
)
def test_regimes(shape_models, facts, fit, placement):
    found = planned(shape_models["kimi-k2"], facts, ctx_size=131072 if facts["devices"] == A100 else 0)
    assert (found["verdict"], found["fit"], found["basis"]) == ("accept", fit, "headers"), found["reasons"]
    assert {key: found["placement"][key] for key in placement} == placement


AMX = {"cpu": {"flags": ["avx512f", "amx_int8", "amx_tile"]}}


@pytest.mark.parametrize(
    ("shape", "facts", "changes", "repack"),
    [
        pytest.param("kimi-k2", host(540, [], **AMX), {}, False, id="latent attention on the processor"),
        pytest.param("kimi-linear", host(540, [], **AMX), {}, False, id="in some layers"),
        pytest.param("llama", host(540, [], **AMX), {}, False, id="another attention"),
        pytest.param("kimi-k2", host(540, [], cpu={"flags": ["avx512f"]}), {}, True, id="no AMX"),
        pytest.param("kimi-k2", host(540, T4, **AMX), {}, True, id="on the device, the experts beside"),
        pytest.param("kimi-k2", host(540, A100, **AMX), {"placement": {"n_gpu_layers": 61, "n_cpu_moe": 61}}, False, id="one layer left"),
        pytest.param("kimi-k2", host(540, [], **AMX), {"placement": {"repack": True}}, True, id="ordered"),
    ],
)
def test_weights_are_not_repacked_where_kernels_for_amx_would_end_the_engine(shape_models, shape, facts, changes, repack):
    found = planned(shape_models[shape], facts, **changes)
    assert found["placement"]["repack"] is repack
    assert any("not repacked" in note for note in found["notes"]) is (not repack)


def test_weights_are_not_repacked_for_amx_where_only_the_size_is_known():
    offered = listing(UD__Q2_K_XL=345 * 10**9)
    assert _planner.plan(host(540, [], **AMX), wish(), K2, offered)["placement"]["repack"] is False
    assert _planner.plan(host(540, A100, **AMX), wish(), K2, offered)["placement"]["repack"] is True


def test_quants_whose_headers_were_not_read_are_sized_after_the_one_that_was(shape_models):
    model = shape_models["kimi-k2"]
    found = offer(model)
    half = listing(UD__TQ1_0=model.total // 2)["quants"]["UD-TQ1_0"]
    found["quants"]["UD-TQ1_0"] = half
    plan = _planner.plan(host(540, A100), wish(quant="UD-TQ1_0"), K2, found)
    assert plan["basis"] == "catalog"
    assert plan["placement"]["n_cpu_moe"] is None or plan["placement"]["n_cpu_moe"] < 34
    held = sum(share["weights"] for share in plan["memory"]["devices"]) + plan["memory"]["host"]["weights"]
    assert held == model.total // 2
    assert sum(share["context"] for share in plan["memory"]["devices"]) == 70272 * plan["placement"]["ctx_size"]


def test_only_devices_that_hold_something_are_the_servers(shape_models):
    cards = [device(24576, 24000, 0), device(81920, index=1), device(81920, index=2)]
    found = planned(shape_models["kimi-linear"], host(101, cards))
    assert [(used["uuid"], used["engine_name"]) for used in found["devices"]] == [("GPU-1", "CUDA0")]
    assert found["placement"]["tensor_split"] is None
    assert [share["weights"] > 0 for share in found["memory"]["devices"]] == [False, True, False]
    answer = {"asked": True, "fits": True, "quant": QUANT, "placement": {"n_gpu_layers": 999, "n_cpu_moe": 3, "tensor_split": None}}
    answer["devices"] = [{"uuid": "GPU-1", "engine_name": "CUDA0", "weights": 7, "context": 8, "compute": 9}]
    exact = planned(shape_models["kimi-linear"], host(101, cards), answer)
    assert [share["weights"] for share in exact["memory"]["devices"]] == [0, 7, 0]
    assert exact["memory"]["devices"][1]["engine_name"] == "CUDA0"


def test_memory_adds_up(shape_models):
    model = shape_models["kimi-k2"]
    found = planned(model, host(540, A100))["memory"]
    assert sum(share["weights"] for share in found["devices"]) + found["host"]["weights"] == model.total
    for share in found["devices"]:
        assert share["headroom"] == share["capacity"] - share["weights"] - share["context"] - share["compute"] >= 0


def exact_answer(plan: dict[str, Any], layers: int, extra: int = 0, fits: bool = True) -> dict[str, Any]:
    shares = [
        {
            "uuid": share["uuid"],
            "engine_name": share["engine_name"],
            **{part: share[part] + extra for part in ("weights", "context", "compute")},
        }
        for share in plan["memory"]["devices"]
    ]
    placement = {"n_gpu_layers": 999, "n_cpu_moe": layers, "tensor_split": plan["placement"]["tensor_split"]}
    return {"asked": True, "fits": fits, "quant": plan["quant"], "placement": placement, "devices": shares}


def test_the_engines_answer_replaces_the_estimate(shape_models):
    model, facts = shape_models["kimi-k2"], host(540, A100)
    guess = planned(model, facts)
    found = planned(model, facts, exact_answer(guess, 40, extra=GIB))
    assert found["basis"] == "engine"
    assert found["placement"]["n_cpu_moe"] == 40
    assert [share["weights"] for share in found["memory"]["devices"]] == [share["weights"] + GIB for share in guess["memory"]["devices"]]
    assert found["memory"]["host"]["weights"] == model.total - sum(share["weights"] for share in found["memory"]["devices"])


def test_an_engine_that_finds_no_room_means_the_cpu(shape_models):
    model, facts = shape_models["kimi-k2"], host(540, T4)
    found = planned(model, facts, exact_answer(planned(model, facts), 61, fits=False))
    assert found["placement"]["n_gpu_layers"] == 0
    assert "the engine finds no placement that fits the devices" in found["notes"]


def test_an_answer_about_another_quant_is_ignored(shape_models):
    model, facts = shape_models["kimi-k2"], host(540, T4)
    answer = {**exact_answer(planned(model, facts), 61), "quant": "UD-TQ1_0"}
    assert planned(model, facts, answer)["basis"] == "headers"


def test_an_engine_that_could_not_be_asked_changes_nothing(shape_models):
    model, facts = shape_models["kimi-k2"], host(540, T4)
    assert planned(model, facts, {"asked": False, "reason": "no holes", "quant": QUANT}) == planned(model, facts)


def test_quantised_cache_and_slots_are_counted(shape_models):
    model, facts = shape_models["qwen3-moe"], host(540, A100)

    def context(**changes: Any) -> int:
        return sum(share["context"] for share in planned(model, facts, ctx_size=65536, **changes)["memory"]["devices"])

    assert context(cache_type_k="q8_0", cache_type_v="q8_0") < 0.54 * context()
    assert context(parallel=4) == context()  # the context is shared among the slots


@pytest.mark.parametrize(
    ("shape", "ram_gb", "slots", "copies"),
    [
        pytest.param("kimi-linear", 101, 1, 32, id="recurrent state"),
        pytest.param("kimi-linear", 67.4, 16, 10, id="recurrent state of many slots"),
        pytest.param("gemma3", 101, 1, 27, id="windows"),
        pytest.param("llama", 101, 1, None, id="a cache that needs none"),
    ],
)
def test_copies_of_what_cannot_be_wound_back_are_planned_in_host_memory(shape_models, shape, ram_gb, slots, copies):
    found = planned(shape_models[shape], host(ram_gb, A100), parallel=slots)
    assert found["placement"].get("ctx_checkpoints") == copies
    assert found["memory"]["host"]["headroom"] >= 0


def test_volta_cannot_run_the_latent_cache_in_a_flash(shape_models):
    model = shape_models["kimi-k2"]
    newer, older = ([{**device(32768), "compute_capability": capability}] for capability in ("7.5", "7.0"))
    newer, older = (planned(model, host(540, cards), ctx_size=32768) for cards in (newer, older))
    assert older["memory"]["devices"][0]["compute"] > newer["memory"]["devices"][0]["compute"] + 3 * GIB


@pytest.mark.parametrize(
    ("facts", "low", "high"),
    [
        pytest.param(host(101, T4), 0.05, 0.5, id="from disk"),
        pytest.param(host(540, T4), 1.0, 8.0, id="from memory"),
        pytest.param(host(101, [device(81920, index=i) for i in range(8)]), 3.0, 50.0, id="from devices"),
    ],
)
def test_speed_is_a_range_by_bandwidths(shape_models, facts, low, high):
    expected = planned(shape_models["kimi-k2"], facts)["expected"]
    assert low <= expected["low"] < expected["tokens_per_second"] < expected["high"] <= high
    assert expected["basis"] == "bandwidth"


def test_a_benchmark_takes_the_estimates_place_and_is_shown_beside_it(shape_models):
    facts = host(540, T4, instances=[{"name": "main", "benchmark": {"quant": QUANT, "commit": "a" * 40, "tokens_per_second": 4.2}}])
    estimate = planned(shape_models["kimi-k2"], host(540, T4))["expected"]
    result = planned(shape_models["kimi-k2"], facts)
    assert result["expected"] == {
        "tokens_per_second": 4.2,
        "low": 4.2,
        "high": 4.2,
        "basis": "benchmark",
        "estimate": {"low": estimate["low"], "high": estimate["high"], "basis": "bandwidth"},
    }
    said = re.sub(r"\s+", " ", " ".join(_plan_text.text(result)))
    assert "4.2 tokens/s, measured on this host" in said
    assert f"{estimate['low']:.1f} to {estimate['high']:.1f} tokens/s had been expected, estimated from memory bandwidths" in said


def test_a_start_that_took_more_than_planned_is_told(shape_models):
    taken = [
        {"engine_name": "CUDA0", "planned": 10 * 10**9, "actual": 11 * 10**9, "error_percent": 10.0},
        {"engine_name": "CUDA1", "planned": 10 * 10**9, "actual": 9 * 10**9, "error_percent": -10.0},
    ]
    notes = planned(shape_models["kimi-k2"], host(540, A100, instances=[{"name": "main", "actual": taken}]))["notes"]
    assert [note for note in notes if "last start" in note] == [
        "CUDA0 took 1.0 GB more than planned at the last start: raise llama_plan_vram_margin by as much"
    ]


def test_a_refusal_says_what_would_make_it_fit(shape_models):
    reasons = planned(shape_models["kimi-k2"], host(67.4, T4))["reasons"]
    assert "memory: UD-Q2_K_XL needs 96.0 GB of host memory even with its experts on disk, the host has 67.4 GB" in reasons
    assert "it would fit with 96.0 GB of host memory, 28.6 GB more than there is" in reasons


@pytest.mark.parametrize(
    ("settings", "verdict", "told"),
    [
        pytest.param({"engine_number": 11000}, "refuse", 1, id="refuses"),
        pytest.param({"engine_number": 11000, "quant_policy": "force"}, "refuse", 1, id="a-forced-quant-forces-no-engine"),
        pytest.param(
            {"engine_number": 11000, "problems": ["llama.cpp b11000 is refused (advisory server-floor). …"]}, "refuse", 1, id="once"
        ),
        pytest.param({"engine_number": 11000, "engine_force": ["floor"]}, "accept", 0, id="allowed"),
        pytest.param({"engine_number": 11549}, "accept", 0, id="above"),
    ],
)
def test_a_security_floor(shape_models, settings, verdict, told):
    plan = planned(shape_models["kimi-k2"], host(540, A100), **settings)
    assert (plan["verdict"], sum("server-floor" in reason for reason in plan["reasons"])) == (verdict, told)
    assert ("server-floor" in [entry["id"] for entry in plan["advisories"]]) is (settings["engine_number"] < 11393)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        pytest.param({"engine_number": 11549, "engine_contains_rpc": True}, True, id="contains-it"),
        pytest.param({"engine_number": 11549, "engine_contains_rpc": False}, False, id="without"),
        pytest.param({"engine_number": 11865, "engine_contains_rpc": True}, False, id="new"),
        pytest.param({"engine_number": 0, "engine_contains_rpc": True}, False, id="number-unknown"),
    ],
)
def test_rpc_in_the_engine_that_the_run_installs_is_told_before(shape_models, settings, told):
    entry = {"id": "contained", "severity": "warning", "when": {"contains_rpc_below": 11865}, "text": "RPC.", "source": "here"}
    plan = planned(shape_models["kimi-linear"], host(101, A100), advisories=[entry], **settings)
    assert ("contained" in [entry["id"] for entry in plan["advisories"]]) is told


def test_a_grave_advisory_refuses_and_force_overrides_it(shape_models):
    model = shape_models["kimi-linear"]
    entry = {"id": "broken", "severity": "error", "when": {"architecture": "kimi-linear"}, "text": "It stops.", "source": "here"}
    refused = planned(model, host(101, A100), advisories=[entry])
    assert (refused["verdict"], refused["reasons"]) == ("refuse", ["advisory broken: It stops."])
    forced = planned(model, host(101, A100), advisories=[entry], quant_policy="force")
    assert forced["verdict"] == "accept"
    assert [told["id"] for told in forced["advisories"]] == ["broken"]


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("embedding_length", None, "does not say embedding_length"),
        ("embedding_length", 0, "has no embedding or no attention head"),
        ("attention.key_length", -128, "has -128 for attention.key_length"),
        ("attention.key_length", [128, 64], "has [128, 64] for attention.key_length"),
        ("context_length", "long", "has long for context_length"),
        ("expert_count", 1.5, "has 1.5 for expert_count"),
        ("attention.head_count_kv", [8], "does not say attention.head_count_kv for all of its 80 layers"),
        ("attention.sliding_window", [1], "has [1] for attention.sliding_window"),
    ],
)
def test_a_quant_whose_header_makes_no_sense_is_estimated_by_its_size(shape_models, key, value, told):
    found = offer(shape_models["llama"])
    header = found["quants"][QUANT]["header"] = copy.deepcopy(found["quants"][QUANT]["header"])
    header["parameters"][key] = value
    plan = _planner.plan(host(540, T4), wish(), K2, found)
    assert plan["basis"] == "catalog"
    assert any(note.startswith("estimated by its size") and told in note for note in plan["notes"]), plan["notes"]


def test_who_tells_a_part_of_the_placement_means_the_devices(shape_models):
    for told in ({"n_cpu_moe": 50}, {"tensor_split": [47.0, 15.0], "n_cpu_moe": 36}):
        plan = planned(shape_models["kimi-k2"], host(540, A100), placement=told)
        assert (plan["verdict"], plan["placement"]["n_gpu_layers"], len(plan["devices"])) == ("accept", 999, 2), plan["reasons"]


def test_a_told_placement_that_overflows_is_refused(shape_models):
    plan = planned(shape_models["kimi-k2"], host(540, A100), placement={"n_gpu_layers": 999})
    assert plan["verdict"] == "refuse"
    assert plan["reasons"][0].startswith("device: the placement takes 1")
    forced = planned(shape_models["kimi-k2"], host(540, A100), placement={"n_gpu_layers": 999}, quant_policy="force")
    assert (forced["verdict"], len(forced["devices"])) == ("accept", 2)


def test_a_told_placement_that_the_engine_cannot_fit_stays_on_the_devices_and_is_refused(shape_models):
    model, facts, told = shape_models["kimi-k2"], host(540, A100), {"n_cpu_moe": 50}
    answer = exact_answer(planned(model, facts, placement=told), 50, fits=False)
    plan = planned(model, facts, answer, placement=told)
    assert (plan["verdict"], plan["engine_backend"], len(plan["devices"])) == ("refuse", "cuda", 2)


def test_memory_that_is_shared_with_the_host_is_counted_once(shape_models):
    shared = [{**device(0), "total": 128 * GIB, "unified": True}]
    facts = host(128 * GIB / 10**9, shared)
    plan = planned(shape_models["kimi-k2"], facts)
    assert plan["verdict"] == "refuse", plan["notes"]
    small = planned(shape_models["kimi-linear"], facts)
    assert (small["verdict"], small["fit"]) == ("accept", "vram")


def test_another_quant_may_be_chosen_so_the_repository_is_asked():
    model = {
        "repo_id": K2["repo_id"],
        "commit": "a" * 40,
        "quant": QUANT,
        "path": "/m",
        "bytes": 1,
        "complete": True,
        "manifest": {"files": []},
    }
    facts = host(540, A100, models=[model])
    assert not _planner.needs_listing(facts, wish(), K2)
    assert _planner.needs_listing(facts, wish(use_case="research"), K2)
    assert _planner.needs_listing(facts, wish(quant_policy="downgrade"), K2)


def test_a_published_model_is_planned_by_the_header_in_its_manifest(shape_models):
    model, facts = shape_models["kimi-k2"], host(540, A100)
    first = planned(model, facts)
    files = [{**file, "name": file["path"]} for file in first["files"]]
    manifest = {"files": files, "published_at": "2026-11-22T00:00:00Z", "header": first["header"]}
    published = {"repo_id": K2["repo_id"], "commit": first["commit"], "quant": QUANT, "path": "/m", "bytes": model.total}
    facts["models"] = [{**published, "complete": True, "manifest": manifest}]
    assert not _planner.needs_listing(facts, wish(), K2)
    again = _planner.plan(facts, wish(), K2)
    for key in ("basis", "placement", "memory", "header"):
        assert again[key] == first[key], key
    assert again["model_path"] == f"/m/{files[0]['path']}"


def test_what_no_publisher_says_of_a_quant_follows_from_the_next_larger():
    found = _planner.plan(host(101, T4), wish(), K2)
    fits = {other["quant"]: other["fit"] for other in found["alternatives"]}
    assert fits["UD-IQ1_M"] == fits["UD-IQ2_XXS"] == fits[QUANT] == "streaming"
    assert fits["UD-Q3_K_XL"] == fits["UD-Q4_K_XL"] == "none"
