# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A smaller quant instead of one that fails, and many switches that leave nothing behind."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import plays

CACHE = plays.KEY.parents[1] / "engines"
OPTION = "-DSWITCHED=ON"  # cmake has no such option, and a build with it would be the same
KEEP = 2
SWITCHES = int(os.environ.get("SWITCHES", "20"))


def test_smaller_quant_serves_when_the_wished_one_fails(server: Any, play: Any) -> None:
    said = server.request(server.good)["prompts"][0]["prompt"]
    gate = json.loads(server.out(f"cat /var/lib/llamacpp/instances/main/{server.good}/gate.json"))
    # Weights of another quant say something else, so only GOOD's answer passes.
    prompts = [{"prompt": said, "expect": gate["answer"][:30]}]
    assert server.switch(server.other).status == 0
    more = {"quant": "UD-Q4_K_XL", "llama_server_on_gate_failure": "downgrade", "llama_server_gate_prompts": prompts}
    run = play("-e", json.dumps(more))
    assert run.status == 0, run.output[-3000:]
    assert "UD-Q2_K_XL serves instead of UD-Q4_K_XL." in run.text and "lacks" in run.text
    assert "without service" in run.text
    server.serves(server.good)


def test_without_a_smaller_quant_that_serves_the_run_fails_with_the_old_one(server: Any, play: Any) -> None:
    more = {"quant": "UD-Q4_K_XL", "llama_server_on_gate_failure": "downgrade", "llama_server_gate_min_tokens_per_second": 100000}
    run = play("-e", json.dumps({**more, "llama_server_downgrade_steps": 0}))
    assert run.status == 2
    assert "There was no smaller quant to try" in run.text and "are fewer than 100000" in run.text
    server.serves(server.good)


def test_flags_are_changed_by_the_playbook(server: Any, play: Any) -> None:
    """Check mode tells of the change and makes none; the server then runs with it."""
    wish = ("-e", "llama_plan_threads=2")
    told = play("--check", "--diff", *wish)
    assert told.status == 0 and "+LLAMA_ARG_THREADS=2" in told.text and "-LLAMA_ARG_THREADS=1" in told.text, told.output[-3000:]
    server.serves(server.good)
    run = play(*wish)
    assert run.status == 0, run.output[-3000:]
    changed = server.link("current")
    assert changed != server.good
    server.serves(changed)
    pid = server.out("systemctl show -p MainPID --value llamacpp@main")
    assert "LLAMA_ARG_THREADS=2" in server.out(f"tr '\\0' '\\n' < /proc/{pid}/environ").splitlines()
    assert server.switch(server.good).status == 0


def test_server_that_dies_comes_back(server: Any) -> None:
    pid = server.out("systemctl show -p MainPID --value llamacpp@main")
    server.out("systemctl kill -s SEGV --kill-whom=main llamacpp@main")
    plays.wait_until(lambda: server.out("systemctl show -p MainPID --value llamacpp@main") not in ("0", pid))
    server.serves(server.good)
    assert server.out("systemctl show -p NRestarts --value llamacpp@main") == "1"


def test_another_engine_is_switched_to_and_back(server: Any) -> None:
    release = server.out("readlink -f /etc/llamacpp/instances/main/current/engine")
    another = f"{release}-2"
    server.out(f"cp -a {release} {another}")
    to = server.lay("another engine", engine=another)
    assert server.switch(to).status == 0
    server.serves(to)
    pid = server.out("systemctl show -p MainPID --value llamacpp@main")
    assert server.out(f"readlink /proc/{pid}/exe").startswith(another)
    assert server.switch(server.good).status == 0
    server.serves(server.good)


def test_another_engine_comes_by_the_playbook_and_goes_back(server: Any, play: Any, tmp_path: Path) -> None:
    """An engine that is built with one option more is unpacked, gated and served; rollback.yml serves the release before."""
    old = server.out("readlink -f /etc/llamacpp/instances/main/current/engine")
    new = cached_with(OPTION, json.loads(server.out(f"cat {old}/build.json")), tmp_path)
    run = play("-e", json.dumps({"llama_engine_cache": str(tmp_path), "llama_engine_cmake_options": [OPTION]}))
    assert run.status == 0, run.output[-3000:]
    changed = server.link("current")
    assert (changed != server.good, server.link("previous")) == (True, server.good)
    server.serves(changed)
    assert program(server) == f"/opt/llamacpp/releases/{new}/bin/llama-server"
    back = play(playbook="playbooks/rollback.yml")
    assert back.status == 0, back.output[-3000:]
    server.serves(server.good)
    assert program(server) == f"{old}/bin/llama-server"


def program(server: Any) -> str:
    """The program that serves, as the kernel knows it."""
    return str(server.out("readlink /proc/$(systemctl show -p MainPID --value llamacpp@main)/exe"))


def cached_with(option: str, build: dict[str, Any], folder: Path) -> str:
    """A cache that holds one build: the host's own as if it had been made with one option more. The id that it has then."""
    cmake = [*build["inputs"]["cmake_options"], option]
    inputs = {**build["inputs"], "cmake_options": cmake}
    text = json.dumps(inputs, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    kind, _digest = build["build_id"].rsplit("-", 1)
    made = {**build, "build_id": f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:8]}", "cmake_options": cmake, "inputs": inputs}
    artifact = folder / f"{made['build_id']}.tar.gz"
    shutil.copy(CACHE / f"{build['build_id']}.tar.gz", artifact)
    artifact.with_name(artifact.name + ".sha256").write_text(f"{hashlib.sha256(artifact.read_bytes()).hexdigest()}  {artifact.name}\n")
    (folder / f"{made['build_id']}.json").write_text(json.dumps(made))
    return str(made["build_id"])


def test_many_switches_leave_as_much_as_a_few(server: Any) -> None:
    handles = int(server.out("ls /proc/1/fd | wc -l"))
    to = server.good
    for number in range(SWITCHES):
        # Like the one before, because the first ones do not stay.
        to = server.lay(f"round {number}", to, environment={"LLAMA_ROUND": str(number)}, request={"keep": KEEP})
        ended = server.switch(to)
        assert ended.status == 0, ended.journal
    deployments = set(server.out("ls -A /etc/llamacpp/instances/main/deployments").split())
    records = set(server.out("ls -A /var/lib/llamacpp/instances/main").split())
    assert records - {"switch.json", "switch.lock"} == deployments
    assert len(deployments) == KEEP + 2
    assert int(server.out("ls /proc/1/fd | wc -l")) <= handles + 5
    assert not server.out("ls /run/systemd/transient | grep llamacpp || true")
