# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a host without a compiler takes to get an engine that another one has built. The hosts are those of the scenario ``engine``."""

from __future__ import annotations

import functools
import json
import statistics
import time
from typing import Any

import lab
import plays

INVENTORY = "molecule/engine/inventory"
PLAYBOOK = "molecule/engine/converge.yml"
RELEASES = "/opt/llamacpp/releases"
ROUNDS = 3
# The real llama.cpp, from the cache of artifacts; built once where it is not there.
WISH = {
    "engine_hosts": "all",
    "llama_engine_cache": str(plays.KEY.parents[1] / "engines"),
    "llama_engine_git_url": "file:///srv/llama.cpp.git",
    "llama_engine_backend": "rpc",
    "llama_engine_force": ["rpc"],
}

playbook = functools.partial(lab.playbook, INVENTORY)
on = functools.partial(lab.on, "10.87.0.12")


def engine_artifact_seconds() -> dict[str, Any]:
    """Seconds of the whole run that installs the release, facts included; median."""
    arguments = ["--limit", "taker", "-e", json.dumps(WISH)]
    try:
        playbook("molecule/engine/create.yml", timeout=3600)
        playbook(PLAYBOOK, *arguments, timeout=5400)
        (release,) = on(f"ls {RELEASES}").split()
        seconds = []
        for _round in range(ROUNDS):
            on(f"rm -r {RELEASES}/{release}")
            began = time.monotonic()
            playbook(PLAYBOOK, *arguments)
            seconds.append(time.monotonic() - began)
        compilers = on("for program in cc c++ cmake; do command -v $program; done; true").split()
    finally:
        playbook("tests/lab/destroy.yml")
    if compilers:
        raise RuntimeError(f"the host has {', '.join(compilers)}, so it is not the figure that was asked for")
    size = (plays.KEY.parents[1] / f"engines/{release}.tar.gz").stat().st_size
    against = f"{release}, {size / 1e6:.1f} MB, no compiler on the host; median of {ROUNDS}"
    return {"value": round(statistics.median(seconds), 1), "unit": "s", "bar": "<= 30", "against": against}
