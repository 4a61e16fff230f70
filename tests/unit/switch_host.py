# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host for tests of the switch program: real directories, a real HTTP server, and a systemd that does what the test says."""

from __future__ import annotations

import http.server
import json
import pathlib
import socket
import sys
import threading
from typing import Any, Optional

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "roles/llama_server/files"))

from llamacpp_switch import (
    cli,
    devices,
    evidence,
    files,
    front,
    gate,
    inspection,
    neighbours,
    outside,
    overlap,
    pagecache,
    preflight,
    questions,
    retention,
    transaction,
)
from llamacpp_switch import host as hosts

__all__ = [
    "cli",
    "devices",
    "evidence",
    "files",
    "front",
    "gate",
    "hosts",
    "inspection",
    "neighbours",
    "outside",
    "overlap",
    "pagecache",
    "preflight",
    "questions",
    "retention",
    "transaction",
]

KEY = "5f" * 32
OLD, NEW, OLDER = "a" * 12, "b" * 12, "c" * 12
PID = 2**22 + 1  # above what any kernel gives, so that none of this machine is taken for it
LOG = [
    "load_tensors:   CPU_Mapped model buffer size =   170.25 MiB",
    "load_tensors:   CPU_Mapped model buffer size =     0.75 MiB",
    "load_tensors:        CUDA0 model buffer size =   512.00 MiB",
    "llama_kv_cache:      CUDA0 KV buffer size =    64.00 MiB",
    "srv  init: api_keys: ****5f5f",
    f"somebody printed {KEY}",
    "error: something about the weights",
]


def called(name: str, arguments: str) -> dict[str, Any]:
    """A message that calls a tool."""
    return {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": name, "arguments": arguments}}]}


TOOL_ANSWERS = {
    "tool called": called("get_weather", '{"city": "Paris"}'),
    "tool unknown": called("get_wether", '{"city": "Paris"}'),
    "tool garbled": called("get_weather", '{"city": '),
    "tool unparsed": {"role": "assistant", "content": "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather"},
}


class LlamaServer(http.server.ThreadingHTTPServer):
    """Answers as llama-server does, as far as a behaviour lets it."""

    daemon_threads = True

    def __init__(self, port: int, behaviour: str, model_path: str) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.behaviour, self.model_path, self.health_checks = behaviour, model_path, 0
        self.asked: list[dict[str, Any]] = []  # the bodies of all requests, in order
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()


class Handler(http.server.BaseHTTPRequestHandler):
    server: LlamaServer

    def log_message(self, *_arguments: Any) -> None:
        pass

    def reply(self, status: int, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def allowed(self) -> bool:
        right = self.headers.get("Authorization") == f"Bearer {KEY}"
        if self.server.behaviour == "open door":
            return True
        if not right or self.server.behaviour == "other key":
            self.reply(401, {"error": {"message": "Invalid API Key", "type": "authentication_error", "code": 401}})
            return False
        return True

    def do_GET(self) -> None:
        server = self.server
        if self.path == "/health":
            server.health_checks += 1
            loading = server.behaviour == "hang" or (server.behaviour == "good" and server.health_checks == 1)
            self.reply(503 if loading else 200, {"error": {"message": "Loading model"}} if loading else {"status": "ok"})
        elif self.allowed():
            model = "/elsewhere.gguf" if server.behaviour == "wrong model" else server.model_path
            build = {"wrong build": "b11434-abc", "longer build number": "b115490-abc"}.get(server.behaviour, "b11549-abc")
            caps = {"supports_tool_calls": "tool" in server.behaviour}
            self.reply(200, {"model_path": model, "build_info": build, "chat_template_caps": caps})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(asked)
        if not self.allowed():
            return
        if self.server.behaviour == "broken answer":
            self.connection.close()
            return
        if self.server.behaviour == "error answer":
            self.reply(500, {"error": {"message": "the backend failed", "code": 500}})
            return
        texts = {"empty answer": "  ", "gibberish": "@" * 32}
        text = texts.get(self.server.behaviour, "The capital of France is Paris.")
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if "tools" in asked:
            message = TOOL_ANSWERS.get(self.server.behaviour, message)
        timings = {"predicted_per_second": 12.345, "prompt_per_second": 99.5}
        self.reply(200, {"choices": [{"message": message, "finish_reason": "stop"}], "timings": timings})


class FakeSystemd:
    """Starts the behaviour of whatever deployment a link names."""

    def __init__(self, layout: Any, port: int, behaviours: dict[str, str], link: str = "current") -> None:
        self.layout, self.port, self.behaviours, self.link = layout, port, behaviours, link
        self.server: Optional[LlamaServer] = None
        self.active, self.result, self.enabled = "inactive", "success", False
        self.calls: list[str] = []
        self.restarts = 0  # by systemd itself

    def show(self, *_more: str) -> dict[str, str]:
        return {
            "NeedDaemonReload": "no",
            "ActiveEnterTimestampMonotonic": "0",
            "ActiveState": self.active,
            "MainPID": str(PID) if self.active == "active" else "0",
            "NRestarts": str(self.restarts),
            "Result": self.result,
            "ExecMainCode": "1",
            "ExecMainStatus": "1",
            "InvocationID": "i",
        }

    life = hosts.Systemd.life

    def reload(self) -> None:
        self.calls.append("reload")

    def stop(self) -> None:
        self.calls.append("stop")
        self.shut()
        self.active = "inactive"

    def shut(self) -> None:
        if self.server:
            self.server.shutdown()
            self.server.server_close()
            self.server = None

    def restart(self) -> None:
        self.calls.append("restart")
        self.shut()
        deployment = self.layout.linked(self.link)
        behaviour = self.behaviours.get(deployment, "good")
        if behaviour == "does not start":
            self.active = "failed"
            raise files.SwitchError("the server did not start (exit status 203)")
        self.active = "failed" if behaviour == "crash" else "active"
        if self.active == "active":
            self.server = LlamaServer(self.port, behaviour, self.layout.request(deployment)["model_path"])

    def enable(self, wanted: bool) -> None:
        self.enabled = wanted

    def log(self, _invocation: str, _last: int = 0) -> list[str]:
        return list(LOG)


class Host:
    """A host with deployments in a temporary directory."""

    def __init__(self, root: pathlib.Path) -> None:
        with socket.socket() as probe, socket.socket() as other:
            probe.bind(("127.0.0.1", 0))
            other.bind(("127.0.0.1", 0))
            self.port, self.spare = probe.getsockname()[1], other.getsockname()[1]
        self.root = root
        self.layout = files.Layout("main", root)
        self.behaviours: dict[str, str] = {}
        self.systemd = FakeSystemd(self.layout, self.port, self.behaviours)
        self.second = FakeSystemd(self.layout, self.spare, self.behaviours, "beside")
        self.layout.declared.mkdir(parents=True)
        self.layout.wants.mkdir(parents=True)
        self.layout.api_keys.write_text(f"# a comment\n{KEY}\n")

    def deploy(self, identity: str, behaviour: str = "good", **request: Any) -> None:
        folder = self.layout.deployment(identity)
        (folder / "engine/bin").mkdir(parents=True)
        (folder / "engine/bin/llama-server").touch()
        (folder / "deployment.json").write_text("{}")
        model = folder / "model.gguf"
        model.write_bytes(b"GGUF")
        self.behaviours[identity] = behaviour
        document = {
            "host": "127.0.0.1",
            "port": self.port,
            "api_key": True,
            "model_path": str(model),
            "model_bytes": 4,
            "build_number": 11549,
            "devices": [],
            "advertised": "127.0.0.1",
            "prompts": [{"prompt": "?", "expect": "", "pattern": "", "max_tokens": 8}],
            "tools": "auto",
            "speed": {"minimum": 0.0, "benchmark_share": 0.8, "expected": None},
            "answer_seconds": 2,
            "grace_seconds": 1,
            "disk_floor": 100_000_000,
            **request,
        }
        files.write_json(self.layout.recorded / identity / "request.json", document)

    def switch(self) -> Any:
        return transaction.Switch(self.layout, self.systemd, self.second)

    def run(self, identity: str, **options: Any) -> dict[str, Any]:
        journal: dict[str, Any] = self.switch().run(identity, "run", **options)
        return journal

    def journal(self) -> dict[str, Any]:
        document: dict[str, Any] = files.read_json(self.layout.journal)
        return document

    def record(self, identity: str, name: str) -> dict[str, Any]:
        document: dict[str, Any] = files.read_json(self.layout.recorded / identity / name)
        return document

    def reboot(self) -> None:
        """Everything that ran is gone; recover, then systemd starts what is enabled."""
        self.systemd.shut()
        self.second.shut()
        self.second.active = "inactive"
        enabled = self.systemd.enabled
        self.systemd = FakeSystemd(self.layout, self.port, self.behaviours)
        self.systemd.enabled = enabled
        self.switch().recover(boot=True)
        if self.systemd.enabled and self.layout.linked("current"):
            self.systemd.restart()

    def links(self) -> tuple[str, str]:
        return self.layout.linked("current"), self.layout.linked("previous")
