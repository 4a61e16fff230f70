# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a quant has room, what goes first for it, and which setting would make room."""

from __future__ import annotations

from typing import Any

import pytest
from test_planner import K2, T4, host, serving, wish

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _disk, _plan_text, _planner

GB = 10**9
ROOT = "/var/lib/llamacpp/models"
OLD, NEW = "1" * 40, "2" * 40


def model(quant: str, gigabytes: int, *users: str, repo_id: str = "org/K2", **more: Any) -> dict[str, Any]:
    return {
        **{"repo_id": repo_id, "commit": OLD, "quant": quant, "path": f"{ROOT}/{quant}", "bytes": gigabytes * GB, "complete": True},
        **{"used_by": [dict(zip(("instance", "link"), user.split(":"))) for user in users], "manifest": {}, **more},
    }


NOW = model("NOW", 400, "main:current")
BEFORE = model("BEFORE", 100, "main:previous")
IDLE = model("IDLE", 200)
THEIRS = model("THEIRS", 300, "other:current")


def room(models: list[dict[str, Any]], free: int, filesystem: str = "ext4", size: int = 500, **settings: Any) -> _disk.Room:
    """The room for a quant of 500 GB and a buffer of 50."""
    facts = {
        "disks": [{"path": ROOT, "free": free * GB, "filesystem": filesystem}],
        "models": models,
        "instances": [{"name": "main", "plan": {"placement": {"load_mode": settings.pop("load_mode", "mmap")}}}],
    }
    known = {"disk_buffer": None, "model_root": ROOT, "instance": "main", "link_bits_per_second": GB, **settings}
    entry = {"repo_id": "org/K2", "disk_buffer": 50 * GB}
    return _disk.room("WANTED", {"bytes": size * GB, "commit": NEW}, facts, known, entry, False)


PRUNE, IN_PLACE = {"prune": True}, {"replace": "in_place"}


@pytest.mark.parametrize(
    ("free", "settings", "removed"),
    [
        pytest.param(550, {**PRUNE, **IN_PLACE}, [], id="room enough: nothing goes, whatever is allowed"),
        pytest.param(350, PRUNE, ["IDLE"], id="what nothing uses"),
        pytest.param(450, IN_PLACE, ["BEFORE"], id="what served before is enough"),
        pytest.param(150, IN_PLACE, ["BEFORE", "NOW"], id="what serves too"),
        pytest.param(350, {**PRUNE, **IN_PLACE}, ["IDLE"], id="what nothing uses goes before what serves"),
        pytest.param(300, {**PRUNE, **IN_PLACE}, ["IDLE", "BEFORE"], id="and then what served before"),
        pytest.param(350, {**PRUNE, "keep": [{"repo_id": "org/K2", "quant": "IDLE"}]}, None, id="what is to be kept is no room"),
        pytest.param(50, IN_PLACE, ["BEFORE", "NOW"], id="exactly enough"),
        pytest.param(49, IN_PLACE, None, id="too little in all: nothing goes"),
        pytest.param(150, {**IN_PLACE, "filesystem": "nfs4"}, None, id="nothing goes from a share"),
        pytest.param(150, {}, None, id="nothing goes unasked"),
    ],
)
def test_what_goes_first(free: int, settings: dict[str, Any], removed: Any) -> None:
    found = room([NOW, BEFORE, IDLE, THEIRS], free, **settings)
    assert [entry["quant"] for entry in found.disk["removes"]] == (removed or [])
    assert bool(found.short) is (removed is None)
    assert (found.remaining, found.disk["required"], found.disk["buffer"]) == (500 * GB, 550 * GB, 50 * GB)


@pytest.mark.parametrize(
    ("free", "settings", "advice"),
    [
        pytest.param(
            350, {}, "set llama_model_prune: true, which removes IDLE of org/K2 at 11111111 (200 GB) first, or make room", id="prune"
        ),
        pytest.param(
            100,
            {},
            "set llama_model_replace: in_place, which removes BEFORE of org/K2 at 11111111 (100 GB), NOW of org/K2 at 11111111 (400 GB)",
            id="in place",
        ),
        pytest.param(0, {}, "set llama_model_prune: true and llama_model_replace: in_place, which removes IDLE", id="both"),
        pytest.param(0, PRUNE, "set llama_model_replace: in_place, which removes IDLE", id="in place beside prune"),
        pytest.param(0, {"size": 2000}, "are free: make room, or set llama_model_root to a larger disk", id="neither"),
    ],
)
def test_a_refusal_names_the_setting_that_would_make_room(free: int, settings: dict[str, Any], advice: str) -> None:
    (told,) = room([NOW, BEFORE, IDLE, THEIRS], free, **settings).short
    assert advice in told
    assert told.endswith("or set llama_model_root to a larger disk")


@pytest.mark.parametrize(
    ("load_mode", "meanwhile"),
    [
        ("mmap", "main is stopped for that and answers nothing until WANTED serves"),
        ("none", "main goes on from memory until WANTED is there, but cannot be started again before"),
    ],
)
def test_replacing_says_what_is_lost_and_what_serves_meanwhile(load_mode: str, meanwhile: str) -> None:
    notes = room([NOW], 150, **IN_PLACE, load_mode=load_mode).disk["notes"]
    assert notes == [
        f"{ROOT} cannot hold both, so NOW of org/K2 at 11111111 (400 GB) of instance main is removed before WANTED is fetched "
        "(llama_model_replace is in_place): going back then needs a download of 400 GB, about 53 min",
        meanwhile,
    ]


def test_recorded_facts_that_do_not_say_who_uses_a_model_give_no_room() -> None:
    unknown = {key: value for key, value in IDLE.items() if key != "used_by"}
    assert room([unknown], 350, **PRUNE).short


def test_a_plan_in_place_from_wish_to_text() -> None:
    before = serving(host(202, T4, 450), wish())
    before["models"][0]["used_by"] = [{"instance": "main", "link": "current"}]
    other = wish(quant="UD-Q4_K_XL", quant_policy="refuse")
    refused = _planner.plan(before, other, K2)
    assert refused["verdict"] == "refuse"
    assert "set llama_model_replace: in_place" not in _plan_text.refusal(refused)  # 450 GB are too few even so

    roomy = {**before, "disks": [{**before["disks"][0], "free": 300 * GB}]}
    refused = _planner.plan(roomy, other, K2)
    assert "set llama_model_replace: in_place, which removes UD-Q2_K_XL" in _plan_text.refusal(refused)
    plan = _planner.plan(roomy, {**other, "replace": "in_place"}, K2)
    assert (plan["verdict"], [entry["quant"] for entry in plan["disk"]["removes"]]) == ("accept", ["UD-Q2_K_XL"])
    told = " ".join(" ".join(_plan_text.text(plan)).split())
    assert "going back then needs a download of 381 GB, about 51 min" in told
    assert "main is stopped for that and answers nothing until UD-Q4_K_XL serves" in told
