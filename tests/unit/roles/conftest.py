# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs one file of a role's tasks on this machine, as no root, with programs that stand for the host's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
PLAY = """
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {{name: onprem.llamacpp.{role}, tasks_from: {tasks}}}
"""


@pytest.fixture(name="run_role_tasks")
def fixture_run_role_tasks(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a role's file of tasks on hosts, given as their variables by name, with extra variables and programs by name."""

    def run(
        role: str, tasks: str, hosts: dict[str, Any], extra: dict[str, Any], programs: dict[str, str], *arguments: str
    ) -> subprocess.CompletedProcess[str]:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        for name, text in programs.items():
            (folder / name).write_text(f"#!/bin/sh\n{text}")
            (folder / name).chmod(0o755)
        (tmp_path / "play.yml").write_text(PLAY.format(role=role, tasks=tasks))
        local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, "ansible_become": False}
        (tmp_path / "hosts.json").write_text(json.dumps({"all": {"vars": local, "hosts": hosts}}))
        path = f"{folder}:{os.environ['PATH']}"
        return subprocess.run(
            ["ansible-playbook", "-i", "hosts.json", "play.yml", "-e", json.dumps(extra), *arguments],
            cwd=tmp_path, env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections"), "PATH": path},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300, check=False,
        )  # fmt: skip

    return run
