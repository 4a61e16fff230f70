# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet goes to another deployment in rings; what fails goes back by itself, and a later run finishes the rest.

The tests follow one another: each begins with what the one before has left.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from pathlib import Path
from typing import Any

import plays
import pytest
from conftest import HOSTS, INVENTORY, ROOT

RINGS = ["-e", '{"llama_rollout_serial": [1, 1, "100%"]}']
# Holds the switch program of a host in its tracks.
HAND = base64.b64encode((ROOT / "molecule/switch/files/hand.py").read_bytes()).decode()
# The deadline of a gate goes on running while the program is held.
LENIENT = ("-e", "llama_server_gate_grace_seconds=3000")
SLOW = "all: {children: {gpu_hosts: {hosts: {two: {llama_server_gate_min_tokens_per_second: 100000}}}}}\n"


@pytest.fixture(name="roll")
def fixture_roll(play: Any, tmp_path: Path) -> Any:
    """Runs a rollout; its exit status, its output and the results by host."""
    output = tmp_path / "rollout.json"

    def run(quant: str, *arguments: str, **variables: str) -> tuple[Any, dict[str, Any]]:
        output.unlink(missing_ok=True)
        wish = [*RINGS, "-e", f"quant={quant}", "-e", f"llama_rollout_output={output}"]
        done = play(*wish, *arguments, playbook="playbooks/rollout.yml", **variables)
        return done, json.loads(output.read_text())["hosts"] if output.exists() else {}

    return run


@pytest.fixture(name="impatient")
def fixture_impatient(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables for a run that soon notices that a host is gone."""
    return {
        "ANSIBLE_TIMEOUT": "5",
        "ANSIBLE_SSH_ARGS": "-o ControlMaster=auto -o ControlPersist=60s -o ServerAliveInterval=5 -o ServerAliveCountMax=3",
        "ANSIBLE_SSH_CONTROL_PATH_DIR": str(tmp_path_factory.mktemp("ssh")),  # connections of the runs before are more patient
    }


def states(results: dict[str, Any]) -> dict[str, tuple[str, int]]:
    return {name: (result["state"], result["ring"]) for name, result in results.items()}


def test_good_rollout_goes_ring_by_ring(roll: Any, fleet: Any) -> None:
    run, results = roll("UD-TQ1_0", "-e", "llama_rollout_soak=2")
    assert run.status == 0, run.output[-3000:]
    assert states(results) == {"one": ("committed", 1), "two": ("committed", 2), "three": ("committed", 3), "four": ("committed", 3)}
    assert set(fleet.quants().values()) == {"UD-TQ1_0"}
    assert "4 hosts on the new deployment" in run.text
    # Each ring soaks before it is asked once more, and so before the next one begins.
    rings = run.output.split("PLAY [Switch in rings]")[1:]
    assert [ring.partition("Ask the server once more")[0].count("Pausing for 2 seconds") for ring in rings] == [1, 1, 1]


def test_second_run_finds_every_host_proven(roll: Any, fleet: Any) -> None:
    before = fleet.processes()
    run, results = roll("UD-TQ1_0")
    assert run.status == 0, run.output[-3000:]
    assert {result["state"] for result in results.values()} == {"unchanged"}
    assert fleet.processes() == before


def test_deployment_that_fails_at_the_canary_touches_nobody_else(roll: Any, fleet: Any, on_host: Any) -> None:
    before = fleet.processes()
    # With its header read first it would have been refused by the plan.
    run, results = roll("Q8_0", "-e", "llama_plan_read_headers=false")
    assert run.status == 2
    assert states(results) == {"one": ("failed", 1), "two": ("waiting", 0), "three": ("waiting", 0), "four": ("waiting", 0)}
    assert "was not put into service" in results["one"]["reason"]
    assert set(fleet.quants().values()) == {"UD-TQ1_0"}
    after = fleet.processes()
    assert {name for name in HOSTS if after[name] != before[name]} == {"one"}
    # Everybody had the model before the canary's server was touched.
    switch = json.loads(on_host("one").file("/var/lib/llamacpp/instances/main/switch.json").content_string)
    assert switch["to"] == results["one"]["to"]
    for name in HOSTS:
        folder = on_host(name).check_output("dirname /var/lib/llamacpp/models/onprem--Tiny-Kimi-K2-GGUF/*/Q8_0/manifest.json")
        manifest = json.loads(on_host(name).file(f"{folder}/manifest.json").content_string)
        assert {file["name"]: on_host(name).file(f"{folder}/{file['name']}").size for file in manifest["files"]} == {
            file["name"]: file["size"] for file in manifest["files"]
        }
        assert manifest["published_at"] <= switch["started_at"], name


def test_failure_in_the_second_ring_takes_the_first_one_back_when_asked(roll: Any, fleet: Any, tmp_path: Path) -> None:
    slow = tmp_path / "slow.yml"
    slow.write_text(SLOW)
    run, results = roll("UD-Q2_K_XL", "-i", str(slow), "-e", "llama_rollout_on_ring_failure=rollback")
    assert run.status == 2
    assert states(results) == {"one": ("taken back", 1), "two": ("failed", 2), "three": ("waiting", 0), "four": ("waiting", 0)}
    assert "fewer than 100000: llama_server_gate_min_tokens_per_second" in results["two"]["reason"]
    assert set(fleet.quants().values()) == {"UD-TQ1_0"}


def test_failure_in_the_second_ring_leaves_the_first_one_otherwise(roll: Any, fleet: Any, tmp_path: Path) -> None:
    slow = tmp_path / "slow.yml"
    slow.write_text(SLOW)
    run, results = roll("UD-Q2_K_XL", "-i", str(slow))
    assert run.status == 2
    assert {name: result["state"] for name, result in results.items()} == {
        "one": "committed", "two": "failed", "three": "waiting", "four": "waiting",
    }  # fmt: skip
    assert fleet.quants() == {"one": "UD-Q2_K_XL", "two": "UD-TQ1_0", "three": "UD-TQ1_0", "four": "UD-TQ1_0"}


def test_hosts_that_are_off_or_cut_off_midway_are_left_for_the_next_run(
    roll: Any, fleet: Any, on_host: Any, impatient: dict[str, str]
) -> None:
    plays.lab(INVENTORY, "power", "lab_power=off", "four")
    cutter = threading.Thread(target=cut_while_another_switches, args=(on_host("two"), "three"))
    cutter.start()
    try:
        run, results = roll("UD-Q2_K_XL", **impatient)
    finally:
        cutter.join()
        plays.lab(INVENTORY, "link", "lab_link=restore", "three")
        plays.lab(INVENTORY, "power", "lab_power=on", "four")
    assert run.status != 0
    assert {name: result["state"] for name, result in results.items()} == {
        "one": "unchanged", "two": "committed", "three": "failed", "four": "left out",
    }  # fmt: skip
    assert "three cannot be reached any more" in results["three"]["reason"]
    assert results["three"]["ring"] == results["two"]["ring"] + 1
    assert fleet.quants() == {"one": "UD-Q2_K_XL", "two": "UD-Q2_K_XL", "three": "UD-TQ1_0", "four": "UD-TQ1_0"}
    run, results = roll("UD-Q2_K_XL")
    assert run.status == 0, run.output[-3000:]
    assert {name: result["state"] for name, result in results.items()} == {
        "one": "unchanged", "two": "unchanged", "three": "committed", "four": "committed",
    }  # fmt: skip
    assert set(fleet.quants().values()) == {"UD-Q2_K_XL"}


def test_host_that_is_cut_off_inside_its_switch_ends_it_alone(roll: Any, fleet: Any, on_host: Any, impatient: dict[str, str]) -> None:
    three = on_host("three")
    over = threading.Event()
    holder = threading.Thread(target=cut_inside_its_switch, args=(on_host("two"), three, 0, over))
    holder.start()
    try:
        run, results = roll("UD-TQ1_0", "-e", "llama_server_patience=15", *LENIENT, **impatient)
    finally:
        over.set()
        holder.join()
        plays.lab(INVENTORY, "link", "lab_link=restore", "three")
        three.run("python3 /run/hand.py go")
    assert run.status == 2, run.output[-3000:]
    assert states(results) == {"one": ("committed", 1), "two": ("committed", 2), "three": ("switching", 3), "four": ("committed", 3)}
    wish = results["three"]["to"]
    reason = f"three was cut off while it switched to {wish}; it ends that by itself. When it is back, run rollout.yml again,"
    assert " ".join(results["three"]["reason"].split()).startswith(reason)
    assert "1 host was cut off while it switched" in run.text
    for _second in range(600):
        journal = json.loads(three.check_output("/usr/local/libexec/llamacpp/llamacpp-switch status --instance main"))
        if not journal["running"]:
            break
        time.sleep(1)
    assert (journal["state"], journal["current"], journal["serving"]) == ("committed", wish, wish)
    assert set(fleet.quants().values()) == {"UD-TQ1_0"}
    before = fleet.processes()
    run, results = roll("UD-TQ1_0")
    assert run.status == 0, run.output[-3000:]
    assert {result["state"] for result in results.values()} == {"unchanged"}
    assert fleet.processes() == before


def test_link_that_comes_back_in_time_costs_nothing(roll: Any, fleet: Any, on_host: Any, impatient: dict[str, str]) -> None:
    # Long enough for Ansible to lose its connection.
    over = threading.Event()
    holder = threading.Thread(target=cut_inside_its_switch, args=(on_host("two"), on_host("three"), 40, over))
    holder.start()
    try:
        run, results = roll("UD-Q2_K_XL", *LENIENT, **impatient)
    finally:
        over.set()
        holder.join()
        plays.lab(INVENTORY, "link", "lab_link=restore", "three")
    assert run.status == 0, run.output[-3000:]
    assert states(results) == {"one": ("committed", 1), "two": ("committed", 2), "three": ("committed", 3), "four": ("committed", 3)}
    assert set(fleet.quants().values()) == {"UD-Q2_K_XL"}


def cut_while_another_switches(another: Any, name: str) -> None:
    """Cuts a host's link, for good, as soon as the switch of the ring before it has begun."""
    await_the_switch(another, threading.Event())
    plays.lab(INVENTORY, "link", "lab_link=cut", name)


def cut_inside_its_switch(another: Any, three: Any, seconds: int, over: threading.Event) -> None:
    """Holds the switch program of host three and cuts the link, for so many seconds, or for good and held when there are none.

    Gives up when the run is over.
    """
    three.check_output(f"echo {HAND} | base64 -d > /run/hand.py")
    await_the_switch(another, over)
    # It waits a minute for a switch.
    while not three.run("python3 /run/hand.py hold gating").succeeded:
        if over.is_set():
            return
    if seconds:
        three.check_output(f"python3 /run/hand.py release {seconds}")
    plays.lab(INVENTORY, "link", "lab_link=cut", "three")
    if seconds:
        time.sleep(seconds)
        plays.lab(INVENTORY, "link", "lab_link=restore", "three")


def await_the_switch(host: Any, over: threading.Event) -> None:
    """Returns when a host has begun to switch, or the run is over."""
    journal = "/var/lib/llamacpp/instances/main/switch.json"
    before = host.check_output(f"stat -c %i {journal}")
    for _second in range(300):
        if host.check_output(f"stat -c %i {journal}") != before or over.is_set():
            break
        time.sleep(1)
