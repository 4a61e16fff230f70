# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check mode tells the truth and touches nothing; a single role's tag is enough to run that role."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from plays import tree


def bare_host(folder: Path) -> str:
    """An inventory that makes a GPU host of the mirror, which has no engine, model or server; its GPU and memory are emulated."""
    more = folder / "more.yml"
    more.write_text("gpu_hosts:\n  hosts:\n    mirror:\n")
    return str(more)


CUDA = ["-e", "llama_engine_backend=auto"]


def test_checking_what_is_deployed_says_unchanged(play: Any, on_host: Any) -> None:
    before = tree(on_host("trixie"))
    run = play("--check", "--diff", "--limit", "trixie")
    assert run.status == 0, run.output[-3000:]
    assert run.stats["trixie"]["changed"] == 0
    assert tree(on_host("trixie")) == before


def test_checking_another_quant_says_what_would_be_fetched_and_served(play: Any, on_host: Any) -> None:
    before = tree(on_host("trixie"))
    run = play("--check", "--diff", "--limit", "trixie", "-e", "quant=UD-Q4_K_XL")
    assert run.status == 0, run.output[-3000:]
    assert run.stats["trixie"]["changed"] > 0
    assert "Would download 3 files" in run.text
    assert "UD-Q4_K_XL" in run.text
    assert tree(on_host("trixie")) == before


def test_checking_a_bare_host_touches_nothing(play: Any, on_host: Any, tmp_path: Path) -> None:
    mirror = on_host("mirror")
    before = tree(mirror)
    run = play("-i", bare_host(tmp_path), "--check", "--diff", "--limit", "mirror")
    assert run.status == 0, run.output[-3000:]
    assert run.stats["mirror"]["changed"] >= 3
    assert "decided when the engine is installed" in run.text
    assert tree(mirror) == before


def test_planning_sees_the_device_and_the_memory_of_the_host(play: Any, tmp_path: Path) -> None:
    run = play("-i", bare_host(tmp_path), "--limit", "mirror", *CUDA, "-e", "llama_plan_vram_margin=0", playbook="playbooks/plan.yml")
    assert run.status == 0, run.output[-3000:]
    assert re.search(r"CUDA0 +[0-9.]+ MB of +16.1 GB .* Tesla T4", run.output)


def test_planning_a_trillion_parameters_refuses_with_what_is_short(play: Any, tmp_path: Path) -> None:
    wish = ["-e", "model=kimi-k2-instruct", "-e", "llama_plan_endpoint=http://127.0.0.1:9"]
    run = play("-i", bare_host(tmp_path), "--limit", "mirror", *CUDA, *wish, playbook="playbooks/plan.yml")
    assert run.status != 0
    assert "kimi-k2-instruct UD-Q2_K_XL is refused on mirror" in run.text
    assert "UD-Q2_K_XL needs 96.0 GB of host memory even with its experts on disk, the host has 67.4 GB" in run.text


@pytest.mark.parametrize("tag", ["llama_engine", "llama_model", "llama_server"])
def test_one_tag_runs_one_role(play: Any, tag: str) -> None:
    run = play("--tags", tag, "--limit", "bookworm")
    assert run.status == 0, run.output[-3000:]
    assert {name: counts["changed"] for name, counts in run.stats.items()} == {"bookworm": 0}
