# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host with little memory: a quant that does not fit is refused, replaced by a smaller one, or deployed all the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from plays import tree

STATE = "/var/lib/llamacpp/instances/main"


def served(host: Any) -> dict[str, Any]:
    """The plan behind what the host serves now."""
    current = host.check_output("basename $(readlink /etc/llamacpp/instances/main/current)")
    assert json.loads(host.check_output(f"cat {STATE}/switch.json"))["committed"] == current
    return json.loads(host.check_output(f"cat {STATE}/{current}/plan.json"))


def test_refused(play: Any, on_host: Any) -> None:
    host = on_host("small")
    before = tree(host)
    run = play("--limit", "small", "-e", "quant=UD-Q4_K_XL")
    assert run.status != 0
    assert "memory: UD-Q4_K_XL needs 900.0 MB of host memory even with its experts on disk, the host has 700.0 MB" in run.text
    assert "UD-Q2_K_XL would fit: -e quant=UD-Q2_K_XL or -e quant_policy=downgrade" in run.text
    assert tree(host) == before


@pytest.mark.parametrize(
    ("policy", "quant", "verdict"),
    [("downgrade", "UD-Q2_K_XL", "downgrade"), ("force", "UD-Q4_K_XL", "accept")],
    ids=["downgrade", "force"],
)
def test_deployed(play: Any, on_host: Any, policy: str, quant: str, verdict: str) -> None:
    run = play("--limit", "small", "-e", "quant=UD-Q4_K_XL", "-e", f"quant_policy={policy}")
    assert run.status == 0, run.output[-3000:]
    plan = served(on_host("small"))
    assert (plan["quant"], plan["verdict"], plan["basis"]) == (quant, verdict, "headers")
    assert plan["header"]["architecture"] == "deepseek2"
    if policy == "force":
        assert "deployed all the same: quant_policy is force" in run.text
    again = play("--limit", "small", "-e", "quant=UD-Q4_K_XL", "-e", f"quant_policy={policy}")
    assert again.stats["small"]["changed"] == 0
