# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts that are there to build, of which one is off and one has no Python that works."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[4]
LOCAL = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
BUILDERS = {
    "gone": {"ansible_host": "127.0.0.1", "ansible_port": 9},
    "broken": {**LOCAL, "ansible_python_interpreter": "/bin/false"},
    "good": LOCAL,
}


def test_builders_that_do_not_answer_are_named_and_done_without(tmp_path: Path) -> None:
    variables = {
        "ansible_become": False,
        "llama_engine_root": str(tmp_path),
        "llama_engine_build_path": str(tmp_path),
        "_llama_engine_builders": list(BUILDERS),
        "_llama_engine_found": {"tag": "b11549", "source": "git", "git_url": "https://example.com/x", "backend": "cpu"},
        "_llama_engine_build_needed": 10**18,
    }
    told = (
        "{{ inventory_hostname }} knows {{ __llama_engine_builders | list | join }}: {{ __llama_engine_builders.good.short }}"
        " Of itself {{ ansible_facts.llama_hardware | default('nothing') }}."
    )
    tasks = [
        {"ansible.builtin.include_tasks": str(ROOT / "roles/llama_engine/tasks/builders.yml")},
        {"ansible.builtin.debug": {"msg": told}},
    ]
    (tmp_path / "play.yml").write_text(json.dumps([{"hosts": "one,other", "gather_facts": False, "vars": variables, "tasks": tasks}]))
    (tmp_path / "hosts.json").write_text(json.dumps({"all": {"hosts": {"one": LOCAL, "other": LOCAL, **BUILDERS}}}))
    done = subprocess.run(
        ["ansible-playbook", "-i", str(tmp_path / "hosts.json"), str(tmp_path / "play.yml")],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_LOCAL_TEMP": str(tmp_path / "tmp")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    text = " ".join(done.stdout.split())
    assert done.returncode == 0, text
    for name in ("gone", "broken"):
        assert f"{name} of llama_builders does not say what it could build" in text
    for name in ("one", "other"):
        assert f"{name} knows good: The build needs" in text, text
    assert text.count("Of itself nothing.") == 2
