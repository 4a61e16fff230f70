# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role that switches rings, with a role that only says it serves in the place of the one that does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from ansible_collections.onprem.llamacpp.plugins.module_utils import _prune

ROOT = Path(__file__).resolve().parents[3]
# A host that is cut off: nothing listens on that port.
CUT = "{ansible_connection: ssh, ansible_host: 127.0.0.1, ansible_port: 1}"
NOTE = "ansible.builtin.shell: echo {what} {{{{ inventory_hostname }}}} >> {{{{ diary }}}}"
SERVER = {
    "main": f"""
- ansible.builtin.fail: {{msg: the gate said no}}
  when: "'gate' in fails"
- ansible.builtin.set_fact: {{__llama_server_switched: {{lost: true, started: true}}}}
  when: "'lost' in fails"
- ansible.builtin.fail: {{msg: no link}}
  when: "'lost' in fails"
- ansible.builtin.set_fact: {CUT}
  when: "'cut' in fails"
- ansible.builtin.command: "true"
  register: answer
- ansible.builtin.debug: {{msg: "{{{{ answer.stdout }}}}"}}
- ansible.builtin.set_fact:
    llama_server_result:
      instance: "{{{{ fails | default('main', true) }}}}"
      deployment: new
      tokens_per_second: 5
      committed: "{{{{ 'half' not in fails }}}}"
""",
    "rollback": f"""
- ansible.builtin.fail: {{msg: the model is gone}}
  when: "'back' in fails"
- {NOTE.format(what="back to {{ llama_server_rollback_to | default('previous') }}")}
""",
    "resolve": """
- ansible.builtin.set_fact:
    llama_server_wish: {deployment: new, serving: old, proven: "{{ proven | default(false) }}"}
""",
    "drain": f"- {NOTE.format(what='refuse')}\n",
    "undrain": "- ansible.builtin.meta: noop\n",
}
# The instance's name tells what is found.
INFO = """#!/usr/bin/python
from ansible.module_utils.basic import AnsibleModule
module = AnsibleModule(argument_spec={"instances": {"type": "list", "elements": "str"}})
module.exit_json(instances={name: {
    "health": "unreachable" if "soak" in name else "ok",
    "deployment": {"id": "old" if "other" in name else "new"},
    "committed": True,
    "active_state": "failed" if "beside" in name else "active",
    "journal": {"state": "failed", "serving": "new"} if "beside" in name else {"state": "undone", "serving": ""},
} for name in module.params["instances"]})
"""
FIRST = f"""
- name: Plan and prepare every host
  hosts: gpu_hosts
  gather_facts: false
  tasks:
    - ansible.builtin.import_role: {{name: onprem.llamacpp.llama_rollout, tasks_from: begin}}
    - ansible.builtin.fail: {{msg: the disk is full}}
      when: "'plan' in fails"
    - ansible.builtin.import_role: {{name: onprem.llamacpp.llama_rollout, tasks_from: sort}}
    - ansible.builtin.set_fact: {CUT}
      when: "'off' in fails"
"""
# The plays of the playbook after its first one, which would plan and bring engines and models.
PLAYS = yaml.safe_load(FIRST) + yaml.safe_load((ROOT / "playbooks/rollout.yml").read_text())[1:]
BY_HAND = yaml.safe_load((ROOT / "playbooks/rollback.yml").read_text())
ABORTED = yaml.safe_load("""
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
""")
INTERRUPTED = yaml.safe_load("""
- hosts: gpu_hosts
  gather_facts: false
  tasks:
    - ansible.builtin.import_role: {name: onprem.llamacpp.llama_rollout, tasks_from: begin}
    - ansible.builtin.set_fact:
        llama_rollout_result: {state: "{{ fails or 'waiting' }}", ring: 1, from: old, to: new, reason: "", tokens_per_second: 5}
    - ansible.builtin.shell: kill -INT $(cat {{ diary | dirname }}/pid) && sleep 60
""")


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


class Story(NamedTuple):
    """What a run came to."""

    status: int
    output: str
    text: str  # the output with line breaks and indentation folded
    results: dict[str, Any]
    diary: list[str]  # what was done to which host, in order
    marks: set[str]  # the hosts that are marked as out of service

    @property
    def states(self) -> dict[str, tuple[str, int]]:
        return {name: (result["state"], result["ring"]) for name, result in self.results.items()}


@pytest.fixture(name="tell")
def fixture_tell(tmp_path: Path, collections: Path) -> Callable[..., Story]:
    """Runs plays on hosts that are this machine, with hooks and the callback that has the last word; by what fails on each host."""
    output, diary, marks = tmp_path / "rollout.json", tmp_path / "diary", tmp_path / "marks"
    marks.mkdir()
    for what in ("drain", "undrain"):
        failing = f"- ansible.builtin.fail: {{msg: the balancer said no}}\n  when: \"'no {what}' in fails\"\n"
        (tmp_path / f"{what}.yml").write_text(f"---\n{failing}- {NOTE.format(what=what)}\n")

    def tell(plays: list[dict[str, Any]], fails: dict[str, str], *arguments: str, marked: str = "", **wished: Any) -> Story:
        # The name of an instance tells what is found of it, also when a host that cannot go back is to be put into service.
        hosts = {name: {"fails": what, "llama_server_instance": what if "back" in what else "main"} for name, what in fails.items()}
        common = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "llama_plan_result": {"turn": 0, "instance": "main"},
        }
        hooks = {f"llama_rollout_{what}_tasks": str(tmp_path / f"{what}.yml") for what in ("drain", "undrain")}
        own = {"_llama_rollout_mark": f"{marks}/{{{{ inventory_hostname }}}}", "diary": str(diary), "llama_rollout_output": output.name}
        output.write_text("of the run before")
        if marked:
            (marks / marked).touch()
        # Not in the folder where the user is, to which what the user says is relative.
        (tmp_path / "playbooks").mkdir(exist_ok=True)
        (tmp_path / "playbooks/plays.yml").write_text(json.dumps(plays))
        (tmp_path / "hosts.json").write_text(json.dumps({"all": {"vars": common, "children": {"gpu_hosts": {"hosts": hosts}}}}))
        (tmp_path / "wish.json").write_text(json.dumps({"llama_rollout_serial": [1, "100%"], **hooks, **own, **wished}))
        environment = {"ANSIBLE_COLLECTIONS_PATH": str(collections), "ANSIBLE_CALLBACKS_ENABLED": "onprem.llamacpp.summary"}
        done = subprocess.run(
            ["sh", "-c", 'echo $$ > pid; exec ansible-playbook -i hosts.json playbooks/plays.yml -e @wish.json "$@"', "sh", *arguments],
            cwd=tmp_path, env={**os.environ, **environment, "ANSIBLE_NOCOLOR": "1"},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600, check=False,
        )  # fmt: skip
        text = output.read_text() if output.exists() else ""
        return Story(
            done.returncode,
            done.stdout,
            " ".join(done.stdout.split()),
            json.loads(text)["hosts"] if text.startswith("{") else {},
            diary.read_text().splitlines() if diary.exists() else [],
            {path.name for path in marks.iterdir()},
        )

    return tell


def fleet(**fails: str) -> dict[str, str]:
    return {name: fails.get(name, "") for name in NAMES}


# What fails on a host of the second ring -> whether it goes back, and its reason
STORIES = {
    "soak": (True, "stopped answering while it soaked."),
    "soak back": (False, "Going back failed: the model is gone Putting the host into service again failed: Nothing answers on h1, so"),
    "half soak back beside": (False, "did not come to its end."),
    "other": (True, "passed its gate, and now old serves, not new."),
    "half": (False, "The switch to new did not come to its end."),
    "off": (False, "cannot be reached any more. It serves what it served. Run again when it is back."),
    "cut": (False, "cannot be reached any more. It serves what it served. Run again when it is back."),
    "no drain": (False, "the balancer said no"),
}


def test_host_that_fails_serves_what_it_served(tell: Callable[..., Story]) -> None:
    names = {f"h{number}": fails for number, fails in enumerate(STORIES)}
    story = tell(PLAYS, {"one": "", **names, "well": ""})
    assert story.states == {"one": ("committed", 1), "well": ("committed", 2), **dict.fromkeys(names, ("failed", 2))}, story.output[-3000:]
    returned = {line.removeprefix("back to old ") for line in story.diary if line.startswith("back")}
    assert returned == {name for name, fails in names.items() if STORIES[fails][0]}
    for name, fails in names.items():
        assert STORIES[fails][1] in story.results[name]["reason"], story.results[name]["reason"]
    assert story.status == 2 and "ROLLOUT ENDED BEFORE ITS REPORT" not in story.output
    # Who cannot be reached, or serves nothing, is put into service by the next run.
    assert story.marks == {name for name, fails in names.items() if fails in ("cut", "soak back")}
    last = {host: what for what, host in (line.split() for line in story.diary if "drain" in line)}
    served = {host for host, what in last.items() if what == "undrain"}
    assert served == {"one", "well"} | {name for name, fails in names.items() if fails not in ("off", "cut", "soak back")}


def test_rings_are_taken_back_host_by_host_out_of_service_but_for_who_is_cut_off(tell: Callable[..., Story]) -> None:
    fails = {"one": "", "two": "lost", "three": "", "four": "gate"}
    story = tell(PLAYS, fails, llama_rollout_on_ring_failure="rollback", llama_rollout_back_serial="1")
    back = ("taken back", 1), ("switching", 2), ("taken back", 2), ("failed", 2)
    assert story.states == dict(zip(fails, back)), story.output[-3000:]
    assert story.results["two"]["reason"].split(". ") == [
        "two was cut off while it switched to new; it ends that by itself",
        "It may end on the new deployment: it cannot be taken back now",
        "When it is back, run rollout.yml again, or look at status.yml.",
    ]
    assert story.results["four"]["reason"] == "the gate said no"
    went = [f"{what} {name}" for name in ("one", "three") for what in ("drain", "refuse", "back to old", "undrain")]
    assert story.diary[-len(went) :] == went and story.marks == {"two"} and story.status == 2


CANARIES = {
    "before": ("no drain", [], "the balancer said no"),
    "after": ("no undrain", ["drain one", "back to old one"], "the balancer said no Putting the host into service again failed: the"),
    "off": ("off", [], "one cannot be reached any more."),
}


@pytest.mark.parametrize(("fails", "diary", "reason"), CANARIES.values(), ids=CANARIES)
def test_canary_that_fails_outside_its_switch_is_reported_and_touches_nobody_else(
    tell: Callable[..., Story], fails: str, diary: list[str], reason: str
) -> None:
    story = tell(PLAYS, fleet(one=fails), llama_rollout_max_fail_percentage=100)
    assert story.states == {"one": ("failed", 1), "two": ("waiting", 0), "three": ("waiting", 0)}, story.output[-3000:]
    assert [line for line in story.diary if line != "undrain one"] == diary
    assert reason in story.results["one"]["reason"]
    assert story.status == 2 and "ring 1: one failed" in story.text and "ROLLOUT ENDED BEFORE ITS REPORT" not in story.output


def test_next_run_puts_into_service_what_an_interrupted_one_has_left_out(tell: Callable[..., Story]) -> None:
    story = tell(PLAYS, fleet(), marked="two", proven=True)
    assert {state for state, _ring in story.states.values()} == {"unchanged"}, story.output[-3000:]
    assert story.diary == ["undrain two"] and not story.marks and story.status == 0


def test_rollout_to_a_part_reports_the_part(tell: Callable[..., Story]) -> None:
    story = tell(PLAYS, fleet(), "--limit", "two")
    assert story.states == {"two": ("committed", 1)}, story.output[-3000:]
    assert story.status == 0 and "out of reach" not in story.text


def test_rollout_that_cannot_prepare_anybody_says_so_and_forgets_the_one_before(tell: Callable[..., Story]) -> None:
    story = tell(PLAYS, {"localhost": "plan", "two": "plan"})
    assert story.states == dict.fromkeys(("localhost", "two"), ("left out", 0)) and story.status == 2, story.output[-3000:]
    assert {result["reason"] for result in story.results.values()} == {"the disk is full"}
    _before, _banner, said = story.text.partition("ROLLOUT ENDED BEFORE ITS REPORT")
    assert "2 hosts out of reach, or could not be prepared" in said and "localhost: the disk is full" in said


ROLES = [
    (task["ansible.builtin.import_role"]["name"].rpartition(".")[2], task["ansible.builtin.import_role"].get("tasks_from", "main"))
    for task in yaml.safe_load((ROOT / "playbooks/rollout.yml").read_text())[0]["tasks"]
]


def test_nothing_is_brought_before_the_plan_that_brings_it_is_looked_at() -> None:
    looked = ("llama_rollout", "refuse")
    for plan, brings in ((("llama_plan", "main"), ("llama_engine", "main")), (("llama_plan", "confirm"), ("llama_model", "main"))):
        assert ROLES[ROLES.index(plan) + 1 : ROLES.index(brings) + 1] == [looked, brings]


def removes(why: str) -> dict[str, Any]:
    """A plan with no room on the disk, where something may be removed."""
    disk = {"path": "/models", "required": 638 * 10**9, "free": 300 * 10**9, "removes": [{"quant": "UD-Q2_K_XL", "why": why}]}
    return {"turn": 0, "instance": "main", "quant": "UD-Q4_K_XL", "disk": disk}


def test_rollout_that_would_remove_what_is_served_is_refused(tell: Callable[..., Story]) -> None:
    refuse = {"ansible.builtin.import_role": {"name": "onprem.llamacpp.llama_rollout", "tasks_from": "refuse"}}
    play = {"hosts": "gpu_hosts", "gather_facts": False}
    plan = {"llama_plan_result": "{{ served if fails else unused }}"}
    plays = [{**play, "vars": plan, "tasks": [refuse, {"ansible.builtin.shell": "echo brought >> {{ diary }}"}]}]
    wished = {"served": removes(_prune.REASONS[_prune.CURRENT]), "unused": removes(_prune.REASONS[_prune.PREVIOUS])}
    story = tell(plays, {"one": "", "two": "served"}, **wished)
    assert story.status == 2 and story.diary == [], story.output[-3000:]
    assert "two is to have UD-Q4_K_XL, which needs 638.0 GB free in /models; 300.0 GB are free" in story.text
    assert "would remove UD-Q2_K_XL while it is served" in story.text and "site.yml --limit two" in story.text
    story = tell(plays, {"one": ""}, **wished)
    assert story.status == 0 and story.diary == ["brought"], story.output[-3000:]


def test_rollout_that_is_aborted_has_a_summary_too(tell: Callable[..., Story]) -> None:
    story = tell(ABORTED, fleet())
    _before, banner, said = story.output.partition("ROLLOUT ENDED BEFORE ITS REPORT")
    assert story.status == 2 and banner, story.output
    assert "1 host on the new deployment" in said and "2 hosts not touched, because the rollout stopped" in said, said


def test_rollout_that_is_interrupted_says_what_it_came_to_once(tell: Callable[..., Story]) -> None:
    story = tell(INTERRUPTED, {"one": "committed", "two": "switching", "three": ""}, "--forks", "1")
    assert story.output.count("ROLLOUT ENDED BEFORE ITS REPORT") == 1, story.output[-3000:]
    assert story.states == {"one": ("committed", 1), "two": ("switching", 1), "three": ("waiting", 1)}
    assert "1 host was cut off while it switched" in story.text and story.status == 99


def test_way_back_by_hand_that_fails_leaves_out_a_host_that_serves_nothing(tell: Callable[..., Story]) -> None:
    story = tell(BY_HAND, {"one": "back", "two": "soak back"})
    assert story.status == 2 and story.marks == {"two"}, story.output[-3000:]
    assert sorted(story.diary) == ["drain one", "drain two", "undrain one"]
    assert "Nothing answers on two, so it stays out of service" in story.text


def test_way_back_by_hand_of_those_that_serve_a_deployment_goes_host_by_host(tell: Callable[..., Story]) -> None:
    plays = [{**play, "vars": {**play["vars"], "llama_server_instance": "{{ fails or 'main' }}"}} for play in BY_HAND]
    story = tell(plays, {"one": "", "two": "other", "three": ""}, llama_rollback_from="new", llama_rollback_serial=1)
    went = [f"{what} {name}" for name in ("one", "three") for what in ("drain", "back to previous", "undrain")]
    assert story.diary == went and story.status == 0 and not story.marks, story.output[-3000:]
    assert "two serves old, not new, and is left as it is." in story.text
