# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import contextlib
import json
import os
import pathlib
import time

import pytest

from ansible_collections.onprem.llamacpp.plugins.module_utils import _instance, _server
from ansible_collections.onprem.llamacpp.plugins.modules import host_files, llama_deployment, llama_server_info

NEW, OLD = "b" * 12, "a" * 12


def params(identity=NEW, **changes):
    return {
        "id": identity,
        "document": {"id": identity, "host": "127.0.0.1", "port": 8080},
        "server_env": "LLAMA_ARG_CTX_SIZE=16384\n",
        "unit_conf": "[Service]\n",
        "engine_path": "/opt/llamacpp/releases/b1",
        "model_path": "/var/lib/llamacpp/models/o--r/1/Q",
        "request": {"prompt": "?"},
        "plan": {"quant": "Q"},
        "api_keys": [],
        **changes,
    }


@pytest.fixture
def instance(tmp_path):
    return _instance.Instance("main", str(tmp_path / "etc"), str(tmp_path / "var"))


@pytest.fixture(autouse=True)
def quiet_host(monkeypatch):
    """A unit that is active and a server that is healthy."""
    monkeypatch.setattr(_server, "active_state", lambda _name: "active")
    monkeypatch.setattr(_server, "health", lambda *_arguments: "ok")
    monkeypatch.setattr(_server, "started_monotonic", lambda _name: time.monotonic())


def tree(root: str) -> dict[str, str]:
    return {str(path): path.read_text() if path.is_file() else "" for path in sorted(pathlib.Path(root).rglob("*"))}


def serve(instance, identity, state="committed", committed=None):
    os.symlink(f"deployments/{identity}", os.path.join(instance.config, "current"))
    journal = {"state": state, "committed": identity if committed is None else committed}
    _instance.write_file(os.path.join(instance.state, "switch.json"), json.dumps(journal))


def test_first_run_lays_everything_and_wants_a_switch(instance):
    result = llama_deployment.apply(params(), False, instance)
    assert (result["changed"], result["switch_needed"], result["reason"]) == (True, True, "nothing is served yet")
    folder = pathlib.Path(instance.deployment(NEW))
    assert sorted(os.listdir(folder)) == ["deployment.json", "engine", "model", "server.env", "unit.conf"]
    assert os.readlink(folder / "engine") == "/opt/llamacpp/releases/b1"
    assert json.loads(pathlib.Path(instance.record(NEW, "plan.json")).read_text()) == {"quant": "Q"}
    assert os.listdir(folder.parent) == [NEW]


def test_second_run_changes_nothing(instance, tmp_path):
    llama_deployment.apply(params(), False, instance)
    serve(instance, NEW)
    before = tree(str(tmp_path))
    result = llama_deployment.apply(params(plan={"quant": "other"}), False, instance)
    assert (result["changed"], result["switch_needed"], result["reason"], result["diff"]) == (False, False, "", [])
    assert tree(str(tmp_path)) == before


@pytest.mark.parametrize("key", ["wish", "orders"])
def test_the_plan_of_another_wish_for_the_same_deployment_is_kept(instance, key):
    llama_deployment.apply(params(plan={"quant": "Q", key: "old"}), False, instance)
    serve(instance, NEW)
    result = llama_deployment.apply(params(plan={"quant": "Q", key: "new"}), False, instance)
    assert (result["changed"], result["switch_needed"]) == (True, False)
    assert json.loads(pathlib.Path(instance.record(NEW, "plan.json")).read_text())[key] == "new"


def test_check_mode_says_the_same_and_touches_nothing(instance, tmp_path):
    result = llama_deployment.apply(params(), True, instance)
    assert not list(tmp_path.iterdir())
    assert {**llama_deployment.apply(params(), False, instance)} == result


def test_key_is_made_once_and_shown_to_nobody(instance):
    result = llama_deployment.apply(params(), False, instance)
    key = pathlib.Path(instance.api_keys).read_text().strip()
    assert len(key) == 64 and key not in json.dumps(result)
    assert os.stat(instance.api_keys).st_mode & 0o777 == 0o600
    os.chmod(instance.api_keys, 0o644)
    assert llama_deployment.apply(params(), False, instance)["changed"] is True
    assert os.stat(instance.api_keys).st_mode & 0o777 == 0o600
    assert pathlib.Path(instance.api_keys).read_text().strip() == key


def test_difference_is_against_the_current_deployment(instance):
    llama_deployment.apply(params(OLD), False, instance)
    serve(instance, OLD)
    result = llama_deployment.apply(params(server_env="LLAMA_ARG_CTX_SIZE=8192\n"), False, instance)
    assert result["reason"] == f"{OLD} is served now"
    changed = {os.path.basename(entry["after_header"]): entry for entry in result["diff"]}
    assert sorted(changed) == ["deployment.json", "server.env"]
    assert changed["server.env"]["before"] == "LLAMA_ARG_CTX_SIZE=16384\n"
    assert changed["server.env"]["before_header"].endswith(f"{OLD}/server.env")


def test_new_question_of_the_gate_is_a_change_but_no_switch(instance):
    llama_deployment.apply(params(), False, instance)
    serve(instance, NEW)
    result = llama_deployment.apply(params(request={"prompt": "Who?"}), False, instance)
    assert (result["changed"], result["switch_needed"]) == (True, False)
    (shown,) = result["diff"]
    assert shown["after_header"] == instance.record(NEW, "request.json")
    assert '"prompt": "?"' in shown["before"] and '"prompt": "Who?"' in shown["after"]


def test_deployment_that_was_edited_is_put_right_and_restarted(instance):
    llama_deployment.apply(params(), False, instance)
    serve(instance, NEW)
    path = pathlib.Path(instance.deployment(NEW), "server.env")
    path.write_text("LLAMA_ARG_CTX_SIZE=1\n")
    result = llama_deployment.apply(params(), False, instance)
    assert (result["changed"], result["switch_needed"], result["restart_needed"]) == (True, True, True)
    assert path.read_text() == "LLAMA_ARG_CTX_SIZE=16384\n"
    assert os.listdir(path.parents[1]) == [NEW]


def damage_text(folder):
    (folder / "server.env").write_text("LLAMA_ARG_CTX_SIZE=1\n")
    (folder / "engine").unlink()
    (folder / "engine").symlink_to("/elsewhere")


def damage_kinds(folder):
    (folder / "unit.conf").unlink()
    (folder / "engine").unlink()
    (folder / "engine").mkdir()
    (folder / "engine" / "left").touch()
    (folder / "model").unlink()
    (folder / "model").write_text("no link")


@pytest.mark.parametrize("damage", [damage_text, damage_kinds])
def test_current_deployment_is_mended_without_ever_being_out_of_its_place(instance, monkeypatch, damage):
    """Losing power at any rename leaves a deployment under its name, each of whose files is the damaged or the right one."""
    llama_deployment.apply(params(), False, instance)
    serve(instance, NEW)
    current = pathlib.Path(instance.config, "current")
    names, count = ["deployment.json", "engine", "model", "server.env", "unit.conf"], 0
    while True:
        damage(current)
        moved: list[str] = []

        def lose_power(real, room=count, moved=moved):
            def rename(source, target):
                if ".new-" in str(source):
                    if len(moved) >= room:
                        raise KeyboardInterrupt
                    moved.append(target)
                real(source, target)

            return rename

        with monkeypatch.context() as patch:
            for name in ("rename", "replace"):
                patch.setattr(_instance.os, name, lose_power(getattr(os, name)))
            with contextlib.suppress(KeyboardInterrupt):
                llama_deployment.apply(params(), False, instance)
        assert current.is_dir() and {*os.listdir(current)} >= {*names} - ({"engine", "unit.conf"} if damage is damage_kinds else set())
        whole = llama_deployment.apply(params(), False, instance)["diff"] == []
        assert sorted(os.listdir(current)) == names and os.listdir(current.parent / "deployments") == [NEW]
        if whole:
            break
        count += 1
        assert count < 20
    assert count >= len(names)


def test_leftovers_of_an_interrupted_run_go_away(instance):
    llama_deployment.apply(params(OLD), False, instance)
    pathlib.Path(instance.config, "deployments/.new-half").mkdir()
    llama_deployment.apply(params(), False, instance)
    assert sorted(os.listdir(pathlib.Path(instance.config, "deployments"))) == [OLD, NEW]


REASONS = {
    "serving": ({}, "active", "ok", ""),
    "after-an-undone-attempt": ({"state": "undone"}, "active", "ok", ""),
    "never-proven": ({"committed": ""}, "active", "ok", "has not passed its gate"),
    "failed": ({"state": "failed"}, "active", "ok", "has not passed its gate"),
    "interrupted": ({"state": "gating"}, "active", "ok", "has not passed its gate"),
    "stopped": ({}, "inactive", "ok", "the unit is inactive"),
    "hanging": ({}, "active", "unreachable", "the server is not healthy"),
}


@pytest.mark.parametrize(("journal", "active", "health", "reason"), REASONS.values(), ids=REASONS)
def test_reason_for_a_switch(instance, monkeypatch, journal, active, health, reason):
    llama_deployment.apply(params(), False, instance)
    serve(instance, NEW, **journal)
    monkeypatch.setattr(_server, "active_state", lambda _name: active)
    monkeypatch.setattr(_server, "health", lambda *_arguments: health)
    result = llama_deployment.apply(params(), False, instance)
    assert reason in result["reason"] and result["switch_needed"] is bool(reason)


def test_given_keys_take_the_place_of_others_and_need_a_restart(instance):
    llama_deployment.apply(params(), False, instance)
    serve(instance, NEW)
    assert llama_deployment.apply(params(), False, instance)["switch_needed"] is False
    given = params(api_keys=["given-key-0123456789", "the-one-before-it-01"])
    for check_mode in (True, False):
        result = llama_deployment.apply(given, check_mode, instance)
        assert (result["switch_needed"], result["restart_needed"]) == (True, True)
        assert result["reason"] == "its API keys have been changed since it was started"
        assert "given-key" not in json.dumps(result)
    assert pathlib.Path(instance.api_keys).read_text() == "given-key-0123456789\nthe-one-before-it-01\n"


def test_keys_that_are_newer_than_the_server_need_a_restart(instance, monkeypatch):
    llama_deployment.apply(params(), False, instance)
    serve(instance, NEW)
    monkeypatch.setattr(_server, "started_monotonic", lambda _name: time.monotonic() - 60)
    result = llama_deployment.apply(params(), False, instance)
    assert (result["changed"], result["restart_needed"]) == (False, True)
    os.utime(instance.api_keys, (time.time() - 120, time.time() - 120))
    assert llama_deployment.apply(params(), False, instance)["switch_needed"] is False


def test_keys_do_not_matter_to_a_server_that_was_not_asked_for_them(instance, monkeypatch):
    open_door = params(document={"id": NEW, "host": "127.0.0.1", "port": 8080, "api_key_required": False})
    llama_deployment.apply(open_door, False, instance)
    serve(instance, NEW)
    monkeypatch.setattr(_server, "started_monotonic", lambda _name: time.monotonic() - 60)
    assert llama_deployment.apply(open_door, False, instance)["switch_needed"] is False


def test_info_tells_what_is_served(instance):
    llama_deployment.apply(params(), False, instance)
    serve(instance, NEW)
    _instance.write_file(instance.record(NEW, "gate.json"), json.dumps({"tokens_per_second": 5.2}))
    info = llama_server_info.describe(instance)
    assert (info["deployment"]["id"], info["committed"], info["health"], info["active_state"]) == (NEW, True, "ok", "active")
    assert info["gate"]["tokens_per_second"] == 5.2
    assert pathlib.Path(instance.api_keys).read_text().strip() not in json.dumps(info)


def test_info_of_an_empty_instance(instance):
    info = llama_server_info.describe(instance)
    assert (info["deployment"], info["committed"], info["health"], info["previous"]) == ({}, False, "none", "")


def test_host_files_change_once(tmp_path):
    path = tmp_path / "a/b/program"
    files = [{"path": str(path), "content": "text\n", "mode": "0755"}]
    assert host_files.apply(files, True)["changed"] is True and not path.exists()
    result = host_files.apply(files, False)
    assert result["changed_paths"] == [str(path)] and result["diff"][0]["after"] == "text\n"
    assert os.stat(path).st_mode & 0o777 == 0o755
    assert host_files.apply(files, False) == {"changed": False, "changed_paths": [], "diff": []}
    path.chmod(0o700)
    assert host_files.apply(files, False)["changed"] is True
    assert os.stat(path).st_mode & 0o777 == 0o755
