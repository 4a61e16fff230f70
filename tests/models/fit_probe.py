# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on a host with an engine: sizes stubs as ``job.json`` beside it says, and prints one JSON answer a line.

Needs nothing but Python. RPC devices are servers of the engine on loopback, started here and ended here.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
FIRST_PORT = 50160
ENVIRONMENT = {
    "ctx_size": "LLAMA_ARG_CTX_SIZE",
    "parallel": "LLAMA_ARG_N_PARALLEL",
    "ubatch_size": "LLAMA_ARG_UBATCH",
    "cache_type_k": "LLAMA_ARG_CACHE_TYPE_K",
    "cache_type_v": "LLAMA_ARG_CACHE_TYPE_V",
    "n_gpu_layers": "LLAMA_ARG_N_GPU_LAYERS",
}


def start_server(program: str, number: int) -> subprocess.Popen[bytes]:
    """An RPC server on loopback, once it listens."""
    port = FIRST_PORT + number
    command = [program, "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _attempt in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return server
        time.sleep(0.1)
    server.kill()
    raise SystemExit(f"{program} does not listen on port {port}")


def environment(combination: dict) -> dict[str, str]:
    """What tells the engine how the model is run, and on which devices."""
    setup = {"n_gpu_layers": 999, "parallel": 1, **combination["setup"]}
    found = {variable: str(setup[key]) for key, variable in ENVIRONMENT.items() if key in setup}
    found["LLAMA_ARG_BATCH"] = str(max(2048, setup.get("ubatch_size", 512)))
    if setup.get("n_cpu_moe") == "all":
        found["LLAMA_ARG_CPU_MOE"] = "1"
    elif setup.get("n_cpu_moe"):
        found["LLAMA_ARG_N_CPU_MOE"] = str(setup["n_cpu_moe"])
    if setup.get("tensor_split"):
        found["LLAMA_ARG_TENSOR_SPLIT"] = ",".join(f"{share:g}" for share in setup["tensor_split"])
    if not setup.get("flash_attention", True):
        found["LLAMA_ARG_FLASH_ATTN"] = "off"
    if combination["device"] == "rpc":
        found["LLAMA_ARG_RPC"] = ",".join(f"127.0.0.1:{FIRST_PORT + number}" for number in range(combination["count"]))
        found["GGML_VK_VISIBLE_DEVICES"] = ""
    else:
        found["GGML_VK_VISIBLE_DEVICES"] = ",".join(["0"] * combination["count"])
    return found


def answer(program: str, stub: str, combination: dict) -> dict:
    """MiB of weights, context and compute on each device, or what the engine said instead."""
    argv = [program, "--model", stub, "--fit", "off", "--fit-print", "on"]
    started = time.monotonic()
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False, env={**os.environ, **environment(combination)})
    rows = [line.split() for line in done.stdout.splitlines()]
    devices = [[int(cell) for cell in row[1:]] for row in rows if len(row) == 4 and row[1].isdigit() and row[0] != "Host"]
    error = "" if done.returncode == 0 and devices else (done.stderr.strip().splitlines() or ["no message"])[-1]
    return {"devices": devices, "error": error, "seconds": round(time.monotonic() - started, 2)}


def main() -> None:
    job = json.loads((HERE / "job.json").read_text())
    for name, size in job["sizes"].items():
        os.truncate(HERE / name, size)
    servers = []
    try:
        needed = max((entry["count"] for entry in job["combinations"] if entry["device"] == "rpc"), default=0)
        servers = [start_server(job["rpc_server"], number) for number in range(needed)]
        for combination in job["combinations"]:
            print(json.dumps(answer(job["program"], str(HERE / f"{combination['shape']}.gguf"), combination)), flush=True)
    finally:
        for server in servers:
            server.kill()
            server.wait()


if __name__ == "__main__":
    sys.exit(main())
