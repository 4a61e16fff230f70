# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module against a server that streams, and an engine that says what the test wants."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.onprem.llamacpp.plugins.module_utils import _instance
from ansible_collections.onprem.llamacpp.plugins.modules import llama_benchmark

KEY = "5f" * 32
DEPLOYMENT = "a" * 12
BENCH = [{"n_prompt": 0, "n_gen": 4, "avg_ts": 7.0, "stddev_ts": 0.1}, {"n_prompt": 16, "n_gen": 0, "avg_ts": 70.0, "stddev_ts": 0.1}]
MEMINFO = "MemTotal: 268435456 kB\nMemAvailable: {} kB\n"


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers as llama-server does to a streamed completion."""

    failing = False

    def log_message(self, *_arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        allowed = self.headers.get("Authorization") == f"Bearer {KEY}" and not self.failing
        self.send_response(200 if allowed else 503)
        self.end_headers()
        if allowed:
            for number in range(body["max_tokens"]):
                self.event({"choices": [{"delta": {"content": str(number)}}]})
            timings = {"predicted_n": body["max_tokens"], "predicted_per_second": 12.345, "prompt_per_second": 99.0}
            self.event({"choices": [{"delta": {}}], "timings": timings})
            self.wfile.write(b"data: [DONE]\n\n")

    def event(self, document: dict[str, Any]) -> None:
        self.wfile.write(b"data: " + json.dumps(document).encode() + b"\n\n")


class Host:
    """An instance that serves, below a temporary root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.instance = _instance.Instance("main", str(root / "etc"), str(root / "state"))
        folder = Path(self.instance.deployment(DEPLOYMENT))
        (folder / "engine/bin").mkdir(parents=True)
        (folder / "engine/bin/llama-bench").touch(0o755)
        document = {"host": "127.0.0.1", "port": self.server.server_port, "api_key_required": True}
        document.update(build_id="b1", repo_id="o/r", commit="c" * 40, quant="Q4_K_M")
        (folder / "deployment.json").write_text(json.dumps(document))
        (folder / "server.env").write_text("LLAMA_ARG_MODEL=/m/a.gguf\nLLAMA_ARG_THREADS=8\n")
        (root / "etc/main/current").symlink_to(f"deployments/{DEPLOYMENT}")
        Path(self.instance.api_keys).write_text(KEY + "\n")
        self.state = root / "state/main"
        (self.state / DEPLOYMENT).mkdir(parents=True)
        self.plan(weights=10**9)
        self.journal("committed")
        (root / "proc").mkdir()
        (root / "proc/meminfo").write_text(MEMINFO.format(100_000_000))
        self.asked: list[list[str]] = []
        self.bench = (0, json.dumps(BENCH), "")

    def plan(self, weights: int) -> None:
        plan = {"fit": "resident", "memory": {"host": {"weights": weights, "context": 0, "compute": 0}, "devices": []}}
        (self.state / DEPLOYMENT / "plan.json").write_text(json.dumps(plan))

    def journal(self, state: str) -> None:
        committed = "" if state == "undone" else DEPLOYMENT
        (self.state / "switch.json").write_text(json.dumps({"state": state, "committed": committed}))

    def run(self, argv: list[str]) -> tuple[int, str, str]:
        self.asked.append(argv)
        if argv[0] == "systemctl":
            return 0, "Environment=CUDA_VISIBLE_DEVICES=GPU-1 HOME=/x\nNUMAPolicy=n/a\nSupplementaryGroups=\n", ""
        return (0, "  -t, --threads <n>\n", "") if argv[-1] == "--help" else self.bench

    def measure(self, **params: Any) -> dict[str, Any]:
        known = {"engine": True, "tokens": 4, "repetitions": 2, "clients": 2, "requests": 4, "timeout": 10}
        return llama_benchmark.Benchmark(self.instance, {**known, **params}, self.run, str(self.root / "proc")).measure()

    def recorded(self) -> dict[str, Any]:
        return json.loads((self.state / DEPLOYMENT / "benchmark.json").read_text())


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    Handler.failing = False
    made.server.shutdown()
    made.server.server_close()


def test_server_and_engine_are_measured_and_recorded(host: Host) -> None:
    result = host.measure()
    assert host.recorded() == result
    assert (result["tokens_per_second"], result["prompt_tokens_per_second"]) == (12.35, 99.0)
    assert (result["deployment"], result["quant"], result["commit"]) == (DEPLOYMENT, "Q4_K_M", "c" * 40)
    assert (result["load"]["clients"], result["load"]["requests"], result["load"]["failed"]) == (2, 4, 0)
    assert result["engine"]["tokens_per_second"] == 7.0
    assert result["engine"]["arguments"][:4] == ["--model", "/m/a.gguf", "--threads", "8"]
    assert result["notes"] == []


def test_program_runs_where_the_server_runs(host: Host) -> None:
    host.measure()
    command = host.asked[-1]
    assert "--property=User=llamacpp" in command
    assert "--property=Environment=CUDA_VISIBLE_DEVICES=GPU-1 HOME=/x" in command
    assert not any("n/a" in argument for argument in command)
    assert not any(KEY in argument for asked in host.asked for argument in asked)


def test_no_second_load_where_memory_does_not_allow_it(host: Host) -> None:
    host.plan(weights=400 * 10**9)
    result = host.measure()
    assert result["engine"] == {}
    assert result["notes"][0].startswith("llama-bench was not run: the host can give")
    assert not any("systemd-run" in asked for asked in host.asked)
    assert result["tokens_per_second"] == 12.35


def test_the_switch_that_leaves_the_program_out_is_named(host: Host) -> None:
    assert host.measure(engine=False)["notes"] == ["llama-bench was not run: llama_benchmark_engine is false"]


def test_program_that_fails_costs_its_figures_only(host: Host) -> None:
    host.bench = (1, "", "ggml: warning\nerror: failed to load model\n")
    result = host.measure()
    assert (result["engine"], result["notes"]) == ({}, ["llama-bench failed with status 1: error: failed to load model"])


def test_key_is_nowhere_in_what_is_recorded(host: Host) -> None:
    host.measure()
    assert KEY not in (host.state / DEPLOYMENT / "benchmark.json").read_text()


def test_server_that_refuses_is_not_recorded(host: Host) -> None:
    Handler.failing = True
    with pytest.raises(llama_benchmark.BenchmarkError, match="answered with 503"):
        host.measure()
    assert not (host.state / DEPLOYMENT / "benchmark.json").exists()


@pytest.mark.parametrize("state", ["undone", "failed"])
def test_deployment_that_was_not_proven_is_not_measured(host: Host, state: str) -> None:
    host.journal(state)
    with pytest.raises(llama_benchmark.BenchmarkError, match="no deployment that has passed its gate"):
        host.measure()
