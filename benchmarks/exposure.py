# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How exposed systemd finds the server's unit, in its CPU and its CUDA form, as rendered from the defaults."""

from __future__ import annotations

import functools
import re
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


@functools.cache
def _rendered() -> Path:
    done = subprocess.run(
        ["ansible-playbook", "scripts/render_units.yml"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"the units could not be rendered:\n{done.stdout[-2000:]}")
    return ROOT / "build" / "units"


def _exposure(form: str, bar: str) -> dict[str, Any]:
    unit = _rendered() / form / "llamacpp@.service"
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(unit)], stdout=subprocess.PIPE, text=True, check=False
    )
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    if not found:
        raise RuntimeError(f"systemd-analyze says nothing about {unit}")
    return {"value": float(found.group(1)), "unit": "of 10", "bar": bar, "against": "systemd-analyze security"}


def exposure_cpu() -> dict[str, Any]:
    """The unit of a host without a GPU."""
    return _exposure("cpu", "<= 1.2")


def exposure_cuda() -> dict[str, Any]:
    """The unit that may use NVIDIA's devices."""
    return _exposure("cuda", "<= 1.8")
