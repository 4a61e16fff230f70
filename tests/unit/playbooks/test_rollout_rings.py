# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role that switches rings, with a role that only says it serves in the place of the one that does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
SERVER = {
    "main": """
- ansible.builtin.fail: {msg: the gate said no}
  when: "'gate' in fails"
- ansible.builtin.set_fact:
    llama_server_result: {instance: "{{ 'mute' if 'soak' in fails else 'main' }}", deployment: new, tokens_per_second: 5}
""",
    "rollback": """
- ansible.builtin.fail: {msg: the model is gone}
  when: "'back' in fails"
- ansible.builtin.copy: {content: "", dest: "{{ went_back }}/{{ inventory_hostname }}"}
""",
    "drain": "- ansible.builtin.meta: noop\n",
    "undrain": "- ansible.builtin.meta: noop\n",
}
INFO = """#!/usr/bin/python
from ansible.module_utils.basic import AnsibleModule
module = AnsibleModule(argument_spec={"instances": {"type": "list", "elements": "str"}})
module.exit_json(instances={name: {"health": "unreachable" if name == "mute" else "ok"} for name in module.params["instances"]})
"""
PLAYS = """
- hosts: gpu_hosts
  gather_facts: false
  tasks:
    - ansible.builtin.group_by: {key: llama_rollout_pending}
    - ansible.builtin.set_fact: {llama_rollout_result: {state: waiting, ring: 0, from: old, to: new, reason: "", tokens_per_second: null}}
- hosts: gpu_hosts:&llama_rollout_pending
  gather_facts: false
  serial: [1, "100%"]
  tasks:
    - ansible.builtin.import_role: {name: onprem.llamacpp.llama_rollout}
- hosts: gpu_hosts:&llama_rollout_pending
  gather_facts: false
  tasks:
    - ansible.builtin.import_role: {name: onprem.llamacpp.llama_rollout, tasks_from: back}
- name: Tell what came of it
  hosts: gpu_hosts
  gather_facts: false
  tasks:
    - ansible.builtin.import_role: {name: onprem.llamacpp.llama_rollout, tasks_from: report}
"""


ABORTED = """
- hosts: gpu_hosts
  gather_facts: false
  tasks:
    - ansible.builtin.set_fact:
        llama_rollout_result:
          state: "{{ 'committed' if inventory_hostname == 'one' else 'waiting' }}"
          ring: 1
          from: old
          to: new
          reason: ""
          tokens_per_second: 5
    - ansible.builtin.fail: {msg: the disk is full}
      when: inventory_hostname == 'two'
      any_errors_fatal: true
- name: Tell what came of it
  hosts: gpu_hosts
  gather_facts: false
  tasks: []
"""


@pytest.fixture(name="collections", scope="module")
def fixture_collections(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The collection with another server."""
    root = tmp_path_factory.mktemp("collections")
    made = root / "ansible_collections/onprem/llamacpp"
    (made / "plugins/modules").mkdir(parents=True)
    for folder in ("module_utils", "plugin_utils", "filter", "callback"):
        (made / "plugins" / folder).symlink_to(ROOT / "plugins" / folder)
    (made / "plugins/modules/llama_server_info.py").write_text(INFO)
    tasks = made / "roles/llama_server/tasks"
    tasks.mkdir(parents=True)
    for name, text in SERVER.items():
        (tasks / f"{name}.yml").write_text(f"---\n{text}")
    (made / "roles/llama_rollout").symlink_to(ROOT / "roles/llama_rollout")
    (made / "galaxy.yml").symlink_to(ROOT / "galaxy.yml")
    return root


NAMES = ("one", "two", "three")


def play(folder: Path, collections: Path, plays: str, hosts: dict[str, Any], common: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs plays on hosts that are this machine, with the callback that has the last word."""
    common = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, **common}
    (folder / "plays.yml").write_text(plays)
    (folder / "hosts.json").write_text(json.dumps({"all": {"vars": common, "children": {"gpu_hosts": {"hosts": hosts}}}}))
    environment = {"ANSIBLE_COLLECTIONS_PATH": str(collections), "ANSIBLE_CALLBACKS_ENABLED": "onprem.llamacpp.summary"}
    return subprocess.run(
        ["ansible-playbook", "-i", "hosts.json", "plays.yml"],
        cwd=folder, env={**os.environ, **environment},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600, check=False,
    )  # fmt: skip


# What fails on host two, in the second of two rings, and the wish -> states of one, two and three, who went back, a word of two's reason
STORIES = {
    "gate-takes-all-back": ("gate", "rollback", ("taken back", "failed", "taken back"), {"one", "three"}, "the gate said no"),
    "soak": ("soak", "stop", ("committed", "failed", "committed"), {"two"}, "stopped answering while it soaked."),
    "soak-and-the-way-back": ("soak back", "stop", ("committed", "failed", "committed"), set(), "Going back failed: the model is gone"),
}


@pytest.mark.parametrize(("fails", "wish", "states", "returned", "reason"), STORIES.values(), ids=STORIES)
def test_host_that_fails_serves_what_it_served(
    tmp_path: Path, collections: Path, fails: str, wish: str, states: tuple[str, ...], returned: set[str], reason: str
) -> None:
    went_back, output = tmp_path / "back", tmp_path / "rollout.json"
    went_back.mkdir()
    wished = {"went_back": str(went_back), "llama_rollout_on_ring_failure": wish, "llama_rollout_output": str(output)}
    done = play(tmp_path, collections, PLAYS, {name: {"fails": fails if name == "two" else ""} for name in NAMES}, wished)
    results = json.loads(output.read_text())["hosts"]
    assert tuple(results[name]["state"] for name in NAMES) == states, done.stdout[-3000:]
    assert {path.name for path in went_back.iterdir()} == returned
    assert reason in results["two"]["reason"] and done.returncode == 2
    assert "ROLLOUT ENDED BEFORE ITS REPORT" not in done.stdout


def test_rollout_that_is_aborted_has_a_summary_too(tmp_path: Path, collections: Path) -> None:
    done = play(tmp_path, collections, ABORTED, {name: {} for name in NAMES}, {})
    _before, banner, said = done.stdout.partition("ROLLOUT ENDED BEFORE ITS REPORT")
    assert done.returncode == 2 and banner, done.stdout
    assert "1 host on the new deployment" in said and "2 hosts not touched, because the rollout stopped" in said, said
