# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import types

import pytest
from ansible.errors import AnsibleConnectionFailure

from ansible_collections.onprem.llamacpp.plugins.action import gguf_swarm
from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _following


@pytest.fixture
def swarm(monkeypatch):
    """Runs the action over the given answers of the module; what it showed, and how the module was asked."""
    lines, asked = [], []

    def run(answers):
        def execute(module_name, module_args, task_vars):
            asked.append(module_args.get("started", False))
            answer = answers[len(asked) - 1]
            if isinstance(answer, Exception):
                raise answer
            return answer

        action = gguf_swarm.ActionModule.__new__(gguf_swarm.ActionModule)
        action._task = types.SimpleNamespace(args={"quant": "Q8_0"}, check_mode=False)
        action._execute_module = execute
        action._connection = types.SimpleNamespace(reset=lambda: None)
        return action.run(task_vars={"inventory_hostname": "gpu-a"})

    monkeypatch.setattr(_following, "RECONNECT_PAUSE", 0.0)
    monkeypatch.setattr(_following, "display", types.SimpleNamespace(display=lines.append))
    monkeypatch.setattr(gguf_swarm.ActionBase, "run", lambda *_arguments: {})
    run.lines, run.asked = lines, asked
    return run


@pytest.mark.parametrize(
    ("result", "line"),
    [
        pytest.param(
            {"bytes_done": 10**9, "bytes_total": 4 * 10**9, "peers": 3},
            "gpu-a: Q8_0 1.0 GB of 4.0 GB (25 %) by the swarm, 3 peers",
            id="under way",
        ),
        pytest.param(
            {"bytes_total": 4 * 10**9, "note": "http://mirror cannot be reached"},
            "gpu-a: Q8_0 0.0 MB of 4.0 GB (0 %) by the swarm, 0 peers - http://mirror cannot be reached",
            id="in trouble",
        ),
    ],
)
def test_progress_is_shown(swarm, result, line):
    swarm([{"changed": True, "finished": False, **result}, {"changed": False, "finished": True}])
    assert swarm.lines == [line]


def test_the_task_stays_until_the_module_has_finished(swarm):
    lost = AnsibleConnectionFailure("timed out")
    answers = [{"changed": True, "finished": False}, lost, {"changed": False, "finished": True, "filled": True}]
    assert swarm(answers) == {"changed": True, "finished": True, "filled": True}
    assert swarm.asked == [False, True, True]
