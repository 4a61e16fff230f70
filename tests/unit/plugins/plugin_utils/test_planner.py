# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a plan decides, on hosts and wishes as tables."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _capacity, _catalog, _plan_text, _planner

ROOT = Path(__file__).resolve().parents[4]
CATALOG = yaml.safe_load((ROOT / "roles/llama_plan/vars/catalog/kimi.yml").read_text())["_llama_plan_catalog_kimi"]
K2 = {"alias": "kimi-k2-instruct", **CATALOG["kimi-k2-instruct"]}
MODEL_ROOT = "/var/lib/llamacpp/models"
COMMIT = "a" * 40


def device(memory_mib: int, foreign_mib: int = 0, index: int = 0) -> dict[str, Any]:
    return {
        "uuid": f"GPU-{index}",
        "kind": "cuda",
        "engine_name": f"CUDA{index}",
        "name": "card",
        "total": memory_mib * 2**20,
        "foreign": foreign_mib * 2**20,
    }


T4 = [device(15360)]
A10 = [device(23028)]
A100 = [device(81920, index=0), device(81920, index=1)]


def host(ram_gb: float, devices: list[dict[str, Any]], free_gb: float = 2000, **more: Any) -> dict[str, Any]:
    return {
        "hostname": "gpu-1",
        "memory": {"total": int(ram_gb * 10**9), "swap_total": 0},
        "devices": devices,
        "disks": [{"path": MODEL_ROOT, "mount": "/", "filesystem": "ext4", "total": 4 * 10**12, "free": int(free_gb * 10**9)}],
        "models": [],
        "instances": [],
        "listeners": [],
        **more,
    }


def wish(**changes: Any) -> dict[str, Any]:
    return {
        "model": "kimi-k2-instruct",
        "quant": "UD-Q2_K_XL",
        "quant_policy": "refuse",
        "use_case": "",
        "instance": "main",
        "endpoint": "https://hub.example",
        "revision": "main",
        "refresh": False,
        "replan": False,
        "model_root": MODEL_ROOT,
        "backend": "auto",
        "rpc_servers": [],
        "host": "127.0.0.1",
        "port": 8080,
        "ctx_size": 0,
        "parallel": 1,
        "cache_type_k": "f16",
        "cache_type_v": "f16",
        "ubatch_size": 512,
        "threads": None,
        "placement": {},
        "ram_reserve": 4 * 2**30,
        "vram_margin": 2**30,
        "disk_buffer": None,
        "require_gpu": False,
        "link_bits_per_second": 10**9,
        "problems": [],
        **changes,
    }


def listing(**quants: int) -> dict[str, Any]:
    return {
        "repo_id": "org/tiny-GGUF",
        "commit": COMMIT,
        "quants": {
            name.replace("__", "-"): {
                "bytes": size,
                "shards": 1,
                "complete": True,
                "files": [{"path": f"tiny-{name}.gguf", "size": size, "sha256": "0" * 64}],
            }
            for name, size in quants.items()
        },
    }


@pytest.mark.parametrize(
    ("facts", "quant", "verdict", "fit", "experts_on_cpu"),
    [
        pytest.param(host(67.4, T4), "UD-TQ1_0", "accept", "streaming", True, id="T4 with 64 GB streams the smallest"),
        pytest.param(host(67.4, T4), "UD-Q2_K_XL", "refuse", "none", True, id="T4 with 64 GB is short of memory for Q2"),
        pytest.param(host(101, T4), "UD-Q2_K_XL", "accept", "streaming", True, id="T4 with 96 GB streams Q2"),
        pytest.param(host(202, A10), "UD-Q4_K_XL", "accept", "streaming", True, id="A10 with 192 GB streams Q4"),
        pytest.param(host(540, A100), "UD-Q2_K_XL", "accept", "resident", True, id="two A100 with 512 GB hold Q2"),
        pytest.param(host(540, []), "UD-Q2_K_XL", "accept", "resident", False, id="no GPU with 512 GB holds Q2 on the CPU"),
        pytest.param(host(540, [device(15360, 13824)]), "UD-Q2_K_XL", "accept", "resident", False, id="a stranger holds the device"),
        pytest.param(
            host(2000, [device(81920, index=i) for i in range(8)]), "UD-Q2_K_XL", "accept", "vram", False, id="eight cards hold it"
        ),
        pytest.param(host(540, [], 400), "UD-Q2_K_XL", "refuse", "resident", False, id="disk without the buffer"),
    ],
)
def test_regimes(facts: dict[str, Any], quant: str, verdict: str, fit: str, experts_on_cpu: bool) -> None:
    plan = _planner.plan(facts, wish(quant=quant), K2)
    assert (plan["verdict"], plan["fit"]) == (verdict, fit), plan["reasons"]
    assert bool(plan["placement"]["n_cpu_moe"]) is experts_on_cpu


@pytest.mark.parametrize(("devices", "verdict"), [pytest.param(T4, "refuse", id="device"), pytest.param([], "accept", id="no device")])
def test_a_toolkit_is_needed_where_devices_are_used(devices: list[dict[str, Any]], verdict: str) -> None:
    plan = _planner.plan(host(540, devices), wish(cuda_problems=["No CUDA toolkit suits this build."]), K2)
    assert plan["verdict"] == verdict
    assert ("toolkit: No CUDA toolkit suits this build" in plan["reasons"]) is bool(devices)


def test_streaming_maps_the_file_and_allocates_nothing_beside_it() -> None:
    placement = _planner.plan(host(101, T4), wish(), K2)["placement"]
    assert placement["load_mode"] == "mmap"
    assert (placement["repack"], placement["warmup"], placement["cache_ram_mib"]) == (False, False, 0)


@pytest.mark.parametrize(
    ("facts", "settings", "quant"),
    [
        pytest.param(host(101, T4), {"quant": "auto"}, "UD-Q2_K_XL", id="T4 with 96 GB"),
        pytest.param(host(67.4, T4), {"quant": "auto"}, "UD-TQ1_0", id="T4 with 64 GB"),
        pytest.param(host(202, A10), {"use_case": "production"}, "UD-Q4_K_XL", id="production on A10"),
        pytest.param(host(202, T4), {"use_case": "production"}, "UD-Q2_K_XL", id="production on T4"),
        pytest.param(host(101, T4), {"use_case": "edge"}, "UD-IQ1_S", id="edge"),
        pytest.param(host(101, T4, 300), {"quant": "auto"}, "UD-TQ1_0", id="auto looks at the disk too"),
    ],
)
def test_a_quant_is_chosen_by_the_guide(facts: dict[str, Any], settings: dict[str, Any], quant: str) -> None:
    plan = _planner.plan(facts, wish(**settings), K2)
    assert (plan["verdict"], plan["quant"]) == ("accept", quant)


@pytest.mark.parametrize(
    ("policy", "verdict", "quant"),
    [("refuse", "refuse", "UD-Q4_K_XL"), ("downgrade", "downgrade", "UD-Q2_K_XL"), ("force", "accept", "UD-Q4_K_XL")],
)
def test_policy_decides_what_follows_from_a_misfit(policy: str, verdict: str, quant: str) -> None:
    plan = _planner.plan(host(101, T4, 500), wish(quant="UD-Q4_K_XL", quant_policy=policy), K2)
    assert (plan["verdict"], plan["quant"]) == (verdict, quant)
    if policy == "refuse":
        told = _plan_text.refusal(plan)
        assert "gpu-1" in told and "192 GB" in told and "101 GB" in told and "-e quant=UD-Q2_K_XL" in told


def test_all_that_is_short_is_told_at_once() -> None:
    facts = host(40, [], 10, listeners=[{"address": "0.0.0.0", "port": 8080, "pid": 4711, "program": "nginx", "unit": "nginx.service"}])
    told = _plan_text.refusal(_planner.plan(facts, wish(), K2))
    for part in (
        "port: 8080 is held by nginx (PID 4711, nginx.service)",
        "memory: UD-Q2_K_XL needs 96.0 GB",
        "disk: UD-Q2_K_XL needs 431 GB",
    ):
        assert part in told


def test_our_own_server_on_the_port_is_no_problem() -> None:
    facts = host(
        540, [], listeners=[{"address": "0.0.0.0", "port": 8080, "pid": 1, "program": "llama-server", "unit": "llamacpp@main.service"}]
    )
    assert _planner.plan(facts, wish(), K2)["verdict"] == "accept"


def test_an_unknown_quant_lists_what_there_is() -> None:
    plan = _planner.plan(
        host(540, []), wish(quant="Q2_K_L"), {"alias": "tiny", "repo_id": "org/tiny-GGUF"}, listing(Q2_K=10**8, UD__Q2_K_XL=2 * 10**8)
    )
    assert plan["verdict"] == "refuse"
    assert plan["reasons"] == ["quant Q2_K_L is not in org/tiny-GGUF: it has Q2_K (100.0 MB), UD-Q2_K_XL (200.0 MB)"]


def test_an_incomplete_shard_set_is_not_offered() -> None:
    offer = listing(Q2_K=10**8, Q4_K=2 * 10**8)
    offer["quants"]["Q4_K"]["complete"] = False
    plan = _planner.plan(host(540, []), wish(quant="Q4_K"), {"alias": "tiny", "repo_id": "org/tiny-GGUF"}, offer)
    assert plan["verdict"] == "refuse"
    assert "a shard is missing" in plan["reasons"][0]


def test_the_listing_beats_the_catalogue() -> None:
    offer = listing(UD__Q2_K_XL=360 * 10**9)
    plan = _planner.plan(host(540, []), wish(), K2, offer)
    assert plan["download"]["bytes"] == 360 * 10**9
    assert [other["quant"] for other in plan["alternatives"]] == ["UD-Q2_K_XL"]


@pytest.mark.parametrize(
    ("model", "part"),
    [
        ("kimi-k2-instrukt", "did you mean 'kimi-k2-instruct'?"),
        ("nonsense", "any repository works as org/repo"),
        ("../../etc/passwd", "is not known"),
    ],
)
def test_an_unknown_model_names_the_nearest(model: str, part: str) -> None:
    with pytest.raises(_catalog.PlanError, match=part.replace("?", r"\?")):
        _catalog.find_entry(model, CATALOG)


def test_a_repository_works_without_an_entry() -> None:
    assert _catalog.find_entry("org/Some-Model-GGUF", CATALOG) == {"alias": "Some-Model-GGUF", "repo_id": "org/Some-Model-GGUF"}
    assert _catalog.find_entry("unsloth/Kimi-K2-Thinking-GGUF", CATALOG)["alias"] == "kimi-k2-thinking"


REPOSITORY = listing(UD__Q2_K_XL=381 * 10**9, UD__TQ1_0=245 * 10**9, UD__Q4_K_XL=588 * 10**9)


def serving(facts: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """The same host after the plan was carried out."""
    plan = _planner.plan(facts, settings, K2, REPOSITORY)
    after = copy.deepcopy(facts)
    files = [{**file, "name": file["path"]} for file in plan["files"]]
    after["models"] = [
        {
            "repo_id": plan["repo_id"],
            "commit": plan["commit"],
            "quant": plan["quant"],
            "path": f"{MODEL_ROOT}/x",
            "bytes": plan["download"]["bytes"],
            "complete": True,
            "manifest": {"files": files, "published_at": "2026-11-21T00:00:00Z"},
        }
    ]
    after["instances"] = [{"name": "main", "committed": True, "document": {"commit": plan["commit"]}, "plan": plan}]
    after["disks"][0]["free"] -= plan["download"]["bytes"]
    return after


@pytest.mark.parametrize(
    "settings", [wish(), wish(quant="auto"), wish(quant="UD-Q4_K_XL", quant_policy="downgrade")], ids=["named", "auto", "downgrade"]
)
def test_a_serving_host_under_load_gets_the_same_plan_without_asking_the_repository(settings: dict[str, Any]) -> None:
    before = host(101, T4, 500)
    first = _planner.plan(before, settings, K2, REPOSITORY)
    after = serving(before, settings)
    after["devices"][0]["foreign"] = 2**30  # a neighbour came, the placement still fits
    assert not _planner.needs_listing(after, settings, K2)
    second = _planner.plan(after, settings, K2)
    for key in ("quant", "commit", "files", "placement", "devices", "fit"):
        assert second[key] == first[key], key
    assert second["verdict"] != "refuse"


def test_another_wish_asks_again() -> None:
    settings = wish()
    after = serving(host(101, T4), settings)
    for other in (wish(quant="UD-TQ1_0"), wish(refresh=True), wish(revision="b" * 40)):
        assert _planner.needs_listing(after, other, K2)


def test_a_placement_that_no_longer_fits_is_replaced() -> None:
    after = serving(host(101, T4), wish())
    after["devices"][0]["foreign"] = 14 * 2**30
    plan = _planner.plan(after, wish(), K2)
    assert plan["placement"]["n_gpu_layers"] == 0


def test_changed_orders_make_a_new_placement() -> None:
    after = serving(host(101, T4), wish())
    assert _planner.plan(after, wish(ctx_size=8192), K2)["placement"]["ctx_size"] == 8192


def test_the_user_places_as_told() -> None:
    plan = _planner.plan(host(540, A10), wish(placement={"n_gpu_layers": 99, "n_cpu_moe": 3}), K2)
    assert (plan["placement"]["n_gpu_layers"], plan["placement"]["n_cpu_moe"]) == (99, 3)
    assert "placement as told: n_cpu_moe=3, n_gpu_layers=99" in plan["notes"]


def test_a_download_that_has_begun_needs_only_the_rest_of_the_room() -> None:
    offer = listing(UD__Q2_K_XL=381 * 10**9)
    begun = [{"repo_id": K2["repo_id"], "commit": COMMIT, "quant": "UD-Q2_K_XL", "bytes": 300 * 10**9}]
    assert _planner.plan(host(540, [], 140), wish(), K2, offer)["verdict"] == "refuse"
    plan = _planner.plan(host(540, [], 140, partial_models=begun), wish(), K2, offer)
    assert plan["verdict"] == "accept"
    assert (plan["download"]["present"], plan["download"]["remaining"]) == (300 * 10**9, 81 * 10**9)


def test_required_gpu() -> None:
    plan = _planner.plan(host(540, []), wish(require_gpu=True), K2)
    assert plan["verdict"] == "refuse"
    assert "a GPU is required (llama_plan_require_gpu), 0 found" in plan["reasons"][0]


def test_capacity_is_a_multiple_of_256_mib() -> None:
    room = _capacity.capacity(host(100.123456789, [device(15109)]), wish())
    assert room.ram % (256 * 2**20) == 0
    assert room.devices[0]["capacity"] % (256 * 2**20) == 0


def test_a_device_without_a_driver_is_planned_and_told() -> None:
    undriven = {**T4[0], "uuid": "", "driver": False, "name": "Tesla T4", "pci_address": "0000:00:1e.0"}
    plan = _planner.plan(host(101, [undriven]), wish(), K2)
    assert (plan["verdict"], plan["placement"]["n_gpu_layers"] > 0) == ("accept", True)
    assert "Tesla T4 at 0000:00:1e.0 has no driver yet: planned by its type" in plan["notes"]
    plan = _planner.plan(host(101, [undriven]), wish(require_driver=True), K2)
    assert plan["verdict"] == "refuse"
    assert plan["reasons"][0].startswith("device: no driver serves it: install the NVIDIA driver")
    assert _planner.plan(host(540, []), wish(require_driver=True), K2)["verdict"] == "accept"


def test_programs_that_come_and_go_are_not_in_a_plan() -> None:
    ours = {"pid": 7, "name": "llama-server", "bytes": 2**30, "ours": True}
    plans = [_planner.plan(host(540, [{**A10[0], "processes": held}]), wish(), K2) for held in ([], [ours])]
    assert plans[0] == plans[1] and plans[0]["devices"]


@pytest.mark.parametrize(
    "settings",
    [{"quant": "auto"}, {"use_case": "production"}, {"quant_policy": "downgrade"}, {}],
    ids=["auto", "use case", "downgrade", "named"],
)
def test_no_quant_fits_at_all(settings: dict[str, Any]) -> None:
    plan = _planner.plan(host(20, []), wish(**settings), K2)
    assert (plan["verdict"], plan["fit"]) == ("refuse", "none")
    told = _plan_text.refusal(plan)
    assert "host memory even with its experts on disk, the host has 20.0 GB" in told
    assert "no quant fits this host" in told or "no smaller quant fits either: choose another host or model" in told
    assert {other["verdict"] for other in plan["alternatives"]} == {"refuse"}
