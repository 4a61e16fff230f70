# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Unpacks llama.cpp's source.

python tests/cuda/source.py DIRECTORY    the folder to make
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "models"))

from engine_source import FOLDER, fetch
from model_cache import cache_directory


def main(target: Path) -> None:
    archive = fetch(cache_directory("sources"))
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".source-") as temporary:
        subprocess.run(["tar", "--extract", "--file", str(archive), "--directory", temporary, FOLDER], check=True)
        shutil.move(str(Path(temporary, FOLDER)), target)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
