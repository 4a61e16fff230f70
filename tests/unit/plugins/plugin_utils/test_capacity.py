# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a plan may fill of a host, on hosts of every kind."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.onprem.llamacpp.plugins.plugin_utils._capacity import GRAIN, capacity

GIB = 2**30
SETTINGS = {"instance": "main", "ram_reserve": 4 * GIB, "vram_margin": GIB, "model_root": "/models"}


def card(total_gib: float, **more: Any) -> dict[str, Any]:
    base = {"uuid": "GPU-0", "kind": "cuda", "engine_name": "CUDA0", "name": "card", "pci_address": "00000000:01:00.0"}
    return {**base, "total": int(total_gib * GIB), "foreign": 0, **more}


def facts(*devices: dict[str, Any], ram_gib: float = 64, **more: Any) -> dict[str, Any]:
    return {"memory": {"total": int(ram_gib * GIB)}, "devices": list(devices), **more}


def neighbour(fit: str) -> dict[str, Any]:
    share = {"uuid": "GPU-0", "weights": 3 * GIB, "context": GIB, "compute": GIB}
    host = {"weights": 20 * GIB, "context": 0, "compute": GIB, "cache": GIB}
    return {"name": "second", "active": "active", "plan": {"fit": fit, "memory": {"devices": [share], "host": host}}}


@pytest.mark.parametrize(
    ("host", "vram", "ram"),
    [
        pytest.param(facts(card(16)), 15, 60, id="margin and reserve"),
        pytest.param(facts(card(16, foreign=14 * GIB)), 1, 60, id="a stranger holds most of the device"),
        pytest.param(facts(card(16, foreign=16 * GIB)), 0, 60, id="a stranger holds all of it"),
        pytest.param(facts(card(16), instances=[neighbour("resident")]), 10, 38, id="another instance holds its part of both"),
        pytest.param(facts(card(16), instances=[neighbour("streaming")]), 10, 58, id="mapped weights of another can be read again"),
        pytest.param(facts(card(16), instances=[{**neighbour("resident"), "active": "inactive"}]), 15, 60, id="it does not run"),
        pytest.param(facts(card(16), instances=[{**neighbour("resident"), "name": "main"}]), 15, 60, id="the one that is replaced"),
        pytest.param(facts(card(128, unified=True), ram_gib=128), 124, 124, id="memory that is shared with the host"),
        pytest.param(
            {**facts(), "memory": {"total": 64 * GIB, "cgroup_limit": 32 * GIB}}, 0, 28, id="a control group limits the host's memory"
        ),
        pytest.param(facts(ram_gib=2), 0, 0, id="less than is to be kept free"),
    ],
)
def test_capacity(host, vram, ram):
    found = capacity(host, SETTINGS)
    assert (found.vram, found.ram) == (vram * GIB, ram * GIB)


def test_capacities_come_in_grains():
    found = capacity(facts(card(15.123), ram_gib=63.77), SETTINGS)
    assert found.ram % GRAIN == 0
    assert all(device["capacity"] % GRAIN == 0 for device in found.devices)


def test_of_mig_instances_the_largest_is_planned():
    parts = [card(size, uuid=f"MIG-{size}", mig_parent="GPU-0", name=f"MIG {size}g") for size in (10, 40, 20)]
    found = capacity(facts(*parts), SETTINGS)
    assert [device["uuid"] for device in found.devices] == ["MIG-40"]
    assert any("MIG 40g of 3 is planned" in note for note in found.notes)


def test_a_mig_instance_that_a_stranger_holds_is_not_taken():
    parts = [card(20, uuid=f"MIG-{number}", mig_parent="GPU-0", foreign=held * GIB) for number, held in enumerate((19, 0, 3))]
    assert [device["uuid"] for device in capacity(facts(*parts), SETTINGS).devices] == ["MIG-1"]


def test_who_holds_a_device_is_named():
    held = [
        {"pid": 4242, "name": "python3", "bytes": 14 * 10**9, "ours": False},
        {"pid": 1, "name": "llama-server", "bytes": 1, "ours": True},
    ]
    found = capacity(facts(card(16, foreign=14 * 10**9, processes=held)), SETTINGS)
    assert found.notes == ["CUDA0: 14.0 GB of 17.2 GB are held by other programs: python3 (PID 4242) 14.0 GB; to have it back: kill 4242"]


def test_a_device_without_a_driver_is_planned_by_its_address():
    found = capacity(facts(card(16, uuid="", driver=False, name="Tesla T4")), SETTINGS)
    assert found.devices[0]["uuid"] == "00000000:01:00.0"
    assert "Tesla T4 at 00000000:01:00.0 has no driver yet: planned by its type" in found.notes


@pytest.mark.parametrize(
    ("disk", "speed"),
    [
        pytest.param({"sequential_read": 5 * 10**9, "rotational": False}, 5 * 10**9, id="measured"),
        pytest.param({"sequential_read": None, "rotational": True}, 150 * 10**6, id="rotating"),
        pytest.param({}, 2 * 10**9, id="unknown"),
    ],
)
def test_disk_speed(disk, speed):
    assert capacity(facts(disks=[{"path": "/models", **disk}]), SETTINGS).disk_bandwidth == speed
