# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How far the memory model is from an engine, over the combinations of fit.yml, on the demo's host with its packaged engine."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
for folder in (".collections", "tests/models", "tests/lab"):
    sys.path.insert(0, str(ROOT / folder))

import fit_combinations
import plays

HOST = "10.77.0.11"
PACKAGES = ["libggml0-backend-rpc", "libggml0-backend-vulkan", "llama.cpp-tools-extra", "mesa-vulkan-drivers"]
AGAINST = "llama-fit-params of Debian forky on RPC devices and lavapipe"


@functools.cache
def measured() -> tuple[list[fit_combinations.Difference], list[dict[str, Any]]]:
    """Every device's difference and every answer; the demo's host is made where it is not there."""
    subprocess.run(["demo/run.sh", "package"], cwd=ROOT, check=True, capture_output=True, timeout=1800)
    install = f"name={','.join(PACKAGES)} update_cache=true install_recommends=false"
    command = ["ansible", "-i", "demo/inventory.yml", "-i", "tests/lab/inventory", "demo-host", "--become", "-m", "ansible.builtin.apt"]
    done = subprocess.run([*command, "-a", install], cwd=ROOT, check=False, capture_output=True, text=True, timeout=900, env={**os.environ})
    if done.returncode:
        raise RuntimeError(f"the packages could not be installed:\n{done.stdout[-1000:]}")
    engine = fit_combinations.Engine(HOST, str(plays.KEY), "/usr/bin/llama-fit-params", fit_combinations.PACKAGED_RPC_SERVER)
    listed = fit_combinations.combinations()
    answers = fit_combinations.ask(engine, listed)
    return fit_combinations.compare(listed, answers), answers


def figure(value: float, unit: str, bar: str) -> dict[str, Any]:
    return {"value": value, "unit": unit, "bar": bar, "against": AGAINST}


def combinations() -> dict[str, Any]:
    """How many combinations the engine answered."""
    return figure(len(measured()[1]), "combinations", ">= 60")


def device_error_percent() -> dict[str, Any]:
    """The total of a device where it is off by more than 256 MiB, in percent of the engine's."""
    return figure(round(max(difference.percent for difference in measured()[0]), 2), "%", "<= 2")


def device_error_mib() -> dict[str, Any]:
    return figure(round(max(abs(difference.total) for difference in measured()[0])), "MiB", "none")


def context_error_mib() -> dict[str, Any]:
    return figure(round(max(abs(difference.context) for difference in measured()[0]), 2), "MiB", "<= 1")


def weights_error_mib() -> dict[str, Any]:
    return figure(round(max(abs(difference.weights) for difference in measured()[0]), 2), "MiB", "<= 1")


def exact_fit_seconds() -> dict[str, Any]:
    """The module llama_fit_info on the host, from the archive of headers to the placement of a model of Kimi K2's size."""
    measured()  # for the host and its packages
    ssh = ["ssh", "-i", str(plays.KEY), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", f"root@{HOST}"]
    units = {f"fit-rpc-{number}": 50210 + number for number in range(2)}
    for unit, port in units.items():
        server = [fit_combinations.PACKAGED_RPC_SERVER, "--host", "127.0.0.1", "--port", str(port)]
        subprocess.run([*ssh, "systemd-run", "--unit", unit, *server], check=True, capture_output=True, timeout=60)
    try:
        inventories = ["demo/inventory.yml", "tests/lab/inventory"]
        rpc = [f"127.0.0.1:{port}" for port in units.values()]
        with tempfile.TemporaryDirectory() as folder:
            answer = fit_combinations.exact_fit(inventories, "demo-host", Path(folder), "kimi-k2", rpc, [79, 79], ctx_size=131072)
    finally:
        subprocess.run([*ssh, "systemctl", "stop", *units], check=False, capture_output=True, timeout=60)
    if not answer["asked"] or not answer["fits"]:
        raise RuntimeError(f"the engine found no placement: {answer}")
    return figure(answer["seconds"], "s", "< 5")
