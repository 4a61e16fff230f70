# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every way in which a deployment fails its gate: what served before serves again, and the journal says why."""

from __future__ import annotations

from typing import Any

import plays
import pytest

MODELS = "/var/lib/llamacpp/broken"
# Makes from a model one that is cut off, one that never comes, and one whose weights are no numbers; and an engine that is killed.
BREAK = f"""
set -e
mkdir -p {MODELS} /opt/llamacpp/killed/bin
cd {MODELS}
test -f cut.gguf || head -c 1000000 $(ls $MODEL | head -n 1) > cut.gguf
test -p pipe.gguf || mkfifo pipe.gguf
printf '#!/bin/sh\\necho "llama_model_load: loading"\\nkill -KILL $$\\n' > /opt/llamacpp/killed/bin/llama-server
chmod 755 /opt/llamacpp/killed/bin/llama-server
"""
QUICK = {"grace_seconds": 4, "disk_floor": 100_000_000}


@pytest.fixture(name="broken", scope="module")
def fixture_broken(server: Any) -> Any:
    server.out(f"MODEL={server.request(server.good)['model_path']}; {BREAK}")
    return server


def engine(path: str) -> dict[str, Any]:
    """An engine that is given another file than it is asked about."""
    return {"environment": {"LLAMA_ARG_MODEL": path}, "request": QUICK}


FAILURES = {
    "crash-at-load": (engine(f"{MODELS}/cut.gguf"), "the server ended by itself: exit status 1", "error"),
    "killed-as-when-memory-runs-out": ({"engine": "/opt/llamacpp/killed"}, "(often memory that ran out)", "loading"),
    "hang-in-load": (engine(f"{MODELS}/pipe.gguf"), "still answers 503 (loading)", ""),
    "wrong-model": ({"request": {"model_path": f"{MODELS}/cut.gguf"}}, f"the deployment names {MODELS}/cut.gguf", ""),
    "wrong-build": ({"request": {"build_number": 99999}}, "the deployment names b99999", ""),
    "garbage-answer": (
        {"request": {"prompts": [{"prompt": "The capital of France?", "expect": "Paris", "pattern": "", "max_tokens": 8}]}},
        "lacks 'Paris'",
        "",
    ),
    "slower-than-its-benchmark": (
        {"records": {"benchmark.json": {"tokens_per_second": 100000}}},
        "tokens/s are fewer than 80000: 80% of the 100000 that a benchmark of this deployment has shown",
        "",
    ),
}


@pytest.mark.parametrize(("wish", "reason", "logged"), FAILURES.values(), ids=FAILURES)
def test_failure_is_undone_and_told(broken: Any, wish: dict[str, Any], reason: str, logged: str) -> None:
    bad = broken.lay(reason, **wish)
    ended = broken.switch(bad)
    assert ended.status == 1
    assert reason in ended.journal["reason"], ended.journal
    assert (ended.journal["state"], ended.journal["serving"], ended.journal["from"]) == ("undone", broken.good, broken.good)
    assert ended.journal["log_tail"] and logged in "\n".join(ended.journal["log_tail"])
    assert ended.journal["gap_seconds"] > 0
    broken.serves(broken.good)
    assert broken.link("previous") == broken.other
    # It was started once and serves; nothing loops.
    assert broken.out("systemctl show -p NRestarts --value llamacpp@main") == "0"


def test_port_of_another_program_is_named_and_nothing_is_touched(server: Any) -> None:
    before = server.out("systemctl show -p MainPID --value llamacpp@main")
    server.out("systemd-run --quiet --collect --unit=squatter python3 -m http.server 8099 --bind 127.0.0.1")
    try:
        plays.wait_until(lambda: server.host.socket("tcp://127.0.0.1:8099").is_listening)
        bad = server.lay("port taken", environment={"LLAMA_ARG_PORT": "8099"}, request={"port": 8099})
        ended = server.switch(bad)
    finally:
        server.out("systemctl stop squatter")
    assert "port 8099 is held by python3 (PID " in ended.journal["reason"]
    assert ended.journal["serving"] == server.good
    assert server.out("systemctl show -p MainPID --value llamacpp@main") == before


def test_first_deployment_that_fails_is_stopped_and_does_not_loop(broken: Any) -> None:
    wish = {"environment": {"LLAMA_ARG_MODEL": f"{MODELS}/cut.gguf", "LLAMA_ARG_PORT": "8098"}, "request": {**QUICK, "port": 8098}}
    bad = broken.lay("first", instance="first", unit="\n[Service]\nSocketBindAllow=tcp:8098\n", **wish)
    ended = broken.switch(bad, "first")
    assert ended.status == 1
    assert (ended.journal["state"], ended.journal["serving"], ended.journal["committed"]) == ("undone", "", "")
    assert "ended by itself" in ended.journal["reason"]
    shown = "systemctl show -p ActiveState,UnitFileState,NRestarts --value llamacpp@first"
    assert set(broken.out(shown).split()) == {"inactive", "disabled", "0"}
    assert broken.link("current", "first") == ""
    broken.out("sleep 12")  # longer than the unit waits before it tries again
    assert set(broken.out(shown).split()) == {"inactive", "disabled", "0"}
    broken.serves(broken.good)
