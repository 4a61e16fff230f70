# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure

from ansible_collections.onprem.llamacpp.plugins.action import llama_switch
from ansible_collections.onprem.llamacpp.plugins.action.llama_switch import verdict

JOURNAL = {"instance": "main", "to": "b" * 12, "serving": "a" * 12, "log_tail": [], "reason": "the completion was empty"}

VERDICTS = {
    "committed": ({"state": "committed", "reason": ""}, []),
    "undone": ({"state": "undone"}, ["bbbbbbbbbbbb of instance main", "the completion was empty.", "aaaaaaaaaaaa is serving"]),
    "first-undone": ({"state": "undone", "serving": ""}, ["the completion was empty.", "Nothing is serving now."]),
    "with-log": ({"state": "undone", "log_tail": ["one", "two"]}, ["Last lines of the server's log:\n  one\n  two"]),
    "failed": (
        {"state": "failed", "undo_reason": "it hangs", "serving": ""},
        ["was empty.", "Going back failed too: it hangs.", "Nothing"],
    ),
    "interrupted": ({"state": "gating"}, ["interrupted in state gating", "next boot"]),
}


@pytest.mark.parametrize(("changes", "parts"), VERDICTS.values(), ids=VERDICTS)
def test_verdict(changes, parts):
    text = verdict({**JOURNAL, **changes})
    assert bool(text) is bool(parts)
    assert all(part in text for part in parts)


def journal(state, running=False):
    return {**JOURNAL, "state": state, "running": running, "seq": 7, "progress": ""}


FOLLOWED = {
    "to-its-end": ([journal("gating", True), journal("committed")], "committed"),
    "killed-and-undone-a-moment-later": ([journal("gating"), journal("undoing", True), journal("undone")], "undone"),
    "killed-and-never-undone": ([journal("gating")], "gating"),
}


@pytest.mark.parametrize(("answers", "end"), FOLLOWED.values(), ids=FOLLOWED)
def test_switch_is_followed(monkeypatch, answers, end):
    monkeypatch.setattr(llama_switch, "UNDO_POLL_SECONDS", 0.0)
    action = llama_switch.ActionModule.__new__(llama_switch.ActionModule)
    action._task_vars = {}
    rest = iter(answers)
    monkeypatch.setattr(action, "_call", lambda _arguments: next(rest, answers[-1]))
    assert action._follow([], journal("prepared", True), 300)["state"] == end


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("switch", "could not be started: no disk."),
        ("status", "goes on on the host, but cannot be followed: no disk. How it ends is told by status.yml."),
    ],
)
def test_what_fails_is_told_by_what_was_asked(monkeypatch, command, told):
    action = llama_switch.ActionModule.__new__(llama_switch.ActionModule)
    action._task_vars, action._program = {}, ["llamacpp-switch"]
    monkeypatch.setattr(action, "_execute_module", lambda **_arguments: {"rc": 1, "stderr": "trouble\nno disk"})
    with pytest.raises(AnsibleActionFail, match=told):
        action._call([command])


class Task:
    check_mode, async_val, args, environment = True, 0, {"to": "previous"}, None


STATUS = {"current": "b" * 12, "previous": "a" * 12, "running": False}
CHECKED = {
    "there-is-one": (STATUS, "would switch main to aaaaaaaaaaaa", ""),
    "none-before": ({**STATUS, "previous": ""}, "", "could not be started: instance main has no deployment before bbbbbbbbbbbb."),
    "none-at-all": ({**STATUS, "previous": "", "current": ""}, "", "instance main has no deployment before the first one."),
    "under-way": (
        {**STATUS, "running": True, "to": "c" * 12},
        "",
        "could not be started: a switch of main is already running, to cccccccccccc.",
    ),
    "no-program": (None, "", "could not be started: no such file."),
}


@pytest.mark.parametrize(("status", "told", "problem"), CHECKED.values(), ids=CHECKED)
def test_check_of_a_way_back_says_what_the_run_would_do(monkeypatch, status, told, problem):
    action = llama_switch.ActionModule.__new__(llama_switch.ActionModule)
    action._task = Task()
    asked = []

    def execute(**arguments):
        asked.append((arguments["module_args"]["argv"][1:], action._task.check_mode))
        return {"rc": 1, "stderr": "no such file"} if status is None else {"rc": 0, "stdout": json.dumps(status)}

    monkeypatch.setattr(action, "_execute_module", execute)
    monkeypatch.setattr(llama_switch.ActionBase, "run", lambda *_arguments: {})
    arguments = {"instance": "main", "to": "previous", "restart": False, "program": "llamacpp-switch", "patience": 300}
    monkeypatch.setattr(action, "validate_argument_spec", lambda **_spec: (None, arguments))
    if problem:
        with pytest.raises(AnsibleActionFail, match=problem):
            action.run()
    else:
        assert action.run() == {"changed": True, "msg": told}
    assert asked == [(["status", "--instance", "main"], False)]
    assert action._task.check_mode


class Link:
    """A host whose link breaks: each answer is that of one call, None where the link is broken."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    def call(self, arguments):
        self.asked.append(arguments)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is None:
            raise AnsibleConnectionFailure("no route")
        if isinstance(answer, Exception):
            raise answer
        return {"run": self.asked[0][-1], **answer}


@pytest.fixture(name="switch")
def fixture_switch(monkeypatch):
    """Runs the action against a link."""

    def run(link, **arguments):
        monkeypatch.setattr(llama_switch, "LONG_POLL_SECONDS", 0.0)
        monkeypatch.setattr(llama_switch, "UNDO_POLL_SECONDS", 0.0)
        monkeypatch.setattr(llama_switch.ActionBase, "run", lambda *_arguments: {})
        action = llama_switch.ActionModule.__new__(llama_switch.ActionModule)
        action._task = SimpleNamespace(args={"to": "b" * 12, **arguments}, check_mode=False)
        monkeypatch.setattr(action, "_call", link.call)
        return action.run(task_vars={"inventory_hostname": "three"})

    return run


BUSY = AnsibleActionFail("The switch could not be started: a switch of main is already running.")
STARTS = {
    "answer-lost": [None, journal("gating", True), journal("committed")],
    "lost-again-and-again": [None, None, None, journal("committed")],
    "got-through-at-that-moment": [None, BUSY, journal("gating", True), journal("committed")],
}


@pytest.mark.parametrize("answers", STARTS.values(), ids=STARTS)
def test_start_that_is_cut_off_is_asked_for_again_under_the_same_run(switch, answers):
    link = Link(*answers)
    result = switch(link)
    assert result["journal"]["state"] == "committed" and "failed" not in result
    starts = [asked for asked in link.asked if asked[0] == "switch"]
    assert len(starts) > 1 and all(asked == starts[0] for asked in starts)
    assert starts[0][-2] == "--run" and len(starts[0][-1]) == 12


def test_switch_of_somebody_else_after_a_cut_is_not_followed(switch):
    with pytest.raises(AnsibleActionFail, match="already running"):
        switch(Link(None, BUSY, {**journal("gating", True), "run": "other"}))


LOST = {
    "before-it-began": ([None], False, "three was cut off when it was to switch to bbbbbbbbbbbb; if the switch began, it ends by itself."),
    "inside": (
        [journal("gating", True), None],
        True,
        "three was cut off while it switched to bbbbbbbbbbbb; it ends that by itself. When it is back, run the playbook again,",
    ),
}


@pytest.mark.parametrize(("answers", "started", "said"), LOST.values(), ids=LOST)
def test_host_that_stays_away_is_lost_and_nothing_is_known_of_its_switch(switch, answers, started, said):
    result = switch(Link(*answers), patience=0)
    assert result["failed"] and result["lost"] and result["started"] is started
    assert said in result["msg"] and "journal" not in result


def test_way_back_asks_for_no_reading_ahead(switch):
    link = Link(journal("committed"))
    switch(link, at_once=True)
    assert "--at-once" in link.asked[0] and "--restart" not in link.asked[0]
