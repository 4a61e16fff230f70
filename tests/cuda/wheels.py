# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fetches the wheels of the CUDA compiler that the role cuda_toolkit pins, once, for this machine's architecture.

python tests/cuda/wheels.py    prints the folder, which the role takes as cuda_toolkit_wheel_directory
"""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/models"))

from model_cache import cache_directory, pip_download

VERSION = "13.0"


def main() -> None:
    folder = cache_directory("cuda") / "wheels"
    folder.mkdir(parents=True, exist_ok=True)
    pinned = yaml.safe_load((ROOT / "roles/cuda_toolkit/vars/main/wheels.yml").read_text())["_cuda_toolkit_wheels"][VERSION]
    wheels = pinned["wheels"][platform.machine()]
    requirements = folder / "requirements.txt"
    requirements.write_text("".join(f"{wheel['name']}=={wheel['version']} --hash=sha256:{wheel['sha256']}\n" for wheel in wheels))
    # What is there already, pip takes from there; it checks every wheel against its hash.
    pip_download(folder, ["--requirement", str(requirements)], "--require-hashes", "--only-binary", ":all:", "--find-links", str(folder))
    print(folder)


if __name__ == "__main__":
    main()
