# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Serving on one host without a GPU: how long a switch takes service away, what our flags cost, what a second run asks of the host.

The host is that of the scenario ``switch``. The model is the tiny one with more and wider experts, so that it takes ten seconds and
more to load from a cold disk.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/models"))

import lab
import plays

INVENTORY = "molecule/switch/inventory"
HOST = "10.89.0.11"
BIG = "/var/lib/llamacpp/big.gguf"
BIG_ID = "b16b16b16b16"
LOAD_SECONDS = 13  # aimed at; less than LEAST makes no figure
LEAST = 10.0
EXPERTS = 384
WIDTH_BYTES = EXPERTS * 4 * 3 * 512 * 4.5 / 8  # what one more in width adds to four layers of Q4_K
ROUNDS = 5
# As a user has it, and not as the many switches of the scenario do.
WISH = ["-e", "llama_plan_threads=0"]

playbook = functools.partial(lab.playbook, INVENTORY)
on = functools.partial(lab.on, HOST)


def probe(*arguments: str) -> Any:
    return json.loads(on("python3 /root/probe.py " + " ".join(f"'{argument}'" for argument in arguments)))


def disk_speed() -> float:
    """Bytes a second of this machine's disk past the page cache, from the lab's largest image."""
    path = max((plays.KEY.parents[1] / "images").glob("*.tar"), key=lambda image: image.stat().st_size)
    with open(path, "rb", buffering=0) as handle:
        os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        started, count = time.monotonic(), 0
        while block := handle.read(1 << 22):
            count += len(block)
    return count / (time.monotonic() - started)


def write_big(path: Path) -> None:
    """The tiny model with as much width as the disk needs LOAD_SECONDS for, as far as memory takes it."""
    import tiny_kimi_k2  # noqa: PLC0415 - needs gguf and numpy

    width = round(LOAD_SECONDS * disk_speed() / WIDTH_BYTES / 256) * 256
    tiny_kimi_k2.EXPERTS, tiny_kimi_k2.EXPERT_WIDTH = EXPERTS, min(max(width, 1024), 4096)
    tiny_kimi_k2.write_model(path, tiny_kimi_k2.SPLIT_QUANTS["UD-Q4_K_XL"])


@functools.cache
def deployed() -> str:
    """The host, serving the tiny model; the id of the deployment that serves."""
    atexit.register(playbook, "tests/lab/destroy.yml")
    playbook("molecule/switch/create.yml")
    playbook("molecule/switch/converge.yml", *WISH)
    bring(ROOT / "benchmarks/serving_lab/probe.py", "/root/probe.py")
    return link("current")


@functools.cache
def both() -> tuple[str, str]:
    """The ids of the deployment that serves and of the one before it, both of the tiny model, as the host was converged."""
    return deployed(), link("previous")


def serve_tiny() -> None:
    """Have the two deployments of the tiny model be the ones that serve and served before, whatever was measured before."""
    tiny = both()
    if {link("current"), link("previous")} != set(tiny):
        for name in reversed(tiny):
            on(f"/usr/local/libexec/llamacpp/llamacpp-switch run --instance main --to {name}")


def link(name: str) -> str:
    """The deployment that a link of the instance names."""
    return Path(on(f"readlink /etc/llamacpp/instances/main/{name}").strip()).name


def bring(source: Path, target: str) -> None:
    """A file to the host."""
    copy = ["ansible", "-i", INVENTORY, "one", "-m", "ansible.builtin.copy", "-a", f"src={source} dest={target} mode=0644"]
    subprocess.run(copy, cwd=ROOT, env=plays.environment(), check=True, capture_output=True)


@functools.cache
def with_big() -> tuple[str, int]:
    """The host with the big model beside the tiny one that it serves: the id of the deployment that serves, and the big one's bytes."""
    serving, _before = both()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "big.gguf"
        write_big(path)
        size = path.stat().st_size
        bring(path, BIG)
    wish = {
        "base": serving, "id": BIG_ID, "instance": "main", "engine": "", "unit": "", "records": {},
        "environment": {"LLAMA_ARG_MODEL": BIG}, "request": {"model_path": BIG, "model_bytes": size, "warm_seconds": 600},
    }  # fmt: skip
    on(f"python3 /root/hand.py lay '{json.dumps(wish)}'")
    return serving, size


@functools.cache
def gaps() -> list[tuple[float, float]]:
    """For each round the seconds without an answer during a switch to the big model, and those of its bare load, the cache cold."""
    (serving, size), found = with_big(), []
    for _round in range(ROUNDS):
        probe("evict", BIG)
        with lab.slow_disk(size // LOAD_SECONDS):
            gap = probe("gap", BIG_ID)
            probe("evict", BIG)
            found.append((gap, probe("load")))
        probe("gap", serving)
    return found


@functools.cache
def gap_without_warming() -> float:
    """The same seconds, once, when nothing is read ahead."""
    serving, size = with_big()
    probe("evict", BIG)
    with lab.slow_disk(size // LOAD_SECONDS):
        seconds: float = probe("gap", BIG_ID, "--at-once")
    probe("gap", serving)
    return seconds


def switch_gap_ratio() -> dict[str, Any]:
    """Seconds without service during a switch to a larger quant, less one, by those of the new model's bare load; median."""
    rounds = gaps()
    bare = statistics.median(load for _gap, load in rounds)
    if bare < LEAST:
        raise RuntimeError(f"the model loads in {bare:.1f} s from a cold disk, too short for a figure")
    gap = statistics.median(gap for gap, _load in rounds)
    ratio = statistics.median((gap - 1.0) / load for gap, load in rounds)
    against = (
        f"{gap:.1f} s without service, a bare load takes {bare:.1f} s with a cold cache; median of {ROUNDS}. "
        f"With nothing read ahead, once: {gap_without_warming():.1f} s without service"
    )
    return {"value": round(ratio, 2), "unit": "ratio", "bar": "<= 1.15", "against": against}


def overlap_failed_requests() -> dict[str, Any]:
    """Requests that fail at a front during switches for which both servers fit into memory."""
    serve_tiny()
    rounds = [probe("overlap", link("previous")) for _round in range(ROUNDS)]
    failed, answered = (sum(seen[what] for seen in rounds) for what in ("failed", "answered"))
    return {"value": failed, "unit": "requests", "bar": "<= 0", "against": f"{answered} answered; {ROUNDS} switches, four clients"}


def rollback_work_seconds() -> dict[str, Any]:
    """What a rollback takes on the host beside the load of the server."""
    serve_tiny()
    seconds = [probe("rollback") for _round in range(ROUNDS)]
    against = f"run time of the program less the load's; median of {ROUNDS}, {min(seconds):.1f} to {max(seconds):.1f} s"
    return {"value": round(statistics.median(seconds), 2), "unit": "s", "bar": "<= 10", "against": against}


@functools.cache
def pairs() -> list[tuple[dict[str, float], dict[str, float]]]:
    """Tokens a second with our flags and with the engine's defaults, turn by turn, the instance's own server stopped."""
    with_big()
    on("systemctl stop llamacpp@main")
    try:
        return [
            (probe("speed", "/etc/llamacpp/instances/main/current/server.env", BIG), probe("speed", "", BIG)) for _round in range(ROUNDS)
        ]
    finally:
        on("systemctl start llamacpp@main")


def serve_vs_default_gen() -> dict[str, Any]:
    """Tokens a second that are generated, by those of the defaults; median of the pairs' ratios."""
    return against_defaults("gen")


def serve_vs_default_prompt() -> dict[str, Any]:
    """The same of tokens that are read."""
    return against_defaults("prompt")


def against_defaults(kind: str) -> dict[str, Any]:
    measured = pairs()
    ours, theirs = (statistics.median(pair[which][kind] for pair in measured) for which in (0, 1))
    ratio = statistics.median(our[kind] / their[kind] for our, their in measured)
    return {
        "value": round(ratio, 3), "unit": "ratio", "bar": ">= 0.97",
        "against": f"{ours:.1f} tokens/s with our flags, {theirs:.1f} with the same build's defaults; median of {ROUNDS} pairs",
    }  # fmt: skip


def server_noop_remote_calls() -> dict[str, Any]:
    """Modules, raw commands and transfers of the role llama_server on a host that serves what is wished."""
    serving = deployed()
    if link("current") != serving:
        on(f"/usr/local/libexec/llamacpp/llamacpp-switch run --instance main --to {serving}")
    output = playbook("site.yml", *WISH, "-vvv")
    if not re.search(r"one\s+: ok=\d+\s+changed=0\s", output):
        raise RuntimeError("the second run changed something, so it is not the figure that was asked for")
    tasks = re.split(r"^TASK \[", output, flags=re.MULTILINE)
    ours = [task for task in tasks if task.startswith("onprem.llamacpp.llama_server ")]
    calls = sum(len(re.findall(rf"^<{re.escape(HOST)}> (?:SSH: EXEC|PUT|FETCH)", task, re.MULTILINE)) for task in ours)
    return {"value": calls, "unit": "calls", "bar": "<= 8", "against": f"{len(ours)} tasks of the role, second run"}
