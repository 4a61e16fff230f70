# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The shipped catalogue, and what a user's entry is told when it is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ansible_collections.onprem.llamacpp.plugins.plugin_utils._catalog import PlanError, check_entry, find_entry

ROOT = Path(__file__).resolve().parents[4]
CATALOG = yaml.safe_load((ROOT / "roles/llama_plan/vars/catalog/kimi.yml").read_text())["_llama_plan_catalog_kimi"]


def test_the_shipped_entries_are_whole():
    assert set(CATALOG) == {
        *("kimi-k2-instruct", "kimi-k2-instruct-0905", "kimi-k2-thinking", "kimi-k2.5", "kimi-k2.6", "kimi-linear-48b-a3b"),
    }
    for key, entry in CATALOG.items():
        check_entry(key, entry)
        assert {entry["default_quant"], entry["fallback_quant"]} <= set(entry["quants"])
        assert set(entry["use_cases"]) == {"development", "production", "edge", "research", "cost", "quality"}
        sizes = [quant["bytes"] for quant in entry["quants"].values()]
        assert sizes == sorted(sizes), "quants are ordered by their bytes"


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        pytest.param("org/repo", "is not a mapping", id="not a mapping"),
        pytest.param({"quants": {}}, "has no repo_id", id="no repository"),
        pytest.param({"repo_id": "just-a-name"}, "'just-a-name', which is not org/repo", id="not a repository"),
        pytest.param({"repo_id": "o/r", "quants": {"Q2_K": {"bits": 2}}}, "the quant Q2_K without its bytes", id="no size"),
        pytest.param({"repo_id": "o/r", "quants": {"Q2_K": {"bytes": "17 GB"}}}, "Q2_K.bytes '17 GB'", id="a size in words"),
        pytest.param({"repo_id": "o/r", "quants": ["Q2_K"]}, "not a mapping of names", id="a list of quants"),
        pytest.param({"repo_id": "o/r", "experts": -1}, "has experts -1", id="negative"),
        pytest.param({"repo_id": "o/r", "experts_used": 8}, "experts_used without experts", id="used without count"),
        pytest.param({"repo_id": "o/r", "layers": True}, "has layers True", id="a truth value"),
    ],
)
def test_a_broken_entry_is_told_with_its_key_and_field(entry, told):
    with pytest.raises(PlanError) as raised:
        find_entry("mine", {"mine": entry})
    assert told in str(raised.value)
    assert "'mine'" in str(raised.value) and "llama_plan_catalog" in str(raised.value)
