# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wishes that cannot be met are refused with a sentence, and nothing on any host has changed."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from conftest import ADDRESSES
from plays import tree


@contextmanager
def endpoint(status: int) -> Iterator[str]:
    """A Hub that answers everything with one status."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *_arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()


def variables(**values: Any) -> list[str]:
    return ["-e", json.dumps(values)]


@pytest.mark.parametrize(
    ("wish", "sentences"),
    [
        pytest.param(
            {"quant": "UD-Q9"},
            ["quant UD-Q9 is not in onprem/Tiny-Kimi-K2-GGUF: it has", "UD-TQ1_0 (", "UD-Q2_K_XL (", "Q2_K_L ("],
            id="unknown quant",
        ),
        pytest.param(
            {"quant": "Q8_0"},
            ["quant Q8_0 is incomplete in onprem/Tiny-Kimi-K2-GGUF: Tiny-Kimi-K2-Q8_0.gguf is not a usable GGUF file"],
            id="a file that is no model, before it is fetched",
        ),
        pytest.param({"model": "tiny-kimi-k3"}, ["did you mean 'tiny-kimi-k2'?"], id="unknown model"),
        pytest.param(
            {"quant": "UD-TQ1_0", "llama_plan_disk_buffer": 900_000_000_000_000},
            ["disk: UD-TQ1_0 needs 900000 GB free in /var/lib/llamacpp/models", "are free"],
            id="disk",
        ),
        pytest.param(
            {"quant": "UD-TQ1_0", "llama_model_endpoint": "http://10.76.0.10:9"},
            ["http://10.76.0.10:9 cannot be reached", "Check the network, llama_proxy_env and llama_model_endpoint"],
            id="mirror unreachable",
        ),
        pytest.param(
            {"quant": "UD-TQ1_0", "llama_proxy_env": {"http_proxy": "http://127.0.0.1:9", "no_proxy": ""}},
            ["http://10.76.0.10 cannot be reached", "Check the network, llama_proxy_env"],
            id="a proxy that is not there",
        ),
        pytest.param(
            {"llama_engine_tag": "b11000", "llama_engine_force": []}, ["b11000 is refused", "b11393"], id="engine below the floor"
        ),
    ],
)
def test_refused_in_a_sentence(play: Any, on_host: Any, wish: dict[str, Any], sentences: list[str]) -> None:
    before = tree(on_host("bookworm"))
    run = play("--limit", "bookworm", *variables(**wish))
    assert run.status != 0
    for sentence in sentences:
        assert sentence in run.text
    assert "Traceback" not in run.output
    assert tree(on_host("bookworm")) == before


def test_a_hub_that_says_no_is_told_in_one_line(play: Any, on_host: Any) -> None:
    before = tree(on_host("bookworm"))
    with endpoint(401) as url:
        run = play("--limit", "bookworm", *variables(quant="UD-TQ1_0", llama_model_endpoint=url))
    assert run.status != 0
    assert "was refused (HTTP 401): it does not exist or is private. Check the name, then set llama_model_token" in run.text
    assert "Traceback" not in run.output
    assert tree(on_host("bookworm")) == before


def test_all_bad_hosts_are_told_together_before_the_first_change(play: Any, on_host: Any) -> None:
    hosts = {name: on_host(name) for name in ADDRESSES}
    before = {name: tree(host) for name, host in hosts.items()}
    listener = "import socket,time; s=socket.create_server(('0.0.0.0', 9099)); time.sleep(120)"
    pid = hosts["trixie"].check_output(f'nohup python3 -c "{listener}" > /dev/null 2>&1 & echo $!')
    try:
        run = play(*variables(llama_server_port=9099, quant="UD-Q4_K_XL", llama_plan_disk_buffer=900_000_000_000_000))
    finally:
        hosts["trixie"].run(f"kill {pid}")
    assert run.status != 0
    for name in ADDRESSES:
        assert f"is refused on {name}" in run.text
        assert run.stats[name]["changed"] == 0
    assert f"port: 9099 is held by python3 (PID {pid}" in run.text
    assert {name: tree(host) for name, host in hosts.items()} == before
