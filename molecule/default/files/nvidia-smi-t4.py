#!/usr/bin/python3
# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stands for nvidia-smi on a lab host with one Tesla T4. Written from the tool's documentation, not captured."""

import sys

T4 = {
    "index": "0",
    "uuid": "GPU-6ee1a3b4-5b57-9c38-6a6e-0d4f2f3a9e11",
    "name": "Tesla T4",
    "memory.total": "15360",
    "pci.bus_id": "00000000:00:1E.0",
    "driver_version": "550.163.01",
    "compute_cap": "7.5",
}

for argument in sys.argv[1:]:
    if argument.startswith("--query-gpu="):
        fields = argument.split("=", 1)[1].split(",")
        unknown = [field for field in fields if field not in T4]
        if unknown:
            print(f'Field "{unknown[0]}" is not a valid field to query.')
            sys.exit(2)
        print(", ".join(T4[field] for field in fields))
