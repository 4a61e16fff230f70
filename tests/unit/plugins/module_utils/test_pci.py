# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cards on the PCI bus, read from folders as sysfs has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.onprem.llamacpp.plugins.module_utils import _gpu_models, _hardware, _pci

MIB = 2**20
GB = 10**9
HOST_MEMORY = 64 * 2**30
NO_TOOL = (127, "", "nvidia-smi: No such file or directory")


def card(bus: Path, address: str, pci_id: str, vendor: str = "10de", driver: str = "", kind: str = "0x030200", **more: str) -> None:
    folder = bus / address
    folder.mkdir(parents=True)
    values = {"vendor": f"0x{vendor}", "device": f"0x{pci_id}", "class": kind, "numa_node": "-1", **more}
    for name, value in values.items():
        (folder / name).write_text(value + "\n")
    if driver:
        (bus.parent / "drivers" / driver).mkdir(parents=True, exist_ok=True)
        (folder / "driver").symlink_to(bus.parent / "drivers" / driver)


@pytest.fixture
def bus(tmp_path: Path) -> Path:
    (tmp_path / "devices").mkdir()
    return tmp_path / "devices"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("00000000:1E:00.0", "0000:1e:00.0", id="nvidia-smi"),
        pytest.param("0000:1E:00.0", "0000:1e:00.0", id="in its messages"),
        pytest.param("0000000F:01:00.0", "000f:01:00.0", id="domain"),
        pytest.param("00010000:01:00.0", "10000:01:00.0", id="domain of five digits"),
        pytest.param("[N/A]", "[n/a]", id="none"),
    ],
)
def test_addresses_are_written_as_the_kernel_does(text: str, expected: str) -> None:
    assert _pci.address(text) == expected


def test_cards_of_a_host(bus: Path) -> None:
    link = {"current_link_speed": "8.0 GT/s PCIe", "max_link_speed": "16.0 GT/s PCIe", "current_link_width": "8", "max_link_width": "16"}
    card(bus, "0000:3b:00.0", "1eb8", driver="nvidia", numa_node="1", **link)
    card(bus, "0000:3b:00.1", "10f0", kind="0x040300")
    card(bus, "0000:00:02.0", "56c0", vendor="8086", kind="0x030000")
    card(bus, "0000:3c:00.4", "20f1", physfn="the card that it is a part of")
    assert _pci.scan(str(bus)) == [
        {
            "pci_address": "0000:00:02.0",
            "vendor": "8086",
            "pci_id": "56c0",
            "driver": "",
            "numa_node": -1,
            "pcie": {"generation": 0, "width": 0, "max_generation": 0, "max_width": 0},
        },
        {
            "pci_address": "0000:3b:00.0",
            "vendor": "10de",
            "pci_id": "1eb8",
            "driver": "nvidia",
            "numa_node": 1,
            "pcie": {"generation": 3, "width": 8, "max_generation": 4, "max_width": 16},
        },
    ]
    assert _pci.scan(str(bus / "nothing")) == []


@pytest.mark.parametrize(
    ("pci_id", "driver", "expected", "warning"),
    [
        pytest.param("1eb8", "", ("Tesla T4", 15360 * MIB, "7.5", 320 * GB, False), "no driver serves Tesla T4 0000:3b:00.0", id="t4"),
        pytest.param(
            "2684", "nouveau", ("NVIDIA GeForce RTX 4090", 24564 * MIB, "8.9", 1008 * GB, False), "no driver serves", id="nouveau"
        ),
        pytest.param("2e12", "", ("NVIDIA GB10", HOST_MEMORY, "12.1", 273 * GB, True), "no driver serves", id="shares the host's memory"),
        pytest.param("20b2", "vfio-pci", None, "kept for a virtual machine by vfio-pci", id="passed on"),
        pytest.param("ffff", "", None, "its model is not known", id="unknown model"),
    ],
)
def test_card_without_a_driver(bus: Path, pci_id: str, driver: str, expected: Any, warning: str) -> None:
    card(bus, "0000:3b:00.0", pci_id, driver=driver)
    devices, warnings = _hardware.cuda_devices(_pci.scan(str(bus)), HOST_MEMORY, lambda argv: NO_TOOL)
    found = [(entry["name"], entry["total"], entry["compute_capability"], entry["bandwidth"], entry["unified"]) for entry in devices]
    assert found == ([expected] if expected else [])
    assert all((entry["driver"], entry["uuid"], entry["pci_address"]) == (False, "", "0000:3b:00.0") for entry in devices)
    assert len(warnings) == 1 and warning in warnings[0]


def test_a_tool_that_hangs_leaves_what_the_bus_tells(bus: Path) -> None:
    card(bus, "0000:3b:00.0", "1eb8", driver="nvidia")
    hangs = (124, "", "nvidia-smi did not answer within 20 s")
    devices, warnings = _hardware.cuda_devices(_pci.scan(str(bus)), HOST_MEMORY, lambda argv: hangs)
    assert [(entry["name"], entry["driver"]) for entry in devices] == [("Tesla T4", False)]
    assert "did not answer" in warnings[0] and "no driver serves" in warnings[1]


def answers(rows: str) -> Any:
    return lambda argv: (0, rows if "query-gpu" in argv[1] else "", "")


ROW = "GPU-1, Tesla T4, 15360, 00000000:3B:00.0, 0x1EB810DE, 550, 7.5, [N/A], Enabled, 70.00, 1, 8, 3, 16\n"


def test_a_device_has_its_node_from_the_bus(bus: Path) -> None:
    card(bus, "0000:3b:00.0", "1eb8", driver="nvidia", numa_node="1")
    devices, warnings = _hardware.cuda_devices(_pci.scan(str(bus)), HOST_MEMORY, answers(ROW))
    assert [(entry["uuid"], entry["numa_node"]) for entry in devices] == [("GPU-1", 1)]
    assert warnings == []


@pytest.mark.parametrize(
    ("rows", "count"),
    [
        pytest.param(ROW, 1, id="left out"),
        pytest.param(ROW + "Unable to determine the device handle for GPU 0000:5E:00.0: Unknown Error\n", 1, id="told as lost"),
    ],
)
def test_a_gpu_that_fell_off_the_bus_is_told_once(bus: Path, rows: str, count: int) -> None:
    for address in ("0000:3b:00.0", "0000:5e:00.0"):
        card(bus, address, "1eb8", driver="nvidia")
    devices, warnings = _hardware.cuda_devices(_pci.scan(str(bus)), HOST_MEMORY, answers(rows))
    assert len(devices) == 1
    assert len(warnings) == count and "0000:5e:00.0" in warnings[0] and "not planned" in warnings[0]


def test_other_makers_are_reported_by_name(bus: Path, tmp_path: Path) -> None:
    card(bus, "0000:00:02.0", "56c0", vendor="8086", kind="0x038000")
    card(bus, "0000:c1:00.0", "74a1", vendor="1002", kind="0x120000")
    card(bus, "0000:3b:00.0", "1eb8")
    names = tmp_path / "pci.ids"
    names.write_text("# list\n1002  AMD\n\t74a1  Aqua Vanjaram [Instinct MI300X]\n\t\t1002 74a1  board\n8086  Intel\n\t56c1  other\n")
    cards = _pci.scan(str(bus))
    assert [tuple(entry.values()) for entry in _pci.others(cards, (str(tmp_path / "none"), str(names)))] == [
        ("intel", "", "0000:00:02.0", "8086:56c0"),
        ("amd", "Aqua Vanjaram [Instinct MI300X]", "0000:c1:00.0", "1002:74a1"),
    ]


@pytest.mark.parametrize(
    ("pci_id", "name", "expected"),
    [
        pytest.param("1DB5", "", "Tesla V100-SXM2-32GB", id="id in capitals"),
        pytest.param("", "A100-SXM4-80GB", "NVIDIA A100-SXM4-80GB", id="name without a brand"),
        pytest.param("", "GeForce RTX 3090", "NVIDIA GeForce RTX 3090", id="name of an older driver"),
        pytest.param("0000", "NVIDIA A10G", "NVIDIA A10G", id="unknown id, known name"),
        pytest.param("1b38", "", "Tesla P40", id="Pascal"),
        pytest.param("", "NVIDIA GeForce GTX 1080 Ti", "GeForce GTX 1080 Ti", id="Pascal by its name"),
        pytest.param("ffff", "NVIDIA X1", None, id="neither"),
    ],
)
def test_models_are_found_by_id_or_name(pci_id: str, name: str, expected: str | None) -> None:
    model = _gpu_models.find(pci_id, name)
    assert (model.name if model else None) == expected


def test_models_are_complete() -> None:
    for pci_id, model in _gpu_models.BY_ID.items():
        assert len(pci_id) == 4 and int(pci_id, 16), model.name
        assert model.total or model.name == "NVIDIA GB10"
        assert 5.2 <= float(model.compute_capability) <= 12.1 and 100 * GB < model.bandwidth <= 8000 * GB, model.name
