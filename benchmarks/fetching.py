# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast a model is fetched, next to curl and hf; what it costs in memory; what a kill costs in bytes.

All fetch the same file from the same nginx on loopback, whose page cache is warm. The target's is empty, every run ends with the file
synced, and ours includes its SHA-256. FETCH_FOLDER is where the files lie (default /var/tmp), FETCH_BYTES how large they are.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from origin import COMMIT, NAME, REPO_ID, ROOT, Origin

from ansible_collections.onprem.llamacpp.plugins.module_utils._model_store import Model
from ansible_collections.onprem.llamacpp.plugins.module_utils._program import write_program

SIZE = int(os.environ.get("FETCH_BYTES", "0")) or 4 * 2**30
ROUNDS = 5
KILLS = 5
CONNECTIONS = 4
MIB = 2**20


class Site:
    """An origin and a place to fetch to; gone when the process ends."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="onprem-fetch-", dir=os.environ.get("FETCH_FOLDER", "/var/tmp")))
        atexit.register(self.close)
        self.origin = Origin(self.folder / "origin", SIZE)
        self.staging = self.folder / "staging"
        self.program = self.folder / "transfer.pyz"
        write_program(str(self.program))
        job = {
            "sources": [{"transport": "hub", "url": self.origin.endpoint}],
            "repo_id": REPO_ID,
            "commit": COMMIT,
            "files": self.files(),
            "staging": str(self.staging),
            "connections": CONNECTIONS,
        }
        (self.folder / "job.json").write_text(json.dumps(job))

    def files(self) -> list[dict[str, Any]]:
        return [{"path": NAME, "size": SIZE, "sha256": self.origin.sha256}]

    def start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-I", str(self.program), str(self.folder / "job.json")])

    def prepare(self) -> Path:
        """An empty target, nothing of it left to be written, and a warm origin."""
        target = self.folder / "target"
        for path in (target, self.staging):
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir()
        os.sync()
        self.origin.warm()
        return target

    def check(self, path: Path) -> None:
        if path.stat().st_size != SIZE:
            raise RuntimeError(f"{path} has {path.stat().st_size} bytes instead of {SIZE}")

    def close(self) -> None:
        self.origin.close()
        shutil.rmtree(self.folder, ignore_errors=True)


@functools.cache
def site() -> Site:
    return Site()


def sync(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def ours() -> tuple[float, int]:
    """Seconds, and the most memory in bytes."""
    site().prepare()
    began = time.monotonic()
    process = site().start()
    _pid, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"the transfer failed: {(site().staging / 'status.json').read_text()}")
    site().check(site().staging / NAME)
    return seconds, usage.ru_maxrss * 1024


def curl() -> float:
    target = site().prepare() / NAME
    began = time.monotonic()
    subprocess.run(["curl", "-sf", "-o", str(target), site().origin.url], check=True, timeout=600)
    sync(target)
    seconds = time.monotonic() - began
    site().check(target)
    return seconds


def hf() -> float:
    target = site().prepare()
    environment = {**os.environ, "HF_ENDPOINT": site().origin.endpoint, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(target / "home")}
    command = [
        str(Path(sys.executable).parent / "hf"),
        "download",
        REPO_ID,
        NAME,
        "--revision",
        COMMIT,
        "--local-dir",
        str(target / "model"),
    ]
    began = time.monotonic()
    subprocess.run(command, check=True, timeout=600, env=environment, capture_output=True)
    sync(target / "model" / NAME)
    seconds = time.monotonic() - began
    site().check(target / "model" / NAME)
    return seconds


@functools.cache
def rounds() -> list[tuple[float, float, float, int]]:
    """Seconds of ours, curl and hf, and our memory; each round has all three, beginning with another one each time."""
    found = []
    for number in range(ROUNDS):
        taken: dict[str, Any] = {}
        runs = [("ours", ours), ("curl", curl), ("hf", hf)]
        for name, run in runs[number % 3 :] + runs[: number % 3]:
            taken[name] = run()
        found.append((taken["ours"][0], taken["curl"], taken["hf"], taken["ours"][1]))
    return found


def figure(value: float, unit: str, bar: str, against: str) -> dict[str, Any]:
    return {"value": value, "unit": unit, "bar": bar, "against": against}


def compared(column: int, name: str, bar: str) -> dict[str, Any]:
    ratio = statistics.median(row[column] / row[0] for row in rounds())
    medians = [statistics.median(row[index] for row in rounds()) for index in (0, column)]
    told = f"{name}, {SIZE / 1e9:.1f} GB, medians of {ROUNDS}: ours {medians[0]:.1f} s with SHA-256, {name} {medians[1]:.1f} s without"
    return figure(round(ratio, 2), "times as fast", bar, told)


def fetch_vs_curl() -> dict[str, Any]:
    return compared(1, "curl", ">= 0.9")


def fetch_vs_hf() -> dict[str, Any]:
    return compared(2, "hf download", ">= 1.0")


def fetch_peak_rss_mib() -> dict[str, Any]:
    """The largest resident set of the transfer's program."""
    return figure(round(max(row[3] for row in rounds()) / MIB), "MiB", "<= 150", f"{SIZE / 1e9:.1f} GB over {CONNECTIONS} connections")


def received() -> int:
    journal = site().staging / f"{NAME}.part.json"
    return sum(end - begin for begin, end in json.loads(journal.read_text())["received"]) if journal.exists() else 0


def fetch_resume_waste_mib() -> dict[str, Any]:
    """The most that one kill -9 cost: bytes that the origin sent less bytes that the journal knows, for each connection."""
    site().prepare()
    wastes = []
    for _ in range(KILLS):
        had, served = received(), site().origin.served()
        process = site().start()
        time.sleep(random.uniform(0.4, 1.2))
        process.kill()
        process.wait()
        time.sleep(0.5)  # nginx notes a broken connection when it next writes to it
        wastes.append(site().origin.served() - served - (received() - had))
    process = site().start()
    if process.wait(600) or not (site().staging / NAME).exists():
        raise RuntimeError("the transfer did not end well after the kills")
    told = f"{KILLS} kills at random moments, {CONNECTIONS} connections, bytes in socket buffers included"
    return figure(round(max(wastes) / CONNECTIONS / MIB, 1), "MiB a connection", "<= 64", told)


def fetch_complete_seconds() -> dict[str, Any]:
    """The module on a model that is complete: no request, nothing read."""
    if not (site().staging / NAME).exists():
        ours()
    model = Model(str(site().folder / "models"), REPO_ID, COMMIT, "Q4_K_M", site().files())
    model.make_staging(0, 0)
    shutil.move(site().staging / NAME, Path(model.staging) / NAME)
    model.publish("this host")
    source = {"transport": "hub", "url": site().origin.endpoint}
    wish = {"repo_id": REPO_ID, "commit": COMMIT, "quant": "Q4_K_M", "files": model.files, "root": model.root, "sources": [source]}
    served = site().origin.served()
    program = "from ansible_collections.onprem.llamacpp.plugins.modules import gguf_download; gguf_download.main()"
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": wish}),
        env={**os.environ, "PYTHONPATH": str(ROOT / ".collections")},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    seconds = time.monotonic() - began
    if json.loads(done.stdout)["changed"] or site().origin.served() != served:
        raise RuntimeError(f"the model was not left alone: {done.stdout}")
    return figure(round(seconds, 2), "s", "<= 1", f"{SIZE / 1e9:.1f} GB published, 0 requests")
