# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The switch program against real directories, a real HTTP server and a systemd that does what the test says."""

from __future__ import annotations

import http.server
import json
import os
import pathlib
import socket
import sys
import threading
from typing import Any, Optional

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[4] / "roles/llama_server/files"))

from llamacpp_switch import cli, files, transaction
from llamacpp_switch import gate as gates
from llamacpp_switch import host as hosts

KEY = "5f" * 32
OLD, NEW, OLDER = "a" * 12, "b" * 12, "c" * 12
PID = 4242
LOG = [
    "load_tensors:   CPU_Mapped model buffer size =   170.25 MiB",
    "load_tensors:   CPU_Mapped model buffer size =     0.75 MiB",
    "load_tensors:        CUDA0 model buffer size =   512.00 MiB",
    "llama_kv_cache:      CUDA0 KV buffer size =    64.00 MiB",
    "srv  init: api_keys: ****5f5f",
    f"somebody printed {KEY}",
    "error: something about the weights",
]


class PowerLoss(BaseException):
    """Nothing runs after this, not even an except clause."""


class LlamaServer(http.server.ThreadingHTTPServer):
    """Answers as llama-server does, as far as a behaviour lets it."""

    daemon_threads = True

    def __init__(self, port: int, behaviour: str, model_path: str) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.behaviour, self.model_path, self.health_checks = behaviour, model_path, 0
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
            build = "b11434-abc" if server.behaviour == "wrong build" else "b11549-abc"
            self.reply(200, {"model_path": model, "build_info": build})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
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
        timings = {"predicted_per_second": 12.345, "prompt_per_second": 99.5}
        self.reply(200, {"choices": [{"message": {"role": "assistant", "content": text}}], "timings": timings})


class FakeSystemd:
    """Starts the behaviour of whatever deployment ``current`` names."""

    def __init__(self, layout: Any, port: int, behaviours: dict[str, str]) -> None:
        self.layout, self.port, self.behaviours = layout, port, behaviours
        self.server: Optional[LlamaServer] = None
        self.active, self.result, self.enabled = "inactive", "success", False
        self.calls: list[str] = []

    def show(self) -> dict[str, str]:
        return {
            "ActiveState": self.active,
            "MainPID": str(PID) if self.active == "active" else "0",
            "NRestarts": "0",
            "Result": self.result,
            "ExecMainCode": "1",
            "ExecMainStatus": "1",
            "InvocationID": "i",
        }

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
        deployment = self.layout.linked("current")
        behaviour = self.behaviours.get(deployment, "good")
        if behaviour == "does not start":
            self.active = "failed"
            raise files.SwitchError("the server did not start (exit status 203)")
        self.active = "failed" if behaviour == "crash" else "active"
        if self.active == "active":
            self.server = LlamaServer(self.port, behaviour, self.layout.request(deployment)["model_path"])

    def enable(self, wanted: bool) -> None:
        self.enabled = wanted

    def log(self, _invocation: str) -> list[str]:
        return list(LOG)


class Host:
    """A host with deployments in a temporary directory."""

    def __init__(self, root: pathlib.Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.root = root
        self.layout = files.Layout("main", root)
        self.behaviours: dict[str, str] = {}
        self.systemd = FakeSystemd(self.layout, self.port, self.behaviours)
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
            "prompt": "?",
            "max_tokens": 8,
            "answer_seconds": 2,
            "grace_seconds": 1,
            "disk_floor": 100_000_000,
            **request,
        }
        files.write_json(self.layout.recorded / identity / "request.json", document)

    def switch(self) -> Any:
        return transaction.Switch(self.layout, self.systemd)

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
        enabled = self.systemd.enabled
        self.systemd = FakeSystemd(self.layout, self.port, self.behaviours)
        self.systemd.enabled = enabled
        self.switch().recover()
        if self.systemd.enabled and self.layout.linked("current"):
            self.systemd.restart()

    def links(self) -> tuple[str, str]:
        return self.layout.linked("current"), self.layout.linked("previous")


@pytest.fixture
def host(tmp_path, monkeypatch):
    monkeypatch.setattr(gates, "POLL_SECONDS", 0.02)
    # The test's own process listens in place of the server.
    monkeypatch.setattr(transaction, "listening", lambda *_arguments: [])
    made = Host(tmp_path)
    yield made
    made.systemd.shut()


@pytest.fixture
def serving(host):
    """A host that serves OLD, and served OLDER before."""
    host.deploy(OLDER)
    host.deploy(OLD)
    host.run(OLDER)
    host.run(OLD)
    assert host.links() == (OLD, OLDER)
    return host


def states(journal: dict[str, Any]) -> list[str]:
    return [entry["state"] for entry in journal["states"]]


def test_first_deployment_is_committed_and_enabled(host):
    host.deploy(NEW)
    journal = host.run(NEW)
    assert states(journal) == ["prepared", "switched", "gating", "committed"]
    assert (journal["committed"], journal["serving"], journal["restarted"]) == (NEW, NEW, True)
    assert host.links() == (NEW, "")
    assert host.systemd.enabled
    assert os.readlink(host.layout.drop_in) == str(host.layout.declared / "current/unit.conf")


def test_switch_keeps_the_way_back(serving):
    serving.deploy(NEW)
    assert serving.run(NEW)["state"] == "committed"
    assert serving.links() == (NEW, OLD)


def test_gate_records_what_it_saw(host):
    host.deploy(NEW, devices=["CUDA0"])
    host.run(NEW)
    gate, actual = host.record(NEW, "gate.json"), host.record(NEW, "actual.json")
    assert gate["passed"] and gate["answer"] == "The capital of France is Paris." and gate["build_info"] == "b11549-abc"
    assert (gate["tokens_per_second"], gate["prompt_tokens_per_second"]) == (12.35, 99.5)
    assert actual["buffers"] == {"CPU_Mapped": {"model": 171 * 2**20}, "CUDA0": {"model": 512 * 2**20, "KV": 64 * 2**20}}


def test_gate_compares_the_memory_with_the_plan(host):
    host.deploy(NEW, devices=["CUDA0"])
    shares = [
        {"engine_name": "CUDA0", "weights": 500 * 2**20, "context": 64 * 2**20, "compute": 0},
        {"engine_name": "CUDA1", "weights": 0, "context": 0, "compute": 0},
    ]
    files.write_json(host.layout.recorded / NEW / "plan.json", {"memory": {"devices": shares}})
    host.run(NEW)
    told = {"engine_name": "CUDA0", "planned": 564 * 2**20, "actual": 576 * 2**20, "error_percent": 2.1}
    assert host.record(NEW, "actual.json")["devices"] == [told]


FAILURES = {
    "crash": ("crash", "ended by itself: exit status 1"),
    "no-start": ("does not start", "did not start"),
    "hang": ("hang", "not healthy after 1 s: /health still answers 503"),
    "wrong-model": ("wrong model", "loaded /elsewhere.gguf"),
    "wrong-build": ("wrong build", "is build b11434-abc, the deployment names b11549"),
    "open-door": ("open door", "without a key with 200 instead of 401"),
    "other-key": ("other key", "does not accept the key"),
    "empty-answer": ("empty answer", "empty"),
    "gibberish": ("gibberish", "gibberish"),
    "error-answer": ("error answer", "500 the backend failed"),
    "broken-answer": ("broken answer", "connection broke"),
}


@pytest.mark.parametrize(("behaviour", "reason"), FAILURES.values(), ids=FAILURES)
def test_bad_deployment_is_undone_and_the_old_one_serves(serving, behaviour, reason):
    serving.deploy(NEW, behaviour)
    journal = serving.run(NEW)
    assert reason in journal["reason"]
    assert (journal["state"], journal["serving"], journal["committed"]) == ("undone", OLD, OLD)
    assert serving.links() == (OLD, OLDER)
    assert serving.systemd.active == "active" and serving.systemd.enabled
    assert journal["log_tail"][-1] == "error: something about the weights"
    assert "undoing" in states(journal)


@pytest.mark.parametrize("behaviour", ["crash", "hang", "gibberish"])
def test_failed_first_deployment_stops_the_unit(host, behaviour):
    host.deploy(NEW, behaviour)
    journal = host.run(NEW)
    assert (journal["state"], journal["serving"], journal["committed"]) == ("undone", "", "")
    assert host.links() == ("", "")
    assert (host.systemd.active, host.systemd.enabled) == ("inactive", False)
    assert not host.layout.drop_in.is_symlink()


@pytest.mark.parametrize("behaviour", ["crash", "gibberish"])
def test_without_its_model_the_old_deployment_is_not_tried_and_that_is_told(serving, behaviour):
    serving.deploy(NEW, behaviour)
    model = serving.layout.request(OLD)["model_path"]
    os.remove(model)
    restarts = serving.systemd.calls.count("restart")
    journal = serving.run(NEW)
    assert (journal["state"], journal["serving"]) == ("failed", "")
    assert journal["undo_reason"] == f"the model of deployment {OLD} is not on this host: {model}"
    assert serving.systemd.calls.count("restart") == restarts + 1  # the new one's
    assert serving.systemd.active == "inactive"
    assert serving.links() == (OLD, OLDER)
    # What it takes to serve again: the new deployment, mended.
    serving.behaviours[NEW] = "good"
    assert serving.run(NEW)["state"] == "committed"


def test_old_deployment_that_fails_too_is_told(serving):
    serving.deploy(NEW, "crash")
    serving.behaviours[OLD] = "hang"
    journal = serving.run(NEW)
    assert journal["state"] == "failed"
    assert "ended by itself" in journal["reason"] and "not healthy" in journal["undo_reason"]
    assert serving.links() == (OLD, OLDER)


def test_missing_planned_device_is_refused(host):
    host.deploy(NEW, devices=["CUDA0", "CUDA1"])
    assert "planned devices are not in use: CUDA1" in host.run(NEW)["reason"]


REFUSALS = {
    "unknown": (lambda host: None, "there is no deployment"),
    "engine-gone": (lambda host: (host.layout.deployment(NEW) / "engine/bin/llama-server").unlink(), "the engine of deployment"),
    "model-gone": (lambda host: (host.layout.deployment(NEW) / "model.gguf").unlink(), "the model of deployment"),
    "key-gone": (lambda host: host.layout.api_keys.write_text("# nothing\n"), "holds no key"),
}


@pytest.mark.parametrize(("damage", "reason"), REFUSALS.values(), ids=REFUSALS)
def test_switch_that_cannot_work_touches_nothing(serving, damage, reason):
    if reason != "there is no deployment":
        serving.deploy(NEW)
    damage(serving)
    before = list(serving.systemd.calls)
    journal = serving.run(NEW)
    assert reason in journal["reason"]
    assert (journal["state"], journal["serving"]) == ("undone", OLD)
    assert serving.systemd.calls == before and serving.links() == (OLD, OLDER)


def test_port_of_another_program_is_named_before_anything_starts(serving, monkeypatch):
    serving.deploy(NEW)
    monkeypatch.setattr(transaction, "listening", lambda *_arguments: [(PID, "llama-server"), (77, "ollama")])
    before = list(serving.systemd.calls)
    journal = serving.run(NEW)
    assert f"port {serving.port} is held by ollama (PID 77)" in journal["reason"]
    assert serving.systemd.calls == before


def test_committed_deployment_that_is_down_is_started_again(serving):
    serving.systemd.stop()
    journal = serving.run(OLD)
    assert (journal["state"], journal["restarted"]) == ("committed", True)
    assert serving.links() == (OLD, OLDER)


def test_committed_deployment_that_runs_only_proves_itself(serving):
    before = serving.systemd.calls.count("restart")
    journal = serving.run(OLD)
    assert (journal["state"], journal["restarted"]) == ("committed", False)
    assert serving.systemd.calls.count("restart") == before


def test_lone_deployment_that_no_longer_answers_is_failed_not_removed(serving):
    serving.behaviours[OLD] = "gibberish"
    journal = serving.run(OLD, restart=True)
    assert journal["state"] == "failed"
    assert serving.links() == (OLD, OLDER)


def test_second_switch_is_refused_while_one_runs(serving):
    with serving.switch().locked(), pytest.raises(files.Busy):
        serving.run(OLD)
    assert not serving.switch().running()


def test_recover_leaves_a_running_switch_alone(serving):
    with serving.switch().locked():
        assert serving.switch().recover() is False


def test_surprise_in_the_switch_is_undone_too(serving, monkeypatch):
    serving.deploy(NEW)
    monkeypatch.setattr(gates.Gate, "_identity", lambda *_arguments: 1 / 0)
    journal = serving.run(NEW)
    assert "the switch itself failed: ZeroDivisionError" in journal["reason"]
    assert journal["state"] == "failed"  # the old one meets the same surprise, and is put back all the same
    assert serving.links() == (OLD, OLDER)


def lose_power_at(monkeypatch: pytest.MonkeyPatch, count: int) -> list[str]:
    """From the given replacement of a file on, nothing is written any more."""
    real, done = os.replace, []

    def replace(source: Any, target: Any) -> None:
        if len(done) >= count:
            raise PowerLoss
        done.append(str(target))
        real(source, target)

    monkeypatch.setattr(files.os, "replace", replace)
    return done


@pytest.mark.parametrize("behaviour", ["good", "crash"])
@pytest.mark.parametrize("first", [False, True], ids=["second", "first"])
def test_power_loss_at_every_write_leaves_old_or_new(tmp_path, monkeypatch, behaviour, first):
    monkeypatch.setattr(gates, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(transaction, "listening", lambda *_arguments: [])
    before = "" if first else OLD
    seen, count = set(), 0
    while True:
        host = Host(tmp_path / f"{count}")
        host.deploy(OLD)
        host.deploy(NEW, behaviour)
        if not first:
            host.run(OLD)
        with monkeypatch.context() as patch:
            written = lose_power_at(patch, count)
            try:
                host.run(NEW)
                finished = True
            except PowerLoss:
                finished = False
        died_in = host.journal().get("state", "none")
        host.reboot()
        journal, current = host.journal(), host.links()[0]
        try:
            if journal.get("run") == "run" and journal.get("to") == NEW:
                assert current == (NEW if journal["state"] == "committed" else before)
                assert journal["state"] in ("committed", "undone") and journal["committed"] == current
            else:
                assert current == before  # it died before it had begun
            assert (host.systemd.active == "active") == bool(current)
            seen.add(died_in)
            if finished:
                break
            # The way is free for the next attempt.
            host.behaviours[NEW] = "good"
            assert host.run(NEW)["state"] == "committed"
        finally:
            host.systemd.shut()
        count += 1
        assert count < 60, written
    assert seen >= ({"prepared", "switched", "gating"} | ({"undoing", "undone"} if behaviour == "crash" else {"committed"}))


@pytest.mark.parametrize("state", transaction.UNFINISHED)
def test_recover_takes_links_and_journal_back_together(serving, state):
    serving.deploy(NEW)
    serving.layout.link("previous", OLD)
    serving.layout.link("current", NEW)
    serving.switch().record(**{"state": state, "to": NEW, "from": OLD, "previous_before": OLDER, "reason": ""})
    assert serving.switch().recover() is True
    journal = serving.journal()
    assert (journal["state"], journal["serving"], journal["committed"]) == ("undone", OLD, OLD)
    assert f"interrupted in state {state}" in journal["reason"]
    assert serving.links() == (OLD, OLDER)
    assert serving.switch().recover() is False


def test_damaged_journal_stops_nobody(serving):
    serving.layout.journal.write_text("{ half a")
    assert serving.switch().recover() is False
    serving.deploy(NEW)
    assert serving.run(NEW)["state"] == "committed"


def test_key_is_nowhere_but_in_its_file(serving, capsys):
    serving.deploy(NEW, "gibberish")
    journal = serving.run(NEW)
    status = serving.switch().status()
    cli.show(status)
    texts = [json.dumps(journal), capsys.readouterr().out]
    texts += [path.read_text() for path in serving.root.rglob("*") if path.is_file() and path.name not in ("api-keys", "model.gguf")]
    assert len(texts) > 8
    assert not [text for text in texts if KEY in text or "5f5f5f" in text or "api_keys" in text]


def test_status_tells_what_runs(serving):
    status = serving.switch().status()
    assert (status["state"], status["running"], status["current"], status["previous"]) == ("committed", False, OLD, OLDER)
    assert status["active_state"] == "active"


def test_status_of_an_unknown_instance_makes_nothing(tmp_path):
    layout = files.Layout("other", tmp_path)
    status = transaction.Switch(layout, FakeSystemd(layout, 1, {})).status()
    assert status["state"] == "none" and not list(tmp_path.iterdir())


DEADLINES = {
    # 100 GB at a measured 1 GB/s: six passes of 100 s, and the grace.
    "measured": (1e9, 100_000_000_000, 630),
    "assumed": (0.0, 100_000_000_000, 6030),
    "small": (1e9, 1000, 30),
}


@pytest.mark.parametrize(("speed", "size", "deadline"), DEADLINES.values(), ids=DEADLINES)
def test_deadline_follows_size_and_disk(host, speed, size, deadline):
    host.deploy(NEW, grace_seconds=30, model_bytes=size)
    host.layout.link("current", NEW)
    host.systemd.restart()
    gate = gates.Gate(host.layout, host.systemd, NEW, lambda _progress: None, speed).run()
    assert gate["deadline_seconds"] == deadline


SEES = {
    "itself": ("CUDA0", ["CUDA0"], True),
    "with-suffix": ("RPC0", ["RPC0[127.0.0.1:50052]"], True),
    "host-buffer-of-the-kind": ("CUDA0", ["CUDA_Host"], False),
    "longer-number": ("CUDA1", ["CUDA10"], False),
    "split": ("CUDA0", ["CUDA0_Split"], True),
}


@pytest.mark.parametrize(("name", "seen", "expected"), SEES.values(), ids=SEES)
def test_device_is_found_among_buffers(name, seen, expected):
    assert gates.sees(name, seen) is expected


ANSWERS = {
    "content": ({"choices": [{"message": {"content": "Paris"}}]}, "Paris"),
    "reasoning": ({"choices": [{"message": {"content": None, "reasoning_content": "Hm."}}]}, "Hm."),
    "no-choices": ({"choices": []}, ""),
    "not-a-completion": ({"error": {}}, ""),
    "wrong-types": ({"choices": [["x"]]}, ""),
}


@pytest.mark.parametrize(("document", "text"), ANSWERS.values(), ids=ANSWERS)
def test_answer_text(document, text):
    assert gates.answer_text(document) == text


DEATHS = {
    "exit": ({"ExecMainCode": "1", "ExecMainStatus": "1", "Result": "exit-code"}, "exit status 1"),
    "oom": ({"ExecMainCode": "2", "ExecMainStatus": "9", "Result": "oom-kill"}, "killed because memory ran out"),
    "killed": ({"ExecMainCode": "2", "ExecMainStatus": "9", "Result": "signal"}, "killed by signal 9 (often memory that ran out)"),
    "segfault": ({"ExecMainCode": "3", "ExecMainStatus": "11", "Result": "core-dump"}, "killed by signal 11"),
    "limit": ({"ExecMainCode": "1", "ExecMainStatus": "1", "Result": "start-limit-hit"}, "exit status 1, systemd says start-limit-hit"),
}


@pytest.mark.parametrize(("state", "words"), DEATHS.values(), ids=DEATHS)
def test_death_in_words(state, words):
    assert hosts.death(state) == words


def proc_with_listener(root: pathlib.Path, table: str, address: str) -> pathlib.Path:
    """A proc tree in which process 812, nginx, listens."""
    (root / "net").mkdir()
    line = f"   0: {address} 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 31337 1\n"
    (root / "net" / table).write_text("  sl  local_address rem_address   st\n" + line)
    (root / "812/fd").mkdir(parents=True)
    (root / "812/fd/3").symlink_to("socket:[31337]")
    (root / "812/comm").write_text("nginx\n")
    return root


LISTENERS = {
    "same-address": ("tcp", "0100007F:1F90", "127.0.0.1", 8080, [(812, "nginx")]),
    "everywhere": ("tcp", "00000000:1F90", "127.0.0.1", 8080, [(812, "nginx")]),
    "we-want-everywhere": ("tcp", "0100007F:1F90", "0.0.0.0", 8080, [(812, "nginx")]),
    "everywhere-v6": ("tcp6", "0" * 32 + ":1F90", "127.0.0.1", 8080, [(812, "nginx")]),
    "other-address": ("tcp", "0100000A:1F90", "127.0.0.1", 8080, []),
    "other-port": ("tcp", "0100007F:1F90", "127.0.0.1", 8081, []),
}


@pytest.mark.parametrize(("table", "address", "host_address", "port", "expected"), LISTENERS.values(), ids=LISTENERS)
def test_listening(tmp_path, table, address, host_address, port, expected):
    assert hosts.listening(host_address, port, proc_with_listener(tmp_path, table, address)) == expected


def test_disk_speed_of_a_file_that_is_not_there():
    assert hosts.disk_speed("/nonexistent/model.gguf") == 0.0
