# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A look at an instance: what it finds changed."""

from __future__ import annotations

import hashlib
import json

import pytest
from switch_host import OLD, files, front, inspection, outside


@pytest.fixture(name="deployed")
def fixture_deployed(serving):
    folder = serving.layout.deployment(OLD)
    (folder / "server.env").write_text("A=1\n")
    document = {
        "model_path": str(folder / "model.gguf"),
        "shards": [{"name": "model.gguf", "size": 4}],
        "files": {"server.env": hashlib.sha256(b"A=1\n").hexdigest()},
    }
    (folder / "deployment.json").write_text(json.dumps(document))
    return serving


def test_nothing_is_said_of_what_is_as_it_was_deployed(deployed):
    found = inspection.inspect(deployed.layout, deployed.systemd)
    assert found["drift"] == [] and found["uptime_seconds"] > 0


DAMAGE = {
    "file-changed": (lambda folder: (folder / "server.env").write_text("A=2\n"), "server.env is not as it was deployed"),
    "file-gone": (lambda folder: (folder / "server.env").unlink(), "server.env is not as it was deployed"),
    "shard-shorter": (lambda folder: (folder / "model.gguf").write_bytes(b"GG"), "model.gguf has 2 bytes instead of 4"),
    "shard-gone": (lambda folder: (folder / "model.gguf").unlink(), "model.gguf is gone"),
    "packages-changed": (
        lambda folder: (folder / "engine/build.json").write_text(
            json.dumps({"build_id": "b1-cpu", "packages": {"libllama0": "1"}, "files": {str(folder / "server.env"): "0" * 64}})
        ),
        "which makes an engine of them and gates it",
    ),
    "engine-gone": (lambda folder: (folder / "engine/bin/llama-server").unlink(), "has no llama-server any more"),
}


@pytest.mark.parametrize(("damage", "said"), DAMAGE.values(), ids=DAMAGE)
def test_drift_of_files(deployed, damage, said):
    damage(deployed.layout.deployment(OLD))
    drift = inspection.inspect(deployed.layout, deployed.systemd)["drift"]
    assert len(drift) == 1 and drift[0].endswith(said)


PROCESSES = {
    "other-model": ("wrong model", "the server has loaded /elsewhere.gguf"),
    "other-build": ("wrong build", "the server is build b11434-abc"),
    "longer-build-number": ("longer build number", "the server is build b115490-abc"),
    "other-key": ("other key", "the server was started with another API key"),
}


@pytest.mark.parametrize(("behaviour", "said"), PROCESSES.values(), ids=PROCESSES)
def test_drift_of_the_process(deployed, behaviour, said):
    deployed.systemd.server.behaviour = behaviour
    drift = inspection.inspect(deployed.layout, deployed.systemd)["drift"]
    assert len(drift) == 1 and drift[0].startswith(said)


FRONTS = {
    "well": (outside.Seen(200, 401, []), False, []),
    "drained": (outside.Seen(503, 401, []), True, ["it is out of service: its front is drained"]),
    "down": (outside.Seen(0, 0, []), False, ["the front does not answer at https://one:8443"]),
    "astray": (outside.Seen(503, 401, []), False, ["the front does not reach the server at https://one:8443"]),
    "soon expired": (outside.Seen(200, 401, ["the certificate expires in 3 days"]), False, ["the certificate expires in 3 days"]),
    "expired": (files.SwitchError("the certificate has expired"), False, ["the certificate has expired"]),
}


@pytest.mark.parametrize(("seen", "drained", "said"), FRONTS.values(), ids=FRONTS)
def test_drift_of_the_front(serving, monkeypatch, seen, drained, said):
    request = serving.layout.request(OLD)
    files.write_json(serving.layout.recorded / OLD / "request.json", {**request, "front": {"url": "https://one:8443", "ca": ""}})
    files.write_text(serving.layout.front / "upstream.conf", f"server 127.0.0.1:{serving.port};\n")
    if drained:
        front.Front(serving.layout).drain()

    def look(*_arguments):
        if isinstance(seen, Exception):
            raise seen
        return seen

    monkeypatch.setattr(outside, "look", look)
    assert inspection.front_problems(serving.layout, OLD) == said


def test_instance_without_a_front_has_none_to_complain_of(serving):
    assert inspection.front_problems(serving.layout, OLD) == []
