# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filters of the plan as templates call them."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.onprem.llamacpp.plugins.filter.fit_plan import FilterModule

FILTERS = FilterModule().filters()
ENTRY = {"alias": "tiny", "repo_id": "org/tiny-GGUF", "quants": {"Q2_K": {"bytes": 10**9}}}
FACTS = {
    "hostname": "gpu-1",
    "memory": {"total": 64 * 10**9, "swap_total": 0},
    "disks": [{"path": "/models", "free": 10**12}],
}
SETTINGS: dict[str, Any] = {
    "model": "tiny",
    "quant": "Q2_K",
    "quant_policy": "refuse",
    "use_case": "",
    "instance": "main",
    "endpoint": "https://hub.example",
    "model_root": "/models",
    "backend": "auto",
    "host": "127.0.0.1",
    "port": 8080,
    "ctx_size": 0,
    "parallel": 1,
    "cache_type_k": "f16",
    "cache_type_v": "f16",
    "ubatch_size": 512,
    "ram_reserve": 4 * 2**30,
    "vram_margin": 2**30,
    "disk_buffer": None,
    "link_bits_per_second": 10**9,
}


def test_fit_plan_returns_the_plan() -> None:
    plan = FILTERS["fit_plan"](FACTS, SETTINGS, ENTRY)
    assert (plan["verdict"], plan["quant"], plan["fit"]) == ("accept", "Q2_K", "resident")
    assert FILTERS["plan_text"](plan)[1] == " ✔ accept     tiny Q2_K, 1.0 GB"


def test_plan_refusal_says_why() -> None:
    plan = FILTERS["fit_plan"](FACTS, {**SETTINGS, "quant": "Q9"}, ENTRY)
    assert FILTERS["plan_refusal"](plan) == "tiny Q9 is refused on gpu-1: quant Q9 is not in org/tiny-GGUF: it has Q2_K (1.0 GB)"


@pytest.mark.parametrize(
    ("call", "part"),
    [
        pytest.param(lambda: FILTERS["fit_plan"]({}, SETTINGS, ENTRY), "run onprem.llamacpp.hardware_facts first", id="no facts"),
        pytest.param(
            lambda: FILTERS["fit_plan"](FACTS, {**SETTINGS, "quant_policy": "maybe"}, ENTRY), "refuse, downgrade or force", id="policy"
        ),
    ],
)
def test_a_users_mistake_is_one_sentence(call: Any, part: str) -> None:
    with pytest.raises(AnsibleFilterError, match=part):
        call()
