# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role refuses before it changes anything."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]
ROLE = {"name": "onprem.llamacpp.llama_server", "tasks_from": "preflight"}
PLAY = [{"hosts": "all", "gather_facts": False, "connection": "local", "tasks": [{"ansible.builtin.include_role": ROLE}]}]
FACTS = {"ansible_facts": {"llama_hardware": {"os": {"systemd": 257}}}, "_llama_server_conflicts": [], "_llama_server_ready": True}
TOLD = "The first two must be greater than 0, and the last one must not be negative."
WISHES = {
    "the defaults": ({}, ""),
    "no speed to assume": ({"llama_server_gate_disk_floor_mb": 0}, "llama_server_gate_disk_floor_mb is 0"),
    "no time to answer": ({"llama_server_gate_answer_seconds": 0}, "llama_server_gate_answer_seconds is 0"),
}


@pytest.mark.parametrize(("wish", "told"), WISHES.values(), ids=WISHES)
def test_time_that_no_start_can_be_given_is_refused(tmp_path, wish, told):
    (tmp_path / "play.yml").write_text(json.dumps(PLAY))
    done = subprocess.run(
        ["ansible-playbook", "-i", "localhost,", str(tmp_path / "play.yml"), "-e", json.dumps({**FACTS, **wish})],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_LOCAL_TEMP": str(tmp_path / "tmp")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=180,
        check=False,
    )
    assert (done.returncode == 0) is not bool(told), done.stdout
    if told:
        output = " ".join(done.stdout.split())
        assert told in output and TOLD in output
