# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When packages are asked for again: after a failure of the network, but not after a lock, which was waited for already."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
LISTS = "Failed to lock apt for exclusive operation: Failed to lock directory /var/lib/apt/lists/: E:Could not get lock"
INSTALL = (
    "'/usr/bin/apt-get -y install 'ninja-build=1.11.1-1'' failed: E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process"
    " 42 (unattended-upgr)\nE: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), is another process using it?\n"
)
NETWORK = "'/usr/bin/apt-get -y install 'ninja-build=1.11.1-1'' failed: E: Failed to fetch http://deb/pool/n.deb  Could not resolve 'deb'\n"
ENDS = [
    ({"failed": False}, True),
    ({"failed": True, "msg": LISTS}, True),
    ({"failed": True, "msg": INSTALL}, True),
    ({"failed": True, "msg": NETWORK}, False),
]


def tasks(entries: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for entry in entries:
        yield entry
        yield from tasks(entry.get("block", []))


def test_a_lock_is_waited_for_once(tmp_path: Path) -> None:
    asked = []
    for path in ("roles/cuda_toolkit/tasks/packages.yml", "roles/llama_engine/tasks/packages.yml"):
        (task,) = [task for task in tasks(yaml.safe_load((ROOT / path).read_text())) if "ansible.builtin.apt" in task]
        for result, done in ENDS:
            condition = f"({task['until']})" if done else f"not ({task['until']})"
            asked.append({"ansible.builtin.assert": {"that": condition}, "vars": {task["register"]: result}})
    (tmp_path / "play.yml").write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": asked}]))
    run = subprocess.run(
        ["ansible-playbook", "-i", "localhost,", str(tmp_path / "play.yml")],
        cwd=ROOT, env={**os.environ, "ANSIBLE_NOCOLOR": "1"}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout
