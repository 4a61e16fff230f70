# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A second model on a host that serves one, a real one: its own port, key and unit, and its removal, which the first does not notice.

The tests follow one another: each begins with what the one before has left.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import pytest

SMALL = {"name": "small", "port": 8081, "model": "onprem/gemma-3-270m-GGUF", "quant": "Q4_K_M", "alias": "second", "ctx_size": 1024}
SHOW = "systemctl show -p MainPID,ActiveEnterTimestampMonotonic llamacpp@"


@pytest.fixture(name="declared", scope="module")
def fixture_declared(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The arguments with which the inventory declares the second instance."""
    path = tmp_path_factory.mktemp("inventory") / "further.yml"
    path.write_text(json.dumps({"gpu_hosts": {"hosts": {"two": {"llama_instances": [SMALL]}}}}))
    return ["--limit", "two", "-i", str(path)]


def ask(host: Any, name: str, port: int, path: str = "/v1/models", body: Any = None) -> tuple[int, Any]:
    """What a port answers from outside to the key of an instance: the status and the document."""
    key = host.check_output(f"cat /etc/llamacpp/instances/{name}/api-keys")
    address = host.check_output("hostname -I").split()[0]
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"http://{address}:{port}{path}", json.dumps(body).encode() if body else None, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, None


def model(host: Any, name: str, port: int) -> tuple[int, str]:
    """The status, and the model that is served."""
    status, document = ask(host, name, port)
    return status, document["data"][0]["id"] if document else ""


def test_second_model_is_served_beside_the_first(play: Any, on_host: Any, declared: list[str]) -> None:
    host = on_host("two")
    before = host.check_output(f"{SHOW}main")
    run = play(*declared)
    assert run.status == 0, run.output[-3000:]
    assert host.check_output(f"{SHOW}main") == before
    answers = {(name, port): model(host, name, port) for name in ("main", "small") for port in (8080, 8081)}
    assert answers == {
        ("main", 8080): (200, "tiny-kimi-k2"), ("main", 8081): (401, ""), ("small", 8080): (401, ""), ("small", 8081): (200, "second"),
    }  # fmt: skip
    body = {"prompt": "Question: What is the capital of France?\nAnswer:", "max_tokens": 8, "temperature": 0}
    assert ask(host, "small", 8081, "/v1/completions", body)[1]["choices"][0]["text"].strip().startswith("Paris")


def test_second_run_changes_neither(play: Any, on_host: Any, declared: list[str]) -> None:
    before = on_host("two").check_output(f"{SHOW}main llamacpp@small")
    run = play(*declared)
    assert (run.status, run.stats["two"]["changed"]) == (0, 0), run.output[-3000:]
    assert "instance small" in run.text and "beside main, which has" in run.text
    assert on_host("two").check_output(f"{SHOW}main llamacpp@small") == before


def test_status_holds_both_to_what_is_declared(play: Any, declared: list[str]) -> None:
    run = play(*declared, playbook="playbooks/status.yml")
    assert run.status == 0, run.output[-3000:]
    run = play("--limit", "two", playbook="playbooks/status.yml")
    assert run.status == 1
    assert "two small: llama_instances does not declare it" in run.text


def test_removal_of_the_second_is_not_noticed_by_the_first(play: Any, on_host: Any) -> None:
    host = on_host("two")
    before = host.check_output(f"{SHOW}main")
    run = play("--limit", "two", "-e", "llama_remove_instances=small", playbook="playbooks/remove.yml")
    assert run.status == 0, run.output[-3000:]
    assert host.run("ls -d /etc/llamacpp/instances/small /var/lib/llamacpp/instances/small").stdout == ""
    assert host.check_output(f"{SHOW}main") == before and model(host, "main", 8080) == (200, "tiny-kimi-k2")
