# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares the memory model with an engine on a host, over the combinations of benchmarks/fit.yml.

The headers of the shapes go to the host over SSH with a program that asks its engine; the model is asked here.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import plays
import shapes
import yaml

from ansible_collections.onprem.llamacpp.plugins.module_utils import _gguf, _memory_model, _profile

ROOT = Path(__file__).resolve().parents[2]
MIB = 2**20
PACKAGED_RPC_SERVER = "/usr/libexec/x86_64-linux-gnu/llama/bin/ggml-rpc-server"


class Engine(NamedTuple):
    """A host's address, the SSH key, and the engine's programs there."""

    address: str
    key: str
    fit_params: str
    rpc_server: str


class Difference(NamedTuple):
    """Ours less the engine's on one device, in MiB; the engine's total with it. It rounds down to whole MiB."""

    combination: dict[str, Any]
    device: int
    weights: float
    context: float
    total: float
    engine_total: int

    @property
    def percent(self) -> float:
        """How far the total is off, where it is by more than 256 MiB."""
        return 100 * abs(self.total) / self.engine_total if abs(self.total) > 256 else 0.0


def combinations(quick: bool = False, devices: Sequence[str] = ("rpc", "vulkan")) -> list[dict[str, Any]]:
    listed = yaml.safe_load((ROOT / "benchmarks/fit.yml").read_text())["combinations"]
    return [entry for entry in listed if (entry.get("quick") or not quick) and entry["device"] in devices]


def summary(name: str, header_path: str = "") -> dict[str, Any]:
    """The summary of a shape's header, as it would be read from a repository."""
    shape = shapes.SHAPES[name]
    data, size = shapes.header_bytes(shape), shapes.full_size(shape)
    header, _read = _gguf.read_header(lambda begin, end: [data[begin:end]], size, f"{name}.gguf", _gguf.Budget())
    file = {"path": f"{name}.gguf", "size": size, "header_bytes": len(data), "header": header_path}
    return _profile.profile([file], [header])


def models() -> dict[str, _memory_model.Model]:
    """The model of every shape."""
    return {name: _memory_model.Model(summary(name)) for name in shapes.SHAPES}


def stub_on_controller(name: str, folder: Path) -> dict[str, Any]:
    """The summary of a shape whose header lies in a file of the folder."""
    path = folder / f"{name}.header"
    path.write_bytes(shapes.header_bytes(shapes.SHAPES[name]))
    return summary(name, str(path))


def ask(engine: Engine, listed: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the engine answers to each combination, in order."""
    ssh = ["-i", engine.key, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "fit"
        folder.mkdir()
        sizes = {}
        for name in {entry["shape"] for entry in listed}:
            (folder / f"{name}.gguf").write_bytes(shapes.header_bytes(shapes.SHAPES[name]))
            sizes[f"{name}.gguf"] = shapes.full_size(shapes.SHAPES[name])
        job = {"program": engine.fit_params, "rpc_server": engine.rpc_server, "sizes": sizes, "combinations": list(listed)}
        (folder / "job.json").write_text(json.dumps(job))
        (folder / "fit_probe.py").write_bytes((Path(__file__).parent / "fit_probe.py").read_bytes())
        packed = subprocess.run(["tar", "-C", temporary, "-czf", "-", "fit"], check=True, capture_output=True).stdout
    script = "d=$(mktemp -d) && tar -C $d -xzf - && python3 $d/fit/fit_probe.py; s=$?; rm -rf $d; exit $s"
    command = ["ssh", *ssh, f"root@{engine.address}", script]
    done = subprocess.run(command, input=packed, capture_output=True, timeout=1800, check=False)
    if done.returncode:
        raise RuntimeError(f"the engine on {engine.address} could not be asked: {done.stderr.decode()[-1000:]}")
    return [json.loads(line) for line in done.stdout.decode().splitlines()]


def compare(listed: Sequence[dict[str, Any]], answers: Sequence[dict[str, Any]]) -> list[Difference]:
    """Every device of every combination.

    Raises:
        RuntimeError: the engine did not answer to one of them.
    """
    known, found = models(), []
    for entry, said in zip(listed, answers):
        if said["error"] or len(said["devices"]) != entry["count"]:
            raise RuntimeError(f"{entry}: {said['error'] or said['devices']}")
        setup = _memory_model.Setup(**{"n_gpu_layers": 999, **entry["setup"]})
        ours = _memory_model.memory(known[entry["shape"]], setup, entry["count"])["devices"]
        for number, (share, theirs) in enumerate(zip(ours, said["devices"])):
            found.append(
                Difference(
                    entry,
                    number,
                    share["weights"] / MIB - theirs[0],
                    share["context"] / MIB - theirs[1],
                    sum(share.values()) / MIB - sum(theirs),
                    sum(theirs),
                )
            )
    return found


def exact_fit(
    inventories: Sequence[str], host: str, folder: Path, shape: str, rpc: Sequence[str], gib: Sequence[int], **placement: Any
) -> dict[str, Any]:
    """What the module llama_fit_info answers on a host with a packaged engine, with the headers of a shape on the controller."""
    arguments = {
        "engine": "/usr",
        "header": stub_on_controller(shape, folder),
        "environment": {"LLAMA_ARG_RPC": ",".join(rpc), "GGML_VK_VISIBLE_DEVICES": "", "LLAMA_ARG_CTX_SIZE": str(placement["ctx_size"])},
        "placement": placement,
        "devices": [{"uuid": f"u{number}", "engine_name": f"RPC{number}", "capacity": size * 2**30} for number, size in enumerate(gib)],
    }
    write = {"content": "{{ answer | to_json }}", "dest": str(folder / "answer.json")}
    local = {"delegate_to": "localhost", "become": False, "vars": {"ansible_python_interpreter": "{{ ansible_playbook_python }}"}}
    tasks = [
        {"onprem.llamacpp.llama_fit_info": arguments, "become": True, "register": "answer"},
        {"ansible.builtin.copy": write, **local},
    ]
    (folder / "play.json").write_text(json.dumps([{"hosts": host, "gather_facts": False, "tasks": tasks}]))
    named = [argument for inventory in inventories for argument in ("-i", inventory)]
    command = ["ansible-playbook", *named, str(folder / "play.json")]
    done = subprocess.run(command, cwd=ROOT, env=plays.environment(), capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise RuntimeError(f"llama_fit_info could not be run on {host}:\n{done.stdout[-2000:]}")
    return json.loads((folder / "answer.json").read_text())
