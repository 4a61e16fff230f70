# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands on every host after site.yml, and how it behaves."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import INVENTORY, MIRROR, ROOT, Server
from plays import environment

STATE = "/var/lib/llamacpp/instances/main"


def document(host: Any, path: str) -> dict[str, Any]:
    return json.loads(host.file(path).content_string)


def current(host: Any) -> str:
    return host.check_output("readlink /etc/llamacpp/instances/main/current").rsplit("/", 1)[-1]


def test_the_host_is_whole(host: Any) -> None:
    assert host.check_output("systemctl is-system-running") == "running"
    assert host.service("llamacpp@main").is_running
    assert host.service("llamacpp@main").is_enabled


def test_it_answers_the_same_twice(server: Server) -> None:
    first = server.complete()
    assert first.strip()
    assert server.complete() == first


def test_only_health_is_open(server: Server) -> None:
    assert server.get("/health") == 200
    assert server.get("/v1/models") == 401
    assert server.get("/v1/models", "wrong") == 401
    assert server.get("/v1/models", server.key) == 200


def test_the_key_is_nowhere_but_in_its_file(host: Any, server: Server) -> None:
    keys = host.file("/etc/llamacpp/instances/main/api-keys")
    assert (keys.user, keys.group, keys.mode) == ("root", "root", 0o600)
    places = [
        "systemctl show llamacpp@main",
        "ps axww -o args",
        "journalctl --no-pager",
        "cat /proc/$(systemctl show -p MainPID --value llamacpp@main)/environ",
        "cat /etc/llamacpp/instances/*/current/server.env",
        "find /etc/llamacpp /var/lib/llamacpp -name '*.json' -exec cat {} +",
    ]
    assert server.key not in host.run("; ".join(places)).stdout


def test_three_shards_are_published_whole(host: Any) -> None:
    folder = host.check_output("readlink -f /etc/llamacpp/instances/main/current/model")
    manifest = document(host, f"{folder}/manifest.json")
    assert [entry["name"] for entry in manifest["files"]] == [f"Tiny-Kimi-K2-UD-Q2_K_XL-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    assert sorted(host.file(folder).listdir()) == sorted([entry["name"] for entry in manifest["files"]] + ["manifest.json"])
    for entry in manifest["files"]:
        file = host.file(f"{folder}/{entry['name']}")
        assert (file.sha256sum, file.size, file.user, file.mode) == (entry["sha256"], entry["size"], "root", 0o644)


def test_the_deployment_is_committed_and_proven(host: Any) -> None:
    identifier = current(host)
    journal = document(host, f"{STATE}/switch.json")
    assert (journal["state"], journal["to"]) == ("committed", identifier)
    gate = document(host, f"{STATE}/{identifier}/gate.json")
    assert gate["tokens_per_second"] > 0


@pytest.mark.parametrize("name", ["trixie", "forky"])
def test_experts_stay_on_the_cpu_as_told_and_the_rest_is_on_the_device(name: str, on_host: Any) -> None:
    host = on_host(name)
    device = {"trixie": "RPC0", "forky": "Vulkan0"}[name]
    plan = document(host, f"{STATE}/{current(host)}/plan.json")
    assert (plan["placement"]["n_gpu_layers"], plan["placement"]["n_cpu_moe"]) == (99, 3)
    assert [entry["engine_name"] for entry in plan["devices"]] == [device]
    log = host.check_output("journalctl --no-pager -o cat -u llamacpp@main")
    assert "offloaded 6/6 layers to GPU" in log
    actual = document(host, f"{STATE}/{current(host)}/actual.json")
    on_device = {buffer: sizes for buffer, sizes in actual["buffers"].items() if buffer.startswith(device)}
    on_cpu = {buffer: sizes for buffer, sizes in actual["buffers"].items() if buffer.startswith("CPU") or buffer.endswith("_Host")}
    assert len(on_device) == 1
    (sizes,) = on_device.values()
    # Keys only, 576 values of two bytes a token and layer.
    assert sizes["KV"] == 2048 * 5 * 576 * 2
    # The experts of layers 1 and 2 are in host memory; the device holds more than the experts of layers 3 and 4.
    experts = 2 * 3 * 512 * 512 * 16 * 84 // 256
    assert sizes["model"] > experts
    assert sum(entry.get("model", 0) for entry in on_cpu.values()) >= experts


def test_the_unit_gives_an_attacker_little(host: Any) -> None:
    process = host.check_output("systemctl show -p MainPID --value llamacpp@main")
    assert host.check_output(f"stat -c %U /proc/{process}") == "llamacpp"
    # Shader compilers cost what CUDA costs; the other forms are closed further.
    compiles = host.file("/etc/llamacpp/instances/main/current/unit.conf").contains("SHADER_CACHE")
    assert host.run(f"systemd-analyze security --threshold={18 if compiles else 12} llamacpp@main").rc == 0


def test_engines_came_as_their_hosts_wished(on_host: Any) -> None:
    builds = {}
    for name in ("trixie", "bookworm", "forky"):
        builds[name] = document(on_host(name), "/etc/llamacpp/instances/main/current/engine/build.json")
    assert builds["trixie"]["build_id"] == builds["bookworm"]["build_id"]
    assert builds["trixie"]["source"]["kind"] == "git"
    assert not on_host("trixie").exists("cmake")
    assert builds["forky"]["packages"]["llama.cpp-tools"]
    assert "llama.cpp-tools" in on_host("forky").check_output("apt-mark showhold")
    for build in builds.values():
        flags = {name for option in build["capabilities"]["options"] for name in option["names"]}
        assert {"--model", "--n-cpu-moe", "--load-mode"} <= flags


def test_facts_of_a_serving_host(tmp_path: Path) -> None:
    command = ["ansible", "-i", INVENTORY, "forky", "--become", "--tree", str(tmp_path), "-m", "onprem.llamacpp.hardware_facts"]
    subprocess.run(command, cwd=ROOT, env=environment(), check=True, timeout=120, stdout=subprocess.DEVNULL)
    hardware = json.loads((tmp_path / "forky").read_text())["ansible_facts"]["llama_hardware"]
    assert [(entry["name"], entry["committed"], entry["healthy"]) for entry in hardware["instances"]] == [("main", True, True)]
    assert [(entry["quant"], entry["complete"]) for entry in hardware["models"]] == [("UD-Q2_K_XL", True)]
    assert [entry["intact"] for entry in hardware["engines"]] == [True]
    assert [entry["program"] for entry in hardware["listeners"]] == ["llama-server"]


def test_unmodified_clients_get_the_same_files_from_the_mirror(tmp_path: Path, on_host: Any) -> None:
    environment = {**os.environ, "HF_ENDPOINT": MIRROR, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path / "home")}
    target = tmp_path / "model"
    command = ["hf", "download", "onprem/Tiny-Kimi-K2-GGUF", "--include", "UD-Q2_K_XL/*", "--local-dir", str(target)]
    subprocess.run(command, env=environment, check=True, timeout=300, stdout=subprocess.DEVNULL)
    manifest = document(on_host("trixie"), "/etc/llamacpp/instances/main/current/model/manifest.json")
    for entry in manifest["files"]:
        assert hashlib.sha256((target / entry["path"]).read_bytes()).hexdigest() == entry["sha256"]
    first = manifest["files"][0]
    url = f"{MIRROR}/onprem/Tiny-Kimi-K2-GGUF/resolve/main/{first['path']}"
    part = subprocess.run(["curl", "-sfL", "-r", "100-199", url], check=True, capture_output=True, timeout=60).stdout
    assert part == (target / first["path"]).read_bytes()[100:200]
