# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The server's unit as the role renders it from its defaults, by what systemd makes of it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]
UNITS = ROOT / "roles/llama_server/files"


@pytest.fixture(scope="module", name="units")
def fixture_units() -> Path:
    subprocess.run(["ansible-playbook", "scripts/render_units.yml"], cwd=ROOT, check=True, capture_output=True)
    return ROOT / "build" / "units"


def settings(unit: Path) -> dict[str, list[str]]:
    """Every assignment of the service, in order; an empty one takes back what stands before it."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text(encoding="utf-8").splitlines():
        name, equals, value = line.partition("=")
        if not equals or line.startswith("#"):
            continue
        found.setdefault(name, [])
        found[name] = [*found[name], value] if value else []
    return found


@pytest.mark.parametrize(("form", "threshold"), [("cpu", 12), ("numa", 12), ("cuda", 18)])
def test_exposure_stays_below_its_bar(units, form, threshold):
    unit = units / form / "llamacpp@.service"
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", f"--threshold={threshold}", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-500:] + done.stderr


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        pytest.param("cpu", {"PrivateDevices": "yes", "MemoryDenyWriteExecute": "yes", "ProcSubset": "pid"}, id="cpu-is-closed"),
        pytest.param("numa", {"NUMAPolicy": "interleave", "PrivateDevices": "yes"}, id="numa-by-systemd"),
        pytest.param(
            "cuda",
            {"PrivateDevices": "no", "DevicePolicy": "closed", "DeviceAllow": "char-nvidia* rw", "After": "llamacpp-devices.service"},
            id="cuda-by-allow-list",
        ),
    ],
)
def test_form_has_what_it_needs_and_no_more(units, form, expected):
    found = settings(units / form / "llamacpp@.service")
    assert {name: found[name][-1] for name in expected} == expected


# What the documents promise of every server. Lists are whole: what comes later only adds to them.
PROMISED = {
    # No swapping of weights, no dump of prompts, and the first to go when memory runs out.
    "MemorySwapMax": ["0"],
    "LimitCORE": ["0"],
    "OOMScoreAdjust": ["500"],
    "OOMPolicy": ["stop"],
    # One that keeps dying is tried a few times, and then stays down.
    "Restart": ["on-failure"],
    "RestartSec": ["10"],
    "StartLimitBurst": ["5"],
    "StartLimitIntervalSec": ["6h"],
    # A static user with no rights and a credential for its keys, who writes to one place.
    "User": ["llamacpp"],
    "Group": ["llamacpp"],
    "LoadCredential": ["api-keys:/etc/llamacpp/instances/%i/api-keys"],
    "ProtectSystem": ["strict"],
    "CacheDirectory": ["llamacpp/%i"],
    "InaccessiblePaths": ["-/etc/llama.cpp"],
    "NoNewPrivileges": ["yes"],
    "CapabilityBoundingSet": [],
    "AmbientCapabilities": [],
    "RequiresMountsFor": [
        "/opt/llamacpp/releases/b11549-{backend}-x86_64-00000000"
        " /var/lib/llamacpp/models/unsloth--Kimi-K2-Instruct-GGUF/0000000000000000000000000000000000000000/UD-Q2_K_XL"
    ],
}
# Any limit would end every load, as the weights are mapped.
NEVER = {"MemoryMax", "MemoryHigh", "DynamicUser", "ReadWritePaths", "SupplementaryGroups", "RootDirectory"}


@pytest.mark.parametrize(("form", "backend"), [("cpu", "cpu"), ("numa", "cpu"), ("cuda", "cuda")])
def test_every_form_has_what_is_promised(units, form, backend):
    found = settings(units / form / "llamacpp@.service")
    assert {name: found.get(name) for name in PROMISED} == {
        name: [value.format(backend=backend) for value in values] for name, values in PROMISED.items()
    }
    assert not NEVER & set(found)
    assert "--api-key-file ${CREDENTIALS_DIRECTORY}/api-keys" in found["ExecStart"][0]


def test_nodes_of_the_driver_are_made_before_the_server_starts(units):
    nodes = settings(UNITS / "llamacpp-devices.service")
    assert "-/usr/bin/nvidia-modprobe -c 0 -u" in nodes["ExecStart"]  # nvidia-uvm, which a server may open and not make
    assert nodes["Type"] == ["oneshot"]
    for form in ("cpu", "numa", "cuda"):
        found = settings(units / form / "llamacpp@.service")
        for name in ("Wants", "After"):  # without the first nothing starts it, without the second the server would not wait
            words = " ".join(found[name]).split()
            assert ("llamacpp-devices.service" in words) is (form == "cuda"), (form, name)


@pytest.mark.parametrize("form", ["cpu", "numa", "cuda"])
def test_every_form_may_use_one_port_and_waits_for_its_disks(units, form):
    found = settings(units / form / "llamacpp@.service")
    assert (found["SocketBindDeny"], found["SocketBindAllow"]) == (["any"], ["tcp:8080"])
    assert found["RequiresMountsFor"][0].split()[1].startswith("/var/lib/llamacpp/models/")
    assert found["IPAddressAllow"] == ["localhost"]
    assert "MemoryMax" not in found  # a limit below the weights would end every load
