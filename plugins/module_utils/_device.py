# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The form in which a device is told to a plan, wherever it was read from. Sizes are bytes."""

from __future__ import annotations

from typing import Any


def device(uuid: str, kind: str, engine_name: str, name: str, total: int, **known: Any) -> dict[str, Any]:
    """A device with what is known of it; what is not is empty, 0, -1 or None, as the documentation of the facts says."""
    return {
        "uuid": uuid,
        "kind": kind,
        "engine_name": engine_name,
        "name": name,
        "total": total,
        "foreign": 0,
        "pci_address": "",
        "driver": True,
        "driver_version": "",
        "compute_capability": "",
        "bandwidth": 0,
        "unified": False,
        "virtual": False,
        "numa_node": -1,
        "mig_parent": "",
        "ecc": None,
        "power_limit": None,
        "pcie": {"generation": 0, "width": 0, "max_generation": 0, "max_width": 0},
        "processes": [],
        **known,
    }
