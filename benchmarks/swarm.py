# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A model to four hosts at once, against HTTP to one of them, with every link shaped to 100 Mbit/s. Bytes, seconds."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from lab import on, playbook

INVENTORY = "benchmarks/swarm_lab/hosts.yml"
HOSTS = ["10.84.0.11", "10.84.0.12", "10.84.0.13", "10.84.0.14"]
MIRROR = "10.84.0.10"
MODEL_ROOT = "/var/lib/llamacpp/models"
SHARD_BYTES = 200_000_000
RATE = "100mbit"


class Run(NamedTuple):
    """One run: the baseline's seconds, the swarm's, what left the mirror, what a model has."""

    one: float
    four: float
    sent: int
    model: int


def sent() -> int:
    """Bytes that left the mirror through its interface."""
    return int(on(MIRROR, "cat /sys/class/net/host0/statistics/tx_bytes"))


def one_by_http() -> float:
    """Seconds of curl for both shards, one after the other, over one connection."""
    listing = on(MIRROR, "cd /srv/models/onprem/Random-GGUF && ls *.gguf").split()
    urls = " ".join(f"-o /dev/null http://{MIRROR}/onprem/Random-GGUF/resolve/main/{name}" for name in listing)
    return sum(float(line) for line in on(HOSTS[0], f"curl --fail --silent --write-out '%{{time_total}}\\n' {urls}").split())


def filled(address: str) -> tuple[float, float]:
    """When a host's staging directory was made, and when what it had become was published: the rename keeps its birth."""
    folder = on(address, f"dirname {MODEL_ROOT}/onprem--Random-GGUF/*/Q8_0/manifest.json").strip()
    begin, end = on(address, f"stat -c %.W {folder}; stat -c %.Y {folder}/manifest.json").split()
    return float(begin), float(end)


@functools.cache
def measured() -> Run:
    """One run for both figures, in a lab of its own that is removed afterwards."""
    try:
        wish = ["-e", f"swarm_shard_bytes={SHARD_BYTES}", "-e", "lab_link=shape", "-e", f"lab_rate={RATE}"]
        playbook(INVENTORY, "benchmarks/swarm_lab/mirror.yml", *wish)
        one = one_by_http()
        before = sent()
        playbook(INVENTORY, "benchmarks/swarm_lab/fill.yml")
        left = sent() - before
        times = [filled(address) for address in HOSTS]
        return Run(one, max(end for _begin, end in times) - min(begin for begin, _end in times), left, 2 * SHARD_BYTES)
    finally:
        playbook(INVENTORY, "tests/lab/destroy.yml")


def against() -> str:
    run = measured()
    return f"{run.model // 10**6} MB at 100 Mbit/s: HTTP to one host {run.one:.1f} s, published by four after {run.four:.1f} s"


def fill_ratio() -> dict[str, Any]:
    """Seconds from the first host's start until the last one has published, by those of curl to one host."""
    run = measured()
    return {"value": round(run.four / run.one, 2), "unit": "ratio", "bar": "<= 2.0", "against": against()}


def origin_ratio() -> dict[str, Any]:
    """Bytes that left the mirror's interface during it, by those of the model."""
    run = measured()
    return {"value": round(run.sent / run.model, 3), "unit": "ratio", "bar": "<= 1.1", "against": against()}
