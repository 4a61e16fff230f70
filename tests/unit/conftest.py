# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the checkout importable as ``ansible_collections.onprem.llamacpp``, as Ansible does it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / ".collections"))
sys.path[:0] = [str(ROOT / "tests" / "models"), str(ROOT / "tests" / "lab")]


@pytest.fixture
def run_module() -> Callable[..., tuple[int, dict[str, Any]]]:
    """Runs a module of the collection as Ansible does: a process of its own, arguments and result as JSON; exit status and result."""

    def run(name: str, **arguments: Any) -> tuple[int, dict[str, Any]]:
        program = f"from ansible_collections.onprem.llamacpp.plugins.modules import {name}; {name}.main()"
        done = subprocess.run(
            [sys.executable, "-c", program],
            input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
            env={**os.environ, "PYTHONPATH": str(ROOT / ".collections")},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, json.loads(done.stdout)

    return run


@pytest.fixture
def run_task() -> Callable[..., tuple[int, dict[str, Any]]]:
    """Runs one task on this machine as Ansible does, its action plugin and its module; exit status and result."""

    def run(name: str, **arguments: Any) -> tuple[int, dict[str, Any]]:
        where = ["localhost", "-i", "localhost,", "-c", "local", "-e", f"ansible_python_interpreter={sys.executable}"]
        done = subprocess.run(
            [sys.executable, "-m", "ansible", "adhoc", *where, "-m", f"onprem.llamacpp.{name}", "-a", json.dumps(arguments)],
            env={**os.environ, "ANSIBLE_CALLBACK_RESULT_FORMAT": "json", "ANSIBLE_NOCOLOR": "1"},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        return done.returncode, json.loads(done.stdout.partition("=>")[2])

    return run


@pytest.fixture(scope="session")
def shape_models() -> dict[str, Any]:
    """The model families of tests/models/shapes.py in their real sizes, by name."""
    import fit_combinations  # noqa: PLC0415 - needs gguf and numpy, which few tests do

    return fit_combinations.models()
