# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on the host of the benchmark and prints one figure.

probe.py evict FILE            takes a file out of the page cache
probe.py load                  seconds from a start of the server to its first answer
probe.py gap DEPLOYMENT [--at-once]    seconds during a switch in which a client that never stops asking gets no completion
probe.py overlap DEPLOYMENT    how many requests of several clients of a front were answered and failed during a switch, as JSON
probe.py rollback              seconds that the program took to go back, less those in which the server loaded
probe.py speed ENVIRONMENT MODEL    tokens a second of a server with these settings ("" for the engine's defaults), as JSON
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

INSTANCE = Path("/etc/llamacpp/instances/main")
PROGRAM = "/usr/local/libexec/llamacpp/llamacpp-switch"
HAND, JOURNAL = "/root/hand.py", Path("/var/lib/llamacpp/instances/main/switch.json")
PORT, OTHER_PORT = 8080, 18099
PROMPT_TOKENS, TOKENS, REPEATS = 512, 64, 3
HEALTHY_SECONDS = 600
CLIENTS = 4


def ask(port: int, path: str, body: dict | None = None, timeout: float = 120) -> dict:
    """The answer to a request; empty when nobody gives one."""
    key = (INSTANCE / "api-keys").read_text().split()[0]
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("POST" if body else "GET", path, json.dumps(body) if body else None, headers)
        answer = connection.getresponse()
        text = answer.read()
        return json.loads(text) if answer.status == 200 else {}
    except (OSError, http.client.HTTPException):
        return {}
    finally:
        connection.close()


def evict(path: str) -> None:
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(handle)


def healthy(port: int, alive: Callable[[], bool] = lambda: True) -> None:
    end = time.monotonic() + HEALTHY_SECONDS
    while not ask(port, "/health", timeout=5):
        if not alive():
            sys.exit(f"the server for port {port} has ended")
        if time.monotonic() >= end:
            sys.exit(f"no server was healthy on port {port} within {HEALTHY_SECONDS} s")
        time.sleep(0.02)


def load() -> float:
    subprocess.run(["systemctl", "stop", "llamacpp@main"], check=True)
    started = time.monotonic()
    subprocess.run(["systemctl", "start", "llamacpp@main"], check=True)
    healthy(PORT)
    return time.monotonic() - started


def gap(deployment: str, *options: str) -> float:
    """The longest time between two answers, less what an answer takes by itself."""
    answered: list[tuple[float, float]] = []
    done = threading.Event()

    def client() -> None:
        while not done.is_set():
            began = time.monotonic()
            if ask(PORT, "/completion", {"prompt": [300], "n_predict": 1, "temperature": 0}):
                answered.append((began, time.monotonic()))
            time.sleep(0.02)

    thread = threading.Thread(target=client)
    thread.start()
    try:
        subprocess.run([PROGRAM, "run", "--instance", "main", "--to", deployment, *options], check=True, stdout=subprocess.DEVNULL)
        time.sleep(1)
    finally:
        done.set()
        thread.join()
    usual = statistics.median(end - began for began, end in answered)
    return max(later[1] - earlier[1] for earlier, later in zip(answered, answered[1:])) - usual


def overlap(deployment: str) -> dict[str, int]:
    """Clients that never stop asking a front, before, during and after a switch for which two servers run at once."""
    subprocess.run(["python3", HAND, "front"], check=True)
    try:
        stops = [Path(f"/run/client-stop-{number}") for number in range(CLIENTS)]
        clients = [subprocess.Popen(["python3", HAND, "client", str(stop)], stdout=subprocess.PIPE, text=True) for stop in stops]
        try:
            time.sleep(1)
            subprocess.run([PROGRAM, "run", "--instance", "main", "--to", deployment], check=True, stdout=subprocess.DEVNULL)
            time.sleep(1)
        finally:
            for stop in stops:
                stop.touch()
            seen = [json.loads(client.communicate(timeout=180)[0]) for client in clients]
    finally:
        subprocess.run(["python3", HAND, "unfront"], check=True)
    choice = json.loads(JOURNAL.read_text())["overlap"]
    if not choice["chosen"]:
        sys.exit(f"two servers did not run at once: {choice['why']}")
    return {"answered": sum(one["answered"] for one in seen), "failed": sum(len(one["failed"]) for one in seen)}


def rollback() -> float:
    """What the program does beside the load: the old server's stop, the links, the gate's questions."""
    started = time.monotonic()
    subprocess.run([PROGRAM, "run", "--instance", "main", "--to", "previous"], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started - float(json.loads(JOURNAL.read_text())["gate"]["load_seconds"])


def settings(environment: str) -> dict[str, str]:
    """What an environment file of a deployment says, as systemd reads it."""
    found = {}
    for line in Path(environment).read_text().splitlines():
        name, _equals, value = line.partition("=")
        found[name] = re.sub(r'\\([\\"$`])', r"\1", value[1:-1]) if value.startswith('"') else value
    return found


def speed(environment: str, model: str) -> dict[str, float]:
    told = settings(environment) if environment else {}
    arguments = shlex.split(told.pop("LLAMACPP_ARGS", ""))
    # With its defaults the engine aborts on a processor with AMX, for which the plan has switched repacking off.
    if not environment and settings(str(INSTANCE / "current/server.env")).get("LLAMA_ARG_REPACK") == "0":
        arguments = ["--no-repack"]
    # Given last and by flag, so that both serve the same model at the same place.
    command = [str(INSTANCE / "current/engine/bin/llama-server"), *arguments, "-m", model, "--host", "127.0.0.1", "--port", str(OTHER_PORT)]
    environ = {**{name: value for name, value in os.environ.items() if not name.startswith("LLAMA")}, **told}
    with subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            healthy(OTHER_PORT, lambda: server.poll() is None)
            body = {"n_predict": TOKENS, "temperature": 0, "ignore_eos": True, "cache_prompt": False}
            timings = []
            for number in range(REPEATS + 1):
                prompt = [300 + (7 * position + number) % 700 for position in range(PROMPT_TOKENS)]
                timings.append(ask(OTHER_PORT, "/completion", {**body, "prompt": prompt})["timings"])
        finally:
            server.terminate()
            server.wait()
    return {
        kind: statistics.median(timing[f"{name}_per_second"] for timing in timings[1:])
        for kind, name in (("gen", "predicted"), ("prompt", "prompt"))
    }


def main() -> None:
    what, *more = sys.argv[1:]
    found = {"evict": evict, "load": load, "gap": gap, "overlap": overlap, "rollback": rollback, "speed": speed}[what](*more)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
