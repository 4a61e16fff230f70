# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest
from ansible.errors import AnsibleActionFail

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
