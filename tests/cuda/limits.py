# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares what the table of toolkits says with what an installed toolkit says of itself.

python tests/cuda/limits.py DIRECTORY VERSION
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / ".collections"))

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _cuda


def main(toolkit: Path, version: str) -> None:
    said = _cuda.TOOLKITS[version]
    header = (toolkit / "include/crt/host_config.h").read_text()
    newest = re.search(r"^#if __GNUC__ > (\d+)$", header, re.MULTILINE)
    listed = subprocess.run([toolkit / "bin/nvcc", "--list-gpu-arch"], check=True, capture_output=True, text=True).stdout
    devices = sorted((int(item[:-1]), int(item[-1])) for item in re.findall(r"compute_(\d+)", listed))
    found = _cuda.Toolkit(int(newest[1]) if newest else 0, devices[0], devices[-1])
    if found != said:
        raise SystemExit(f"CUDA {version} says {found}, the table says {said}")
    print(f"CUDA {version}: g++ {found.gcc} at most, compute capabilities {devices[0]} to {devices[-1]}, as the table says")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
