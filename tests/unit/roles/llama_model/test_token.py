# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's HF_TOKEN is for the Hub itself: whoever stands in for it does not get it unasked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[4]
NAMES = ("sent", "llama_model_token", "llama_plan_token", "llama_bundle_token", "llama_mirror_upstream_token")
HUB, OTHER = "https://huggingface.co", "http://mirror.example"
APART = {"endpoint": OTHER}


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """By case, what each variable comes to in a play that knows every role's defaults."""
    folder = tmp_path_factory.mktemp("token")
    cases = {
        "hub": {},
        "other": {"llama_model_endpoint": OTHER, "llama_mirror_upstream": OTHER},
        "given": {"llama_model_endpoint": OTHER, "llama_mirror_upstream": OTHER, "llama_model_token": "hf_given"},
        "apart": {"llama_plan_endpoint": OTHER, "llama_bundle_endpoint": OTHER, "llama_mirror_upstream": OTHER, "llama_plan_result": APART},
    }
    play = [
        {
            "hosts": "all",
            "gather_facts": False,
            "vars_files": [
                *(str(ROOT / f"roles/llama_{role}/defaults/main.yml") for role in ("model", "plan", "bundle", "mirror")),
                str(ROOT / "roles/llama_model/vars/main.yml"),
            ],
            "vars": {"sent": "{{ _llama_model_sources[0].token }}"},
            "tasks": [
                {
                    "name": "Write it down",
                    "ansible.builtin.copy": {
                        "dest": f"{folder}/{{{{ inventory_hostname }}}}.json",
                        "mode": "0600",
                        "content": "{{ {" + ", ".join(f"'{name}': {name}" for name in NAMES) + "} | to_json }}",
                    },
                }
            ],
        }
    ]
    (folder / "play.yml").write_text(yaml.safe_dump(play))
    hosts = {name: {"ansible_connection": "local", "ansible_python_interpreter": sys.executable} for name in cases}
    (folder / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
    for name, values in cases.items():
        # Extra-vars, because vars_files win over what an inventory says.
        command = ["ansible-playbook", "-i", str(folder / "hosts.yml"), "--limit", name, "-e", json.dumps(values), str(folder / "play.yml")]
        done = subprocess.run(
            command, env={**os.environ, "HF_TOKEN": "hf_secret"}, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stdout
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in cases}


def test_the_hub_gets_the_controllers_token(tokens: dict[str, dict[str, str]]) -> None:
    assert tokens["hub"] == dict.fromkeys(NAMES, "hf_secret")


def test_nobody_else_gets_it(tokens: dict[str, dict[str, str]]) -> None:
    assert tokens["other"] == dict.fromkeys(NAMES, "")


def test_a_token_that_is_given_wins(tokens: dict[str, dict[str, str]]) -> None:
    assert tokens["given"] == dict.fromkeys(NAMES, "hf_given")


def test_nobody_else_gets_it_who_is_named_for_one_step_alone(tokens: dict[str, dict[str, str]]) -> None:
    assert tokens["apart"] == {**dict.fromkeys(NAMES, ""), "llama_model_token": "hf_secret"}
