# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which models go, in which order and why, as tables."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.onprem.llamacpp.plugins.module_utils import _prune

GB = 10**9
COMMITS = {"old": "1" * 40, "new": "2" * 40}


def model(quant: str, gigabytes: int, published: int, *users: str, commit: str = "old", **more: Any) -> dict[str, Any]:
    """A model; users are C(instance:link), the time of publication is a day of a month."""
    return {
        "repo_id": "org/K2-GGUF",
        "commit": COMMITS[commit],
        "quant": quant,
        "path": f"/m/{commit}/{quant}",
        "bytes": gigabytes * GB,
        "used_by": [dict(zip(("instance", "link"), user.split(":"))) for user in users],
        "manifest": {"published_at": f"2026-11-{published:02}T00:00:00Z"},
        **more,
    }


# Four are of no use to anybody; D serves, C served before; another instance has B.
STORE = [
    model("A", 10, 9),
    model("E", 20, 3),
    model("F", 40, 1),
    model("G", 80, 2, commit="new"),
    model("B", 100, 4, "other:current"),
    model("C", 200, 5, "main:previous"),
    model("D", 400, 6, "main:current"),
]


@pytest.mark.parametrize(
    ("options", "removed", "missing"),
    [
        pytest.param({}, "FGEA", 0, id="without a target all that is of no use, oldest first"),
        pytest.param({"target": 0}, "", 0, id="a target that is met"),
        pytest.param({"target": 1 * GB}, "F", 0, id="one is enough"),
        pytest.param({"target": 41 * GB}, "FG", 0, id="and no more than needed"),
        pytest.param({"target": 500 * GB}, "FGEA", 350, id="too little of no use"),
        pytest.param({"target": 50 * GB, "free": 20 * GB}, "F", 0, id="what is free counts"),
        pytest.param({"keep": [{"repo_id": "org/K2-GGUF", "quant": "F"}]}, "GEA", 0, id="kept by quant"),
        pytest.param({"keep": [{"repo_id": "org/K2-GGUF", "commit": COMMITS["new"]}]}, "FEA", 0, id="kept by commit"),
        pytest.param({"keep": [{"repo_id": "org/K2-GGUF", "commit": None, "quant": None}]}, "", 0, id="kept by repository"),
        pytest.param({"keep": [{"repo_id": "org/Other", "quant": "F"}]}, "FGEA", 0, id="another repository's name keeps nothing"),
        pytest.param({"busy": {"/m/old/F": "nginx (PID 3) has it open"}}, "GEA", 0, id="a file in use"),
        pytest.param({"unused": False}, "", 0, id="nothing but what is replaced, and nothing is"),
        pytest.param({"release": "main"}, "FGEA", 0, id="without a target nothing that serves is released"),
        pytest.param({"release": "main", "target": 140 * GB}, "FGE", 0, id="replacing is not needed"),
        pytest.param({"release": "main", "target": 300 * GB}, "FGEAC", 0, id="the previous one goes before the one that serves"),
        pytest.param({"release": "main", "target": 700 * GB}, "FGEACD", 0, id="the one that serves goes last"),
        pytest.param({"release": "main", "target": 700 * GB, "unused": False}, "", 700, id="too little in all: what serves stays"),
        pytest.param({"release": "main", "target": 600 * GB, "unused": False}, "CD", 0, id="only what is replaced"),
        pytest.param({"release": "main", "target": 600 * GB, "busy": {"/m/old/D": "x"}}, "FGEA", 450, id="what serves is in use elsewhere"),
    ],
)
def test_choice(options: dict[str, Any], removed: str, missing: int) -> None:
    found = _prune.choose(STORE, **{"free": 0, **options})
    assert "".join(entry["quant"] for entry in found.remove) == removed
    assert found.missing == missing * GB
    assert sorted(entry["quant"] for entry in [*found.remove, *found.keep]) == list("ABCDEFG")


def test_reasons_are_told() -> None:
    found = _prune.choose(STORE, 0, 41 * GB, busy={"/m/old/E": "nginx (PID 3) has it open"})
    assert [(entry["quant"], entry["why"]) for entry in found.remove] == [(quant, "no deployment uses it") for quant in "FG"]
    assert {entry["quant"]: entry["why"] for entry in found.keep} == {
        "A": "there is room enough",
        "B": "other serves it",
        "C": "main can go back to it",
        "D": "main serves it",
        "E": "nginx (PID 3) has it open",
    }


@pytest.mark.parametrize(
    ("users", "release"),
    [
        pytest.param(["main:current", "other:previous"], "main", id="another instance can go back to it"),
        pytest.param(["main:current", "other:current"], "main", id="another instance serves it"),
        pytest.param(["main:previous"], "", id="the only instance can go back to it"),
    ],
)
def test_what_an_instance_needs_stays(users: list[str], release: str) -> None:
    found = _prune.choose([model("A", 10, 1, *users)], 0, 5 * GB, release=release)
    assert (found.remove, found.missing) == ([], 5 * GB)


def test_a_model_of_unknown_use_stays() -> None:
    unknown = {key: value for key, value in model("A", 10, 1).items() if key != "used_by"}
    assert _prune.choose([unknown], 0).keep[0]["why"] == "it is not known who uses it"


def test_the_same_model_as_current_and_previous_goes_last() -> None:
    store = [model("A", 10, 9, "main:previous"), model("B", 10, 1, "main:current", "main:previous")]
    assert [entry["quant"] for entry in _prune.choose(store, 0, 20 * GB, release="main").remove] == ["A", "B"]


def test_shared_files_free_room_with_the_last_of_their_names() -> None:
    shared, own = ("1:1", 2, 30 * GB), ("1:2", 1, 5 * GB)
    store = [model("A", 30, 1, held=[shared]), model("B", 35, 2, held=[shared, own]), model("C", 10, 3, held=[("1:3", 1, 10 * GB)])]
    found = _prune.choose(store, 0, 35 * GB)
    assert ([entry["quant"] for entry in found.remove], found.free) == (["A", "B"], 35 * GB)
    needed = [store[0], {**store[1], "used_by": [{"instance": "main", "link": "current"}]}]
    assert _prune.choose(needed, 0, GB).missing == GB


def test_abandoned_transfers() -> None:
    def partial(quant: str, day: int) -> dict[str, Any]:
        return {**model(quant, 1, 1), "modified_at": f"2026-11-{day:02}T00:00:00Z"}

    found = _prune.abandoned(
        [partial("A", 1), partial("B", 9), partial("C", 2)], "2026-11-08T00:00:00Z", [{"repo_id": "org/K2-GGUF", "quant": "C"}]
    )
    assert [entry["quant"] for entry in found] == ["A"]
