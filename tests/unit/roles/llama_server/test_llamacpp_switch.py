# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The switch: what it leaves behind, whatever happens in between."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pathlib
import signal
from typing import Any

import pytest
from switch_host import KEY, NEW, OLD, OLDER, PID, FakeSystemd, Host, cli, files, preflight, transaction
from switch_host import gate as gates


class PowerLoss(BaseException):
    """Nothing runs after this, not even an except clause."""


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


REFUSALS = {
    "unknown": (lambda host: None, "there is no deployment"),
    "engine-gone": (lambda host: (host.layout.deployment(NEW) / "engine/bin/llama-server").unlink(), "the engine of deployment"),
    "model-gone": (lambda host: (host.layout.deployment(NEW) / "model.gguf").unlink(), "the model of deployment"),
    "key-garbled": (lambda host: host.layout.api_keys.write_bytes(b"\xff\xfe\n"), "api-keys is no UTF-8 text"),
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
    monkeypatch.setattr(preflight, "listening", lambda *_arguments: [(PID, "llama-server"), (77, "ollama")])
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


class OneUnit:
    """As much of systemctl and systemd-run as starting a switch takes, where somebody else's switch may have the unit."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, layout: Any, to: str = "", taken_by: str = "") -> None:
        self.to, self.taken_by = to, taken_by
        monkeypatch.setattr(cli.Systemd, "call", self.call)
        monkeypatch.setattr(cli, "Layout", lambda _name: layout)
        monkeypatch.setattr(cli.shutil, "which", lambda _name: "/usr/bin/systemctl")

    def call(self, *argv: str, timeout: float = 0) -> str:
        unit = "llamacpp-switch-main.service"
        if argv[0] == "systemd-run":
            self.to = self.taken_by  # which was a moment earlier
            raise files.SwitchError(f"systemd-run --quiet: Failed to start transient service unit: Unit {unit} was already loaded.")
        if "--property=ActiveState" in argv:
            return "active\n" if self.to else "inactive\n"
        return f"Switch of llama.cpp instance main to {self.to}\n" if self.to else f"{unit}\n"


@pytest.mark.parametrize("command", ["switch", "run"])
@pytest.mark.parametrize("by_hand", [False, True], ids=["in-its-unit", "by-hand"])
def test_switch_while_another_one_runs_says_where_that_goes_and_what_to_do(serving, monkeypatch, capsys, command, by_hand):
    OneUnit(monkeypatch, serving.layout, "" if by_hand else NEW)
    if by_hand:
        serving.switch().record(state="gating", to=NEW)
    with serving.switch().locked():
        assert cli.main([command, "--instance", "main", "--to", OLDER]) == 1
    assert capsys.readouterr().err == (
        f"another switch of main is running, to {NEW}: wait until it is done. status.yml says how far it is,"
        " on the host llamacpp-switch status --instance main\n"
    )


def test_switch_that_was_started_at_the_same_time_says_the_same(serving, monkeypatch, capsys):
    OneUnit(monkeypatch, serving.layout, taken_by=NEW)
    assert cli.main(["switch", "--instance", "main", "--to", OLDER]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"another switch of main is running, to {NEW}: wait until") and "already loaded" not in said


def test_switch_that_systemd_does_not_start_says_why(serving, monkeypatch, capsys):
    OneUnit(monkeypatch, serving.layout)
    assert cli.main(["switch", "--instance", "main", "--to", OLDER]) == 1
    assert "Failed to start transient service unit" in capsys.readouterr().err


@pytest.mark.parametrize("number", cli.SESSION_ENDS)
@pytest.mark.parametrize("step", ["_change", "_handed_back"])
def test_switch_by_hand_is_undone_when_its_session_ends(serving, monkeypatch, capsys, number, step):
    serving.deploy(NEW)
    monkeypatch.setattr(cli, "Switch", lambda *_arguments: serving.switch())
    OneUnit(monkeypatch, serving.layout)
    real = getattr(transaction.Switch, step)

    def interrupted(*arguments):
        found = real(*arguments)
        os.kill(os.getpid(), number)
        return found

    handlers = [signal.getsignal(each) for each in cli.SESSION_ENDS]
    try:
        with monkeypatch.context() as patch:
            patch.setattr(transaction.Switch, step, interrupted)
            assert cli.main(["run", "--instance", "main", "--to", NEW]) == 1
    finally:
        for each, handler in zip(cli.SESSION_ENDS, handlers):
            signal.signal(each, handler)
    assert capsys.readouterr().err.startswith("interrupted; undone: interrupted in state ")
    assert serving.links() == (OLD, OLDER) and serving.journal()["serving"] == OLD
    assert serving.systemd.server.model_path == serving.layout.request(OLD)["model_path"]


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
    monkeypatch.setattr(preflight, "listening", lambda *_arguments: [])
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


@pytest.mark.parametrize("behaviour", ["good", "crash"])
def test_disk_that_is_full_from_any_write_on_leaves_old_or_new(tmp_path, monkeypatch, behaviour):
    """The program goes back by itself, and what runs is what the links say; so does recover on the full disk."""
    monkeypatch.setattr(gates, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(preflight, "listening", lambda *_arguments: [])
    real, seen, count = files.write_text, set(), 0
    while True:
        host = Host(tmp_path / f"{count}")
        host.deploy(OLD)
        host.run(OLD)
        host.deploy(NEW, behaviour)
        written: list[str] = []

        def write(path: Any, text: str, durable: bool = True, room: int = count, written: list[str] = written) -> None:
            if len(written) >= room:
                raise OSError(errno.ENOSPC, "No space left on device", str(path))
            real(path, text, durable)
            written.append(str(path))

        def serves(host: Host = host) -> str:
            current = host.links()[0]
            assert host.systemd.active == "active" and host.systemd.server.model_path == host.layout.request(current)["model_path"]
            return current

        try:
            with monkeypatch.context() as patch:
                patch.setattr(files, "write_text", write)
                said = ""
                try:
                    host.run(NEW)
                except (OSError, files.SwitchError) as error:
                    said = transaction.words(error)
                assert serves() == (OLD if said or behaviour == "crash" else NEW), said
                assert not said or "No space left on device" in said
                with contextlib.suppress(OSError):
                    host.switch().recover()
                assert serves() == (OLD if said or behaviour == "crash" else NEW)
            seen.add(host.journal()["state"])
            host.switch().recover()
            journal = host.journal()
            assert journal["state"] in ("committed", "undone") and journal["committed"] == journal["serving"] == serves()
            if not said:
                break
        finally:
            host.systemd.shut()
        count += 1
        assert count < 40, written
    assert seen >= {"committed", "prepared", "switched", "gating"}


def test_front_that_cannot_be_pointed_back_keeps_no_server_from_its_start(serving, monkeypatch):
    interrupt(serving, "gating")
    serving.systemd.shut()
    serving.systemd.active = "failed"

    def point(*_arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(transaction.Front, "point", point)
    assert serving.switch().recover() is True
    assert serving.systemd.active == "active" and serving.journal()["serving"] == OLD


@pytest.mark.parametrize("command", [["run", "--to", NEW], ["recover"], ["drain"]], ids=lambda command: command[0])
def test_error_of_the_system_is_a_line_and_no_trace(serving, monkeypatch, capsys, command):
    def fail(*_arguments, **_more):
        raise OSError(errno.ENOSPC, "No space left on device", "/var/lib/x")

    monkeypatch.setattr(cli.shutil, "which", lambda _name: "/usr/bin/systemctl")
    monkeypatch.setattr(cli, "Layout", lambda _name: serving.layout)
    monkeypatch.setattr(cli, "out_of_service", fail)
    for name in ("run", "recover"):
        monkeypatch.setattr(transaction.Switch, name, fail)
    assert cli.main([command[0], "--instance", "main", *command[1:]]) == 1
    said = capsys.readouterr().err
    assert said.endswith("No space left on device: /var/lib/x\n") and said.count("\n") == 1


@pytest.mark.parametrize("step", ["check", "choose", "warm"])
def test_surprise_before_the_change_is_undone_and_touches_nothing(serving, monkeypatch, step):
    serving.deploy(NEW)
    monkeypatch.setattr(transaction, step, lambda *_arguments, **_more: 1 / 0)
    before = list(serving.systemd.calls)
    journal = serving.run(NEW)
    assert "the switch itself failed: ZeroDivisionError" in journal["reason"]
    assert (journal["state"], journal["serving"]) == ("undone", OLD)
    assert serving.systemd.calls == before and serving.links() == (OLD, OLDER)


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


def interrupt(host: Host, state: str, links: bool = True) -> None:
    """As a program leaves it that is killed in a state."""
    host.deploy(NEW)
    if links:
        host.layout.link("previous", OLD)
        host.layout.link("current", NEW)
    host.switch().record(**{"state": state, "to": NEW, "from": OLD, "previous_before": OLDER, "reason": ""})


@pytest.mark.parametrize("active", ["active", "failed", "inactive"])
@pytest.mark.parametrize("state", ["switched", "gating", "undoing"])
def test_recover_starts_the_old_deployment_whatever_became_of_the_new_one(serving, active, state):
    interrupt(serving, state)
    serving.systemd.shut()
    serving.systemd.active = active
    assert serving.switch().recover() is True
    assert serving.systemd.active == "active" and serving.systemd.server.model_path == serving.layout.request(OLD)["model_path"]
    assert (serving.journal()["state"], serving.journal()["serving"]) == ("undone", OLD)


@pytest.mark.parametrize(("active", "now"), [("active", OLD), ("failed", "")])
def test_recover_leaves_an_old_server_that_was_not_touched_as_it_is_and_says_how(serving, active, now):
    interrupt(serving, "prepared", links=False)
    serving.systemd.active = active
    before = list(serving.systemd.calls)
    assert serving.switch().recover() is True
    assert "restart" not in serving.systemd.calls[len(before) :] and serving.systemd.active == active
    assert serving.journal()["serving"] == now


def test_boot_leaves_the_start_to_systemd(serving):
    """Whose job for the server waits until this is done."""
    interrupt(serving, "gating")
    serving.systemd.shut()
    serving.systemd.active = "inactive"
    before = serving.systemd.calls.count("restart")
    assert serving.switch().recover(boot=True) is True
    assert serving.systemd.calls.count("restart") == before and serving.journal()["serving"] == OLD


def test_unit_of_the_boot_says_that_it_is_one():
    unit = pathlib.Path(cli.__file__).parents[1] / "llamacpp-recover.service"
    command = unit.read_text().split("ExecStart=")[1].splitlines()[0].split()
    assert cli.arguments().parse_args(command[1:]).boot is True


def test_old_deployment_that_cannot_be_started_any_more_is_not_in_the_way_of_a_new_one(serving):
    serving.deploy(NEW)
    serving.layout.link("current", NEW)
    serving.switch().record(state="switched", **{"to": NEW, "from": OLD, "previous_before": OLDER, "reason": ""})
    serving.behaviours[OLD] = "does not start"
    with pytest.raises(files.SwitchError, match="did not start"):
        serving.switch().recover()
    assert serving.journal()["state"] == "switched" and serving.links() == (OLD, OLDER)
    assert serving.run(NEW)["state"] == "committed"


def test_instance_that_cannot_be_undone_keeps_no_other_from_it(serving, monkeypatch, capsys):
    class Hopeless:
        def recover(self, _boot: bool) -> bool:
            raise files.SwitchError("systemctl daemon-reload: no bus")

    made = {"hopeless": Hopeless(), "main": serving.switch()}
    serving.switch().record(state="gating", **{"to": NEW, "from": OLD, "previous_before": OLDER})
    monkeypatch.setattr(cli, "Switch", lambda layout, _systemd: made[layout.instance])
    assert cli.recover(["hopeless", "main"]) == 1
    said = capsys.readouterr()
    assert said.out == "main: an interrupted switch was undone\n"
    assert said.err == "hopeless: an interrupted switch could not be undone: systemctl daemon-reload: no bus\n"


DAMAGES = {"half": "{ half a", "empty": "", "not-a-journal": "[]", "missing": None}


def damage_journal(host: Host, text: Any) -> None:
    host.layout.journal.unlink() if text is None else host.layout.journal.write_text(text)


@pytest.mark.parametrize("text", DAMAGES.values(), ids=DAMAGES)
def test_damaged_journal_stops_nobody(serving, text):
    damage_journal(serving, text)
    assert serving.switch().recover() is False
    assert serving.links() == (OLD, OLDER)
    serving.deploy(NEW, "gibberish")
    assert (serving.run(NEW)["state"], serving.journal()["committed"]) == ("undone", OLD)
    serving.behaviours[NEW] = "good"
    assert serving.run(NEW)["state"] == "committed"


@pytest.mark.parametrize("text", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("passed", [None, False], ids=["not-gated", "not-passed"])
def test_boot_with_a_damaged_journal_does_not_serve_what_no_gate_has_passed(serving, text, passed):
    serving.deploy(NEW)
    if passed is not None:
        files.write_json(serving.layout.recorded / NEW / "gate.json", {"passed": passed})
    serving.layout.link("previous", OLD)
    serving.layout.link("current", NEW)
    damage_journal(serving, text)
    serving.reboot()
    assert serving.links() == (OLD, "") and serving.systemd.server.model_path == serving.layout.request(OLD)["model_path"]
    journal = serving.journal()
    assert (journal["state"], journal["committed"], journal["serving"]) == ("undone", OLD, OLD)
    assert journal["reason"] == f"the journal was lost before {NEW} was committed"
    assert serving.switch().recover() is False


def test_without_journal_and_gates_nothing_better_is_known(serving):
    serving.layout.journal.unlink()
    for name in (OLD, OLDER):
        (serving.layout.recorded / name / "gate.json").unlink()
    assert serving.switch().recover() is False and serving.links() == (OLD, OLDER)


@pytest.mark.parametrize("behaviour", ["good", "gibberish"])
def test_whatever_is_renamed_is_on_disk_before_and_after(serving, monkeypatch, behaviour):
    """A file that is renamed unsynced may be empty after a power loss, and a rename that is not synced may not have been."""
    serving.deploy(NEW, behaviour)
    events, real_sync, real_replace = [], os.fsync, os.replace

    def fsync(handle):
        events.append(("sync", os.readlink(f"/proc/self/fd/{handle}")))
        real_sync(handle)

    def replace(source, target):
        events.append(("link" if os.path.islink(source) else "file", str(source), str(target)))
        real_replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", fsync)
        patch.setattr(files.os, "replace", replace)
        serving.run(NEW)
    renamed = [number for number, event in enumerate(events) if event[0] != "sync"]
    assert {"switch.json", "current", "previous"} <= {os.path.basename(events[number][2]) for number in renamed}
    for number in renamed:
        kind, source, target = events[number]
        assert kind == "link" or events[number - 1] == ("sync", source)
        assert events[number + 1] == ("sync", os.path.dirname(target))


def test_progress_is_written_once_a_second(serving):
    switch = serving.switch()
    before = serving.journal()["seq"]
    for number in range(50):
        switch.tell(f"step {number}")
    assert serving.journal()["seq"] == before + 1 and serving.journal()["progress"] == "step 0"


def test_links_that_could_not_be_restored_are_restored_by_the_next_boot(serving, monkeypatch):
    serving.deploy(NEW, "gibberish")
    real = files.set_link

    def set_link(path, target):
        if path.name == "current" and OLD in target:
            raise OSError(errno.EIO, "Input/output error", str(path))
        real(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(files, "set_link", set_link)
        journal = serving.run(NEW)
    assert (journal["state"], journal["committed"]) == ("failed", OLD) and serving.links()[0] == NEW
    assert journal["undo_reason"] == f"the switch itself failed: Input/output error: {serving.layout.declared / 'current'}"
    serving.reboot()
    assert serving.links() == (OLD, OLDER) and serving.systemd.server.model_path == serving.layout.request(OLD)["model_path"]
    assert (serving.journal()["state"], serving.journal()["serving"]) == ("undone", OLD)


def test_links_behind_a_journal_that_says_committed_go_on_to_it(serving):
    """The journal reached the disk although its writer was told otherwise, and went back."""
    serving.deploy(NEW)
    serving.run(NEW)
    serving.layout.link("current", OLD)
    serving.layout.link("previous", OLDER)
    serving.reboot()
    assert serving.links() == (NEW, OLD) and serving.journal()["committed"] == NEW


def test_key_is_nowhere_but_in_its_file(serving, capsys):
    serving.deploy(NEW, "gibberish")
    journal = serving.run(NEW)
    status = serving.switch().status()
    cli.show(status)
    texts = [json.dumps(journal), capsys.readouterr().out]
    texts += [path.read_text() for path in serving.root.rglob("*") if path.is_file() and path.name not in ("api-keys", "model.gguf")]
    assert len(texts) > 8
    assert not [text for text in texts if KEY in text or "5f5f5f" in text or "api_keys" in text]


def test_way_back_is_a_switch_like_any_other(serving):
    back = cli.resolved(serving.layout, "previous")
    assert back == OLDER
    assert serving.run(back)["state"] == "committed"
    assert serving.links() == (OLDER, OLD)
    assert cli.resolved(serving.layout, "previous") == OLD


def test_way_back_from_the_first_deployment_is_refused(host):
    host.deploy(NEW)
    host.run(NEW)
    with pytest.raises(files.SwitchError, match=f"no deployment before {NEW}"):
        cli.resolved(host.layout, "previous")


def test_start_that_is_asked_for_again_starts_nothing_a_second_time(serving, monkeypatch):
    serving.deploy(NEW)
    run = serving.run(NEW)["run"]
    monkeypatch.setattr(cli.Systemd, "call", lambda *words, **_options: pytest.fail(f"started {words}"))
    assert cli.start(serving.switch(), OLDER, run)["to"] == NEW
    assert serving.links() == (NEW, OLD)


def test_status_tells_what_runs(serving):
    status = serving.switch().status()
    assert (status["state"], status["running"], status["current"], status["previous"]) == ("committed", False, OLD, OLDER)
    assert status["active_state"] == "active"


def test_status_of_an_unknown_instance_makes_nothing(tmp_path):
    layout = files.Layout("other", tmp_path)
    status = transaction.Switch(layout, FakeSystemd(layout, 1, {})).status()
    assert status["state"] == "none" and not list(tmp_path.iterdir())
