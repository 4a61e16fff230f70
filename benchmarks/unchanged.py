# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What driver, toolkit and engine cost on a host that has them all, in modules, commands and transfers."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

from lab import playbook

ROOT = Path(__file__).resolve().parents[1]
LAB = "benchmarks/unchanged_lab"
INVENTORY = f"{LAB}/hosts.yml"
ROLES = ("nvidia_driver", "cuda_toolkit", "llama_engine")
_TASK = re.compile(r"^TASK \[(?:onprem\.llamacpp\.(\w+) : )?")
# With pipelining, which ansible.cfg switches on, each module or raw command is one execution, and a transfer one more.
_CALL = re.compile(r"^<[\d.]+> (?:SSH: EXEC|PUT|FETCH)")


def remote_calls(output: str) -> dict[str, int]:
    """Executions and transfers by role, from the output of a run with -vvv on one host."""
    calls, role = dict.fromkeys(ROLES, 0), ""
    for line in output.splitlines():
        task = _TASK.match(line)
        if task:
            role = task[1] or ""
        elif role in calls and _CALL.match(line):
            calls[role] += 1
    return calls


def wish(folder: Path) -> list[str]:
    """Arguments for bring.yml. The engine is a small program that links what llama.cpp links: what a rerun costs is the same."""
    wheels = subprocess.run([sys.executable, "tests/cuda/wheels.py"], cwd=ROOT, check=True, capture_output=True, text=True)
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / "engine.tar.gz"
    if not archive.exists():  # another archive would be another engine
        with tarfile.open(archive, "w:gz") as packed:
            packed.add(ROOT / "tests/cuda/engine", "engine")
    source = {"url": str(archive), "sha256": hashlib.sha256(archive.read_bytes()).hexdigest(), "folder": "engine"}
    extra = {
        "cuda_toolkit_wheel_directory": wheels.stdout.split()[-1],
        "llama_engine_archive": source,
        "llama_engine_cache": str(folder / "engines"),
    }
    return ["-e", json.dumps(extra)]


def engine_noop_remote_calls() -> dict[str, Any]:
    """Of the three roles together; the facts that they decide by are collected once for the whole run and are not among them."""
    try:
        playbook(INVENTORY, f"{LAB}/create.yml", timeout=3600)
        arguments = wish(ROOT / "build/unchanged")
        playbook(INVENTORY, f"{LAB}/bring.yml", *arguments, timeout=3600)
        output = playbook(INVENTORY, f"{LAB}/bring.yml", *arguments, "-vvv")
    finally:
        playbook(INVENTORY, "tests/lab/destroy.yml")
    if not re.search(r"\s: ok=\d+\s+changed=0\s", output):
        raise RuntimeError("the second run changed something, so it is not the figure that was asked for")
    calls = remote_calls(output)
    told = ", ".join(f"{name} {number}" for name, number in calls.items())
    return {"value": sum(calls.values()), "unit": "calls", "bar": "<= 6", "against": f"second run on a lab host: {told}"}
