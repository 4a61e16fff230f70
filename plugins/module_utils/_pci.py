# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Graphics and compute cards as the PCI bus shows them in sysfs, with or without a driver."""

from __future__ import annotations

import glob
import os
import re
from typing import Any

from ansible_collections.onprem.llamacpp.plugins.module_utils import _gpu_models
from ansible_collections.onprem.llamacpp.plugins.module_utils._device import device
from ansible_collections.onprem.llamacpp.plugins.module_utils._host import read_text

DEVICES = "/sys/bus/pci/devices"
NAMES = ("/usr/share/misc/pci.ids", "/usr/share/hwdata/pci.ids")

NVIDIA = "10de"
KEPT = ("vfio", "pci-stub")  # drivers that keep a card for virtual machines
OTHERS = {"1002": "amd", "8086": "intel"}
# Class codes: VGA, 3D, other display controllers, processing accelerators.
_CARDS = ("0x0300", "0x0302", "0x0380", "0x1200")

# Transfers per second of one lane, and the generation of PCI Express that has them.
_GENERATIONS = {"2.5": 1, "5.0": 2, "5": 2, "8.0": 3, "16.0": 4, "32.0": 5, "64.0": 6}


def address(text: str) -> str:
    """A PCI address as the kernel writes it: V(0000:1e:00.0) for nvidia-smi's V(00000000:1E:00.0) or V(0000:1E:00.0)."""
    text = text.strip().lower()
    found = re.match(r"0*([0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])$", text)
    return found[1] if found else text


def _generation(speed: str) -> int:
    return _GENERATIONS.get(speed.partition(" ")[0], 0)


def _number(text: str, unknown: int) -> int:
    text = text.strip()
    return int(text) if re.match(r"-?\d+$", text) else unknown


def scan(root: str = DEVICES) -> list[dict[str, Any]]:
    """Every card on the bus: address, vendor and id (four hex digits), the driver bound to it, NUMA node, link."""
    cards = []
    for folder in sorted(glob.glob(os.path.join(root, "*"))):

        def value(name: str, folder: str = folder) -> str:
            return read_text(os.path.join(folder, name)).strip()

        # A virtual function belongs to the card that it is a part of.
        if not value("class").startswith(_CARDS) or os.path.exists(os.path.join(folder, "physfn")):
            continue
        driver = os.path.join(folder, "driver")
        cards.append(
            {
                "pci_address": os.path.basename(folder),
                "vendor": value("vendor")[2:],
                "pci_id": value("device")[2:],
                "driver": os.path.basename(os.path.realpath(driver)) if os.path.exists(driver) else "",
                "numa_node": _number(value("numa_node"), -1),
                "pcie": {
                    "generation": _generation(value("current_link_speed")),
                    "width": _number(value("current_link_width"), 0),
                    "max_generation": _generation(value("max_link_speed")),
                    "max_width": _number(value("max_link_width"), 0),
                },
            }
        )
    return cards


def undriven(cards: list[dict[str, Any]], host_memory: int) -> tuple[list[dict[str, Any]], list[str]]:
    """NVIDIA cards that could be used with a driver, from their PCI ids, and warnings about those that could not.

    Args:
        cards: what M(scan) found.
        host_memory: bytes; what a card that shares the host's memory is told with.
    """
    devices: list[dict[str, Any]] = []
    warnings = []
    for card in cards:
        if card["vendor"] != NVIDIA:
            continue
        where = f"{card['pci_address']} (10de:{card['pci_id']})"
        model = _gpu_models.find(card["pci_id"])
        if card["driver"].startswith(KEPT):
            warnings.append(f"GPU {where} is kept for a virtual machine by {card['driver']}: not planned")
        elif model is None:
            warnings.append(f"GPU {where} has no driver and its model is not known: not planned, install one by hand to have it recognised")
        else:
            known = {key: card[key] for key in ("pci_address", "numa_node", "pcie")}
            devices.append(
                device(
                    "",
                    "cuda",
                    f"CUDA{len(devices)}",
                    model.name,
                    model.total or host_memory,
                    driver=False,
                    compute_capability=model.compute_capability,
                    bandwidth=model.bandwidth,
                    unified=not model.total,
                    **known,
                )
            )
    if devices:
        warnings.append(f"no driver serves {', '.join(entry['name'] + ' ' + entry['pci_address'] for entry in devices)}")
    return devices, warnings


def unlisted(cards: list[dict[str, Any]], devices: list[dict[str, Any]], told: list[str]) -> list[str]:
    """Warnings about NVIDIA cards on the bus that the driver does not list, other than those already told of."""
    served = {entry["pci_address"] for entry in devices}
    return [
        f"GPU {card['pci_address']} (10de:{card['pci_id']}) is on the bus, bound to {card['driver'] or 'no driver'}, and nvidia-smi does"
        " not list it: not planned"
        for card in cards
        if card["vendor"] == NVIDIA and card["pci_address"] not in served and not any(card["pci_address"] in text for text in told)
    ]


def _name(names: str, vendor: str, pci_id: str) -> str:
    section = re.search(rf"^{vendor} .*\n((?:[\t#].*\n|\n)*)", names, re.MULTILINE)
    found = re.search(rf"^\t{pci_id}  (.+)$", section[1], re.MULTILINE) if section else None
    return found[1] if found else ""


def others(cards: list[dict[str, Any]], names: tuple[str, ...] = NAMES) -> list[dict[str, str]]:
    """AMD and Intel cards, named as the host's pci.ids has them, if it has any."""
    found = [card for card in cards if card["vendor"] in OTHERS]
    text = next((text for text in map(read_text, names) if text), "") if found else ""
    return [
        {
            "vendor": OTHERS[card["vendor"]],
            "name": _name(text, card["vendor"], card["pci_id"]),
            "pci_address": card["pci_address"],
            "pci_id": f"{card['vendor']}:{card['pci_id']}",
        }
        for card in found
    ]
