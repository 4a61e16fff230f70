# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which engine is refused for its age, and what a plan says of one that is allowed all the same."""

from __future__ import annotations

import re

import pytest

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _floors
from ansible_collections.onprem.llamacpp.plugins.plugin_utils._advisories import concerning

PLACEMENT = {"cache_type_k": "f16", "cache_type_v": "f16", "parallel": 1, "ubatch_size": 512, "n_cpu_moe": None}


@pytest.mark.parametrize(
    ("number", "rpc", "force", "refused"),
    [
        pytest.param(11392, False, [], ["CVE-2026-107183"], id="server-below"),
        pytest.param(11393, False, [], [], id="server-at-floor"),
        pytest.param(11392, False, ["floor"], [], id="server-below-forced"),
        pytest.param(11392, False, ["rpc"], ["CVE-2026-107183"], id="forcing-the-other"),
        pytest.param(11864, False, [], [], id="rpc-not-used"),
        pytest.param(11864, True, [], ["CVE-2026-118375"], id="rpc-below"),
        pytest.param(11865, True, [], [], id="rpc-at-floor"),
        pytest.param(11864, True, ["rpc"], [], id="rpc-below-forced"),
        pytest.param(11392, True, ["rpc"], ["CVE-2026-107183"], id="forcing-one-leaves-the-other"),
        pytest.param(11000, True, [], ["CVE-2026-107183", "CVE-2026-118375"], id="both"),
        pytest.param(11000, True, ["rpc", "floor"], [], id="both-forced"),
    ],
)
def test_refusals(number, rpc, force, refused):
    told = _floors.refusals(number, rpc, force)
    assert [re.search(r"CVE-[\d-]+", problem).group() for problem in told] == refused
    assert all(f"b{number} is refused" in problem and "llama_engine_force" in problem for problem in told)


@pytest.mark.parametrize("number", [0, 1])
def test_an_engine_that_does_not_know_its_number_is_not_taken_for_an_old_one(number):
    (told,) = _floors.refusals(number, True, [])
    assert f"build {number}" in told
    assert "'floor' and 'rpc'" in told
    assert _floors.refusals(number, True, ["floor", "rpc"]) == []


@pytest.mark.parametrize(
    ("backend", "build", "force", "expected"),
    [
        pytest.param("cpu", 11392, [], {"server-floor": "error"}, id="below"),
        pytest.param("cpu", 11392, ["floor"], {"server-floor": "warning"}, id="below-forced"),
        pytest.param("rpc", 11549, [], {"rpc-floor": "error"}, id="rpc-below"),
        pytest.param("rpc", 11549, ["rpc"], {"rpc-floor": "warning"}, id="rpc-forced"),
        pytest.param("cpu", 11549, [], {}, id="good"),
        pytest.param("cpu", 0, [], {}, id="a-build-that-is-not-known-is-not-accused"),
    ],
)
def test_floors_in_a_plan(backend, build, force, expected):
    plan = {"engine_backend": backend, "quant": "Q4_K_M", "devices": [], "placement": PLACEMENT}
    found = concerning(_floors.advisories(force), plan, "deepseek2", [], build)
    assert {entry["id"]: entry["severity"] for entry in found} == expected
    assert all(("is allowed by llama_engine_force" in entry["text"]) is bool(force) for entry in found)
