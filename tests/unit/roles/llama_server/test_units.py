# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The server's unit as the role renders it from its defaults, by what systemd makes of it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]


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


@pytest.mark.parametrize("form", ["cpu", "numa", "cuda"])
def test_every_form_may_use_one_port_and_waits_for_its_disks(units, form):
    found = settings(units / form / "llamacpp@.service")
    assert (found["SocketBindDeny"], found["SocketBindAllow"]) == (["any"], ["tcp:8080"])
    assert found["RequiresMountsFor"][0].split()[1].startswith("/var/lib/llamacpp/models/")
    assert found["IPAddressAllow"] == ["localhost"]
    assert "MemoryMax" not in found  # a limit below the weights would end every load
