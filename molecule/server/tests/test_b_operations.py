# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Going back, and how the fleet is."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import plays
import pytest
from conftest import INVENTORY


@pytest.fixture(name="status")
def fixture_status(play: Any, tmp_path: Path) -> Any:
    """Runs the playbook; its exit status, its output and the document."""
    output = tmp_path / "status.json"

    def run(*arguments: str) -> tuple[Any, dict[str, Any]]:
        done = play("-e", f"llama_server_status_output={output}", *arguments, playbook="playbooks/status.yml")
        return done, json.loads(output.read_text())

    return run


def test_way_back_is_one_command_of_seconds(play: Any, fleet: Any, on_host: Any) -> None:
    assert set(fleet.quants().values()) == {"UD-Q2_K_XL"}
    # Nothing is fetched for it: the mirror is all that these hosts get models from, and it is out of their reach.
    plays.lab(INVENTORY, "link", "lab_link=cut", "mirror")
    try:
        assert not on_host("one").run("timeout 10 bash -c '</dev/tcp/10.85.0.10/80'").succeeded
        started = time.monotonic()
        run = play("--limit", "one", playbook="playbooks/rollback.yml")
        print(f"rollback took {time.monotonic() - started:.1f} s with its load")
        assert run.status == 0, run.output[-3000:]
        assert fleet.quants()["one"] == "UD-TQ1_0"
        assert play("--limit", "one", playbook="playbooks/rollback.yml").status == 0
        assert fleet.quants()["one"] == "UD-Q2_K_XL"
    finally:
        plays.lab(INVENTORY, "link", "lab_link=restore", "mirror")


def test_status_of_a_fleet_that_is_well(status: Any) -> None:
    run, found = status()
    assert run.status == 0, run.output[-3000:]
    assert (found["state"], found["exit_code"]) == ("ok", 0)
    one = found["hosts"]["one"]["instances"]["main"]
    assert (one["model"], one["quant"], one["health"]) == ("tiny-kimi-k2", "UD-Q2_K_XL", "ok")
    assert one["tokens_per_second"] > 0 and one["uptime_seconds"] > 0
    assert "onprem" not in run.stats and all(counters["changed"] == 0 for counters in run.stats.values())


def test_status_tells_of_files_that_were_changed_by_hand(status: Any, on_host: Any) -> None:
    path = "/etc/llamacpp/instances/main/current/server.env"
    on_host("two").check_output(f"cp -a {path} /root/kept && echo LLAMA_ARG_THREADS=2 >> {path}")
    try:
        run, found = status()
    finally:
        on_host("two").check_output(f"cp -a /root/kept {path}")
    assert run.status == 1, run.output[-3000:]
    assert found["hosts"]["two"]["state"] == "degraded"
    assert "server.env is not as it was deployed" in run.text


def test_status_tells_of_another_quant_than_the_declared_one(status: Any) -> None:
    run, _found = status("-e", "quant=UD-TQ1_0", "--limit", "one")
    assert run.status == 1
    assert "it serves UD-Q2_K_XL, declared is UD-TQ1_0" in run.text


def test_status_fails_when_a_server_is_down(status: Any, on_host: Any) -> None:
    on_host("three").check_output("systemctl stop llamacpp@main")
    try:
        run, found = status()
    finally:
        on_host("three").check_output("systemctl start llamacpp@main")
    assert run.status == 2
    assert found["hosts"]["three"]["instances"]["main"]["reasons"][0] == "its unit is inactive"
    assert found["hosts"]["one"]["state"] == "ok"
