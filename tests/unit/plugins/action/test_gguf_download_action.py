# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The task waits for the transfer, shows how far it is, and rides out a lost connection."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ansible.errors import AnsibleConnectionFailure

from ansible_collections.onprem.llamacpp.plugins.action import gguf_download
from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _following


def running(done, **more):
    return {
        "changed": True,
        "finished": False,
        "bytes_done": done,
        "bytes_total": 4_000_000_000,
        "rate": 50_000_000,
        "eta_seconds": 60,
        **more,
    }


DONE = {"changed": True, "finished": True, "bytes_done": 4_000_000_000, "bytes_total": 4_000_000_000}


@pytest.fixture
def task(monkeypatch):
    """Runs the action over the given answers of the module; each call takes six seconds of a clock."""
    now = [100.0]
    lines = []

    def clock():
        now[0] += 6.0
        return now[0]

    monkeypatch.setattr(_following.time, "monotonic", clock)
    monkeypatch.setattr(_following.time, "sleep", lambda _seconds: None)
    monkeypatch.setattr(_following, "display", SimpleNamespace(display=lines.append))
    monkeypatch.setattr(gguf_download.ActionBase, "run", lambda self, tmp, task_vars: {})

    def run(answers, check_mode=False, **args):
        calls = []

        def execute(module_name, module_args, task_vars):
            calls.append(dict(module_args))
            answer = answers[len(calls) - 1]
            if isinstance(answer, Exception):
                raise answer
            return dict(answer)

        action = gguf_download.ActionModule.__new__(gguf_download.ActionModule)
        action._task = SimpleNamespace(args={"quant": "Q2_K", **args}, check_mode=check_mode, environment=[])
        action._connection = SimpleNamespace(reset=lambda: None, transport="local")
        action._execute_module = execute
        run.calls, run.lines = calls, lines
        return action.run(task_vars={"inventory_hostname": "gpu1"})

    return run


def test_polls_until_finished_and_shows_lines(task):
    result = task([running(0), running(2_000_000_000, note="mirror answered HTTP 503"), DONE])
    assert result["finished"] is True
    assert result["changed"] is True
    assert len({call["run_id"] for call in task.calls}) == 1
    assert task.lines == [
        "gpu1: Q2_K 0.0 MB of 4.0 GB (0 %), 50.0 MB/s, 0:01:00 left",
        "gpu1: Q2_K 2.0 GB of 4.0 GB (50 %), 50.0 MB/s, 0:01:00 left - mirror answered HTTP 503",
    ]


def test_lines_are_rate_limited(task, monkeypatch):
    monkeypatch.setattr(_following.time, "monotonic", lambda: 100.0)
    task([running(0), running(1), running(2), DONE])
    assert len(task.lines) == 1


@pytest.mark.parametrize(
    ("answers", "check_mode", "outcome"),
    [
        pytest.param([{"changed": False, "finished": True}], False, {"changed": False}, id="complete already"),
        pytest.param([running(0)], True, {"changed": True, "finished": False}, id="check mode"),
        pytest.param([running(0), {"failed": True, "msg": "why"}], False, {"failed": True, "msg": "why", "changed": True}, id="failure"),
    ],
)
def test_ends(task, answers, check_mode, outcome):
    assert outcome.items() <= task(answers, check_mode).items()
    assert len(task.calls) == len(answers)


def test_lost_connection_is_ridden_out(task):
    lost = AnsibleConnectionFailure("timed out")
    assert task([running(0), lost, lost, DONE])["finished"] is True
    assert sum("connection lost" in line for line in task.lines) == 2


def test_connection_that_stays_lost_ends_the_task(task):
    with pytest.raises(AnsibleConnectionFailure):
        task([running(0)] + [AnsibleConnectionFailure("timed out")] * 40)


def test_connection_lost_before_anything_began_is_not_ours(task):
    with pytest.raises(AnsibleConnectionFailure):
        task([AnsibleConnectionFailure("no route")])


@pytest.mark.parametrize(("seconds", "text"), [(None, "time left unknown"), (59, "0:00:59 left"), (46_800, "13:00:00 left")])
def test_duration(seconds, text):
    assert _following.duration(seconds) == text


def test_a_directory_of_the_controller_is_offered_while_the_task_runs(task, tmp_path):
    task([running(0), DONE], controller_directory=str(tmp_path), sources=[{"transport": "hub", "url": "https://huggingface.co"}])
    (first,), (second,) = (call["sources"] for call in task.calls)
    assert first == second
    assert first["transport"] == "mirror"
    assert first["url"].startswith("http://127.0.0.1:")
    assert "controller_directory" not in task.calls[0]


def test_check_mode_offers_nothing(task):
    task([running(0)], check_mode=True, controller_directory="/nonexistent", sources=[])
    assert task.calls[0]["sources"] == []
