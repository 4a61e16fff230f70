# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What planning a large fleet costs, against the least that Ansible can do with as many hosts."""

from __future__ import annotations

import json
import resource
import subprocess
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
HOSTS = 500
# Nothing listens there, so the plan does what it does without a network.
CLOSED = "http://127.0.0.1:9"
DEBUG = [{"hosts": "gpu_hosts", "gather_facts": False, "tasks": [{"ansible.builtin.debug": {"msg": "planned"}}]}]


def example_facts() -> list[dict[str, Any]]:
    """The recorded facts of inventories/example, as a controller sees them."""
    done = subprocess.run(
        ["ansible", "gpu_hosts", "-i", "inventories/example", "-m", "ansible.builtin.debug", "-a", "var=llama_hardware_recorded", "-o"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    found = [json.loads(line.split("=>", 1)[1])["llama_hardware_recorded"] for line in done.stdout.splitlines() if "=>" in line]
    if not found:
        raise RuntimeError(f"inventories/example gave no facts:\n{done.stdout}{done.stderr}")
    return found


def write_fleet(folder: Path) -> Path:
    """An inventory of many hosts, each with facts of its own, all of them fit to be planned."""
    facts = example_facts()
    hosts = {}
    for number in range(HOSTS):
        name = f"gpu-{number:03d}"
        hosts[name] = {"llama_hardware_recorded": {**facts[number % len(facts)], "hostname": name}}
    wish = {"llama_plan_use_recorded": True, "quant": "auto", "llama_plan_endpoint": CLOSED}
    target = folder / "fleet.json"
    target.write_text(json.dumps({"all": {"children": {"gpu_hosts": {"hosts": hosts, "vars": wish}}}}))
    return target


def processor_seconds(playbook: str, inventory: Path) -> float:
    """User and system time of a run and of every process it starts."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        ["ansible-playbook", "-i", str(inventory), playbook], cwd=ROOT, capture_output=True, text=True, check=False, timeout=1200
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"{playbook} failed:\n{done.stdout[-2000:]}{done.stderr[-500:]}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def plan_vs_debug_task() -> dict[str, Any]:
    """CPU of playbooks/plan.yml for 500 recorded hosts, in CPU of one debug task for the same hosts."""
    with tempfile.TemporaryDirectory() as folder:
        inventory = write_fleet(Path(folder))
        debug = Path(folder) / "debug.yml"
        debug.write_text(json.dumps(DEBUG))
        least = processor_seconds(str(debug), inventory)
        plan = processor_seconds("playbooks/plan.yml", inventory)
    against = f"one debug task for the same {HOSTS} hosts: {least:.1f} s of CPU, the plan {plan:.1f} s"
    return {"value": round(plan / least, 2), "unit": "times", "bar": "<= 10", "against": against}
