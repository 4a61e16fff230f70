# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A build that a server of the site has, has damaged or has not, and builders that do not answer."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import RELEASES, newest, releases, send


@pytest.mark.parametrize(
    ("folder", "damage", "status"),
    [
        pytest.param("whole", "true", 200, id="as-it-is-in-the-cache"),
        pytest.param("damaged", "printf x >>", 200, id="damaged"),
        pytest.param("without", "rm", 404, id="not-there"),
    ],
)
def test_a_build_comes_from_the_sites_server_or_else_from_the_controller(
    play: Any, taker: Any, builder: Any, folder: str, damage: str, status: int
) -> None:
    artifact = newest("b11549")
    name = artifact.name.removesuffix(".tar.gz")
    builder.check_output(f"mkdir -p /srv/releases/{folder}")
    send("10.87.0.11", f"/srv/releases/{folder}/", artifact)
    builder.check_output(f"{damage} /srv/releases/{folder}/{artifact.name}")
    taker.check_output(f"rm -rf {RELEASES}/{name}")
    run = play("-v", llama_engine_artifact_url=f"http://10.87.0.11:8000/{folder}", llama_engine_keep=9)
    assert run.status == 0, run.output[-3000:]
    asked = builder.check_output(f"journalctl -u releases | grep '/{folder}/'").splitlines()
    assert len(asked) == 1
    assert f'"GET /{folder}/{artifact.name} HTTP/1.1" {status}' in asked[0]
    assert name in releases(taker)
    assert not [name for name in releases(taker) if name.startswith(".")]
    # What was unpacked, the file from the server or one that the controller brought.
    fetched = re.search(rf'\bsrc"?: "?{re.escape(RELEASES)}/\.{name}\.tar\.gz', run.output)
    assert bool(fetched) is (folder == "whole"), run.output[-3000:]


def test_builders_that_do_not_answer_are_named_and_done_without(play: Any, taker: Any, tmp_path: Path) -> None:
    """One is off, the other answers and has no Python that works."""
    before = set(releases(taker))
    hosts = {"gone": {"lab_address": "10.87.0.99"}, "broken": {"lab_address": "10.87.0.13", "ansible_python_interpreter": "/bin/false"}}
    inventory = tmp_path / "more.yml"
    inventory.write_text(json.dumps({"all": {"children": {"llama_builders": {"hosts": hosts}}}}))
    run = play("-i", str(inventory), llama_engine_cmake_options=["-DELSEWHERE=ON"], llama_engine_keep=9)
    assert run.status == 0, run.output[-3000:]
    for name in hosts:
        assert f"{name} of llama_builders does not say what it could build" in run.text, run.output[-3000:]
    assert len(set(releases(taker)) - before) == 1
