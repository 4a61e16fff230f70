# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the role on the lab's hosts as a user does."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
for folder in (".collections", "tests/lab"):
    sys.path.insert(0, str(ROOT / folder))

import plays

INVENTORY = str(ROOT / "molecule/engine/inventory")
CONVERGE = "molecule/engine/converge.yml"
CACHE = Path(os.environ.get("ONPREM_LLAMACPP_CACHE") or "~/.cache/onprem-llamacpp").expanduser()
ENGINES = CACHE / "engine-scenario"
ARCHIVE = {"url": "file:///srv/engine.tar.gz", "folder": "llama.cpp"}
RELEASES = "/opt/llamacpp/releases"
BUILD = "/opt/llamacpp/build"


def refused(run: plays.Run, *words: str) -> None:
    assert run.status != 0, run.output[-3000:]
    for word in words:
        assert word in run.text, run.output[-3000:]


def send(address: str, target: str, *paths: Path) -> None:
    """Copies files and folders to a host of the lab."""
    options = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
    named = " ".join(map(str, paths))
    assert os.system(f"scp -q -r -i {plays.KEY} {options} {named} root@{address}:{target}") == 0


def variables(**values: Any) -> tuple[str, str]:
    """Extra variables as arguments."""
    return "-e", json.dumps(values)


@pytest.fixture(scope="session")
def play() -> Callable[..., plays.Run]:
    """Runs the role on a host with variables of its own; on the taker unless named."""

    def run(*arguments: str, host: str = "taker", playbook: str = CONVERGE, timeout: int = 600, **values: Any) -> plays.Run:
        return plays.run_playbook(
            INVENTORY, "--limit", host, *variables(engine_hosts="all", **values), *arguments, playbook=playbook, timeout=timeout
        )

    return run


@functools.cache
def connect(name: str) -> Any:
    import testinfra  # noqa: PLC0415

    return testinfra.get_host(f"ansible://{name}", ansible_inventory=INVENTORY)


@pytest.fixture(scope="session")
def taker() -> Any:
    return connect("taker")


@pytest.fixture(scope="session")
def builder() -> Any:
    return connect("builder")


@pytest.fixture(scope="session")
def packaged() -> Any:
    return connect("packaged")


def releases(host: Any) -> list[str]:
    """The releases of a host and whatever else is in their folder, hidden ones too."""
    return sorted(host.check_output(f"ls -A {RELEASES}").split())


def newest(tag: str, cpu: str = "native") -> Path:
    """The artifact in the controller's cache that was built last from a tag for these processors, without options of a test's own."""
    marks = {"native": "-DGGML_NATIVE=ON", "baseline": "-DGGML_AVX2=ON", "all": "-DGGML_BACKEND_DL=ON"}

    def plain(artifact: Path) -> bool:
        build = json.loads(artifact.with_name(artifact.name.replace(".tar.gz", ".json")).read_text())
        options = build["cmake_options"]
        return build["source"]["kind"] == "git" and marks[cpu] in options and options[-1].startswith("-DLLAMA_BUILD_NUMBER=")

    return max(filter(plain, ENGINES.glob(f"{tag}-*.tar.gz")), key=lambda path: path.stat().st_mtime)
