# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measured, tuned, packed for a helper, and at last removed."""

from __future__ import annotations

import json
import re
import tarfile
from pathlib import Path
from typing import Any

OURS = "find / -xdev -path /proc -prune -o -path /root -prune -o -path /usr/share -prune -o -iname '*llamacpp*' -print | sort"
TREE = "find /etc /opt /usr/local /var/lib/llamacpp /var/cache/llamacpp -printf '%p %m %u %s %l\\n' 2>/dev/null | sort | sha256sum"
SMALL = {"llama_benchmark_tokens": 8, "llama_benchmark_repetitions": 1, "llama_benchmark_clients": 2, "llama_benchmark_requests": 2}
EVERYTHING = ["-e", "llama_remove_instances=all", "-e", "llama_remove_engines=true", "-e", "llama_remove_models=true"]


def test_benchmark_is_recorded_and_the_plan_shows_it(play: Any, on_host: Any, fleet: Any) -> None:
    before = fleet.processes()
    run = play("--limit", "one", "-e", json.dumps(SMALL), playbook="playbooks/benchmark.yml")
    assert run.status == 0, run.output[-3000:]
    assert fleet.processes() == before
    host = on_host("one")
    path = host.check_output(
        "echo /var/lib/llamacpp/instances/main/$(basename $(readlink /etc/llamacpp/instances/main/current))/benchmark.json"
    )
    found = json.loads(host.file(path).content_string)
    assert found["tokens_per_second"] > 0 and found["load"]["failed"] == 0
    assert found["engine"]["tokens_per_second"] > 0, found["notes"]
    plan = play("--limit", "one", playbook="playbooks/plan.yml")
    assert re.search(r"speed .*tokens/s, measured on this host", plan.text)
    assert "had been expected, estimated from memory bandwidths" in plan.text
    # Nothing that follows is to be held to what this busy machine gave.
    host.check_output(f"rm {path}")


def test_support_bundle_has_no_key(play: Any, on_host: Any, tmp_path: Path) -> None:
    host = on_host("one")
    key = host.check_output("cat /etc/llamacpp/instances/main/api-keys")
    host.check_output(
        "systemd-run --wait --collect --unit=llamacpp-switch-main sh -c 'cat /etc/llamacpp/instances/main/api-keys; echo planted'"
    )
    run = play("--limit", "one", "-e", f"llama_server_status_bundle={tmp_path}", playbook="playbooks/status.yml")
    assert run.status == 0, run.output[-3000:]
    with tarfile.open(tmp_path / "one.tar.gz") as archive:
        texts = {member.name: archive.extractfile(member).read().decode() for member in archive.getmembers()}  # type: ignore[union-attr]
    assert "planted" in texts["one/instances/main/switch.log"]
    assert "buffer size" in texts["one/instances/main/server.log"]
    assert json.loads(texts["one/facts.json"])["hostname"]
    assert [name for name, text in texts.items() if key in text] == []
    assert key not in run.output


def test_tuning_that_a_host_cannot_have_is_told_and_taken_back(play: Any, on_host: Any, fleet: Any) -> None:
    before = fleet.processes()
    wish = {"llama_server_tuning": [{"name": "transparent_hugepages", "value": "always"}]}
    run = play("--limit", "four", "--tags", "llama_server", "-e", json.dumps(wish))
    assert run.status == 0, run.output[-3000:]
    assert "transparent_hugepages is not set: /sys/kernel/mm/transparent_hugepage/enabled cannot be written" in run.text
    assert on_host("four").service("llamacpp-tuning").is_running
    run = play("--limit", "four", "--tags", "llama_server")
    assert run.status == 0, run.output[-3000:]
    assert on_host("four").run("ls /etc/systemd/system/llamacpp-tuning.service /etc/llamacpp/tuning.json /run/llamacpp-tuning").stdout == ""
    assert fleet.processes() == before


def test_engine_that_serves_is_not_removed(play: Any, on_host: Any, fleet: Any) -> None:
    before = on_host("one").check_output(TREE)
    run = play("--limit", "one", "-e", "llama_remove_engines=true", playbook="playbooks/remove.yml")
    assert run.status == 2
    assert "of instance main, which stays, needs the engine /opt/llamacpp/releases/" in run.text
    assert on_host("one").check_output(TREE) == before
    assert fleet.quants()["one"]


def test_removal_leaves_nothing_of_ours(play: Any, on_host: Any) -> None:
    host = on_host("one")
    before = host.check_output(TREE)
    run = play("--limit", "one", "--check", "--diff", *EVERYTHING, playbook="playbooks/remove.yml")
    assert (run.status, run.stats["one"]["changed"]) == (0, 1), run.output[-3000:]
    assert "-/etc/llamacpp/instances/main" in run.output
    assert host.check_output(TREE) == before

    run = play("--limit", "one", *EVERYTHING, playbook="playbooks/remove.yml")
    assert run.status == 0, run.output[-3000:]
    assert host.check_output(OURS) == ""
    assert host.run("getent passwd llamacpp llamacpp-fetch; getent group llamacpp llamacpp-fetch").stdout == ""
    assert host.check_output("systemctl list-units --all --plain --no-legend 'llamacpp*'") == ""
    assert host.run("systemctl is-system-running").stdout.strip() == "running"

    run = play("--limit", "one", *EVERYTHING, playbook="playbooks/remove.yml")
    assert (run.status, run.stats["one"]["changed"]) == (0, 0), run.output[-3000:]
