# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks an installed engine what a model would take on the real devices, without the model.

The headers of its shards are laid into a private directory as files of their full size with a hole for the weights;
``llama-fit-params`` sizes them as it would the model. Sizes are bytes, the engine's own figures whole MiB.
"""

from __future__ import annotations

import grp
import json
import os
import pwd
import re
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Optional

from ansible_collections.onprem.llamacpp.plugins.module_utils._memory_model import ALL_EXPERTS, Model, Setup
from ansible_collections.onprem.llamacpp.plugins.module_utils._placement import Found, Shares, as_placement, settle
from ansible_collections.onprem.llamacpp.plugins.module_utils._stub import write_stub

MIB = 2**20
INDEX = "index.json"
# Whoever parses a header that came from elsewhere should own nothing.
USER = "nobody"
DEVICE_GROUPS = ("render", "video")
LINE = re.compile(r"^(?P<device>\S+) (?P<weights>\d+) (?P<context>\d+) (?P<compute>\d+)\s*$", re.MULTILINE)
# Decided anew for every question, or of no meaning without a server.
PLACEMENT = ("LLAMA_ARG_N_GPU_LAYERS", "LLAMA_ARG_N_CPU_MOE", "LLAMA_ARG_CPU_MOE", "LLAMA_ARG_TENSOR_SPLIT", "LLAMA_ARG_MODEL")


class FitError(Exception):
    """Why the engine could not be asked, in one sentence."""


def pack(files: Sequence[dict[str, Any]], target: str) -> None:
    """Puts the headers of a model's shards into one archive.

    Args:
        files: ``{path, size, header}``: name, full size in bytes, and the local file with the header's bytes.
        target: path of the archive.
    """
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        index = [{"name": os.path.basename(file["path"]), "size": file["size"]} for file in files]
        archive.writestr(INDEX, json.dumps(index))
        for entry, file in zip(index, files):
            archive.write(file["header"], entry["name"])


def unpack(archive_path: str, folder: str) -> str:
    """Lays the stubs of an archive into a folder and returns the path of the first shard.

    Raises:
        FitError: the filesystem writes holes out, or the archive is none of ours.
    """
    try:
        with zipfile.ZipFile(archive_path) as archive:
            index = json.loads(archive.read(INDEX))
            for entry in index:
                path, header = os.path.join(folder, os.path.basename(entry["name"])), archive.read(entry["name"])
                write_stub(header, int(entry["size"]), path, 0o444)
                if os.stat(path).st_blocks * 512 > len(header) + MIB:
                    raise FitError(f"the filesystem of {folder} does not keep holes, so no stub can be laid there")
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise FitError(f"the stub could not be laid into {folder}: {error}") from error
    return os.path.join(folder, os.path.basename(index[0]["name"]))


@contextmanager
def private_folder(parent: str) -> Iterator[str]:
    """A folder for nobody's eyes, beneath the nearest folder that there is, gone afterwards."""
    while not os.path.isdir(parent):
        parent = os.path.dirname(parent)
    folder = tempfile.mkdtemp(prefix=".fit-", dir=parent)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def hand_over(folder: str) -> None:
    """Lets the engine in, once nothing more is written there by anyone else."""
    if os.geteuid() == 0:
        os.chown(folder, pwd.getpwnam(USER).pw_uid, -1)


def _identity() -> dict[str, Any]:
    """What makes a process run as nobody who may still open the devices."""
    if os.geteuid() != 0:
        return {}
    groups = [group.gr_gid for group in grp.getgrall() if group.gr_name in DEVICE_GROUPS]
    who = pwd.getpwnam(USER)
    return {"user": who.pw_uid, "group": who.pw_gid, "extra_groups": groups}


def placement_environment(setup: Setup) -> dict[str, str]:
    """The variables that tell an engine a placement."""
    found = {"LLAMA_ARG_N_GPU_LAYERS": str(setup.n_gpu_layers)}
    if setup.n_cpu_moe == ALL_EXPERTS:
        found["LLAMA_ARG_CPU_MOE"] = "1"
    elif setup.n_cpu_moe:
        found["LLAMA_ARG_N_CPU_MOE"] = str(setup.n_cpu_moe)
    if setup.tensor_split:
        found["LLAMA_ARG_TENSOR_SPLIT"] = ",".join(f"{share:g}" for share in setup.tensor_split)
    return found


class Engine:
    """An installed llama-fit-params with the environment that the server will get."""

    def __init__(self, program: str, environment: dict[str, str], home: str, timeout: float) -> None:
        self.program = program
        self.timeout = timeout
        kept = {key: value for key, value in environment.items() if key not in PLACEMENT}
        self.environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "HOME": home, **kept}

    def ask(self, model: str, setup: Setup, names: Sequence[str]) -> Shares:
        """What a placement takes on the devices, in the order of their names.

        Raises:
            FitError: the engine does not answer, or not about these devices.
        """
        argv = [self.program, "--model", model, "--fit", "off", "--fit-print", "on"]
        try:
            done = subprocess.run(
                argv,
                capture_output=True,
                timeout=self.timeout,
                check=False,
                stdin=subprocess.DEVNULL,
                env={**self.environment, **placement_environment(setup)},
                cwd=self.environment["HOME"],
                **_identity(),
            )
        except subprocess.TimeoutExpired as error:
            raise FitError(f"{self.program} did not answer within {self.timeout:.0f} s") from error
        except OSError as error:
            raise FitError(f"{self.program} cannot be run: {error.strerror}") from error
        found = parse(done.stdout.decode(errors="replace"))
        if done.returncode or not found:
            said = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
            raise FitError(f"{self.program} failed ({done.returncode}): {said[-1].strip()[:300] if said else 'no message'}")
        missing = [name for name in names if name not in found]
        if missing:
            raise FitError(f"{self.program} says nothing of {', '.join(missing)}: it sees {', '.join(found)}")
        return [found[name] for name in names]


def parse(text: str) -> dict[str, dict[str, int]]:
    """Bytes by device from the lines ``device weights context compute`` in MiB; C(Host) is the engine's own view of it."""
    return {match["device"]: {part: int(match[part]) * MIB for part in ("weights", "context", "compute")} for match in LINE.finditer(text)}


def fit(
    engine: Engine, model_path: str, header: dict[str, Any], setup: Setup, devices: Sequence[dict[str, Any]], search: bool
) -> dict[str, Any]:
    """The best placement by the engine's own figures, as a plan takes it.

    Args:
        engine: what is asked.
        model_path: first shard of the model or of its stub.
        header: summary of the model's header.
        setup: how it is to be run.
        devices: ``{uuid, engine_name, capacity}`` in the engine's order.
        search: look for a better placement, or only size the one given.
    """
    names = [device["engine_name"] for device in devices]
    capacities = [device["capacity"] for device in devices]

    def oracle(proposal: Setup) -> Shares:
        return engine.ask(model_path, proposal, names)

    found: Optional[Found] = settle(Model(header), setup, capacities, oracle) if search else None
    if found is None:
        shares = oracle(setup)
        fits = all(sum(share.values()) <= capacity for share, capacity in zip(shares, capacities))
        found = Found(setup, shares, fits, 1)
    return {
        "fits": found.fits,
        "questions": found.questions,
        "placement": as_placement(found.setup),
        "devices": [
            {"uuid": device.get("uuid", ""), "engine_name": device["engine_name"], **share} for device, share in zip(devices, found.devices)
        ],
    }
