# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How facts are read from a host: files and tools that may be missing, broken or slow."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any, Callable, Optional

Run = Callable[[list[str]], "tuple[int, str, str]"]


def run_command(argv: list[str], timeout: float = 20.0, extra_environment: Optional[dict[str, str]] = None) -> tuple[int, str, str]:
    """Runs a tool in the C locale; a missing tool is exit status 127, one that hangs is 124."""
    environment = {**os.environ, "LC_ALL": "C", **(extra_environment or {})}
    try:
        done = subprocess.run(argv, capture_output=True, timeout=timeout, check=False, env=environment, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return 124, "", f"{argv[0]} did not answer within {timeout:.0f} s"
    except OSError as error:
        return 127, "", f"{argv[0]}: {error.strerror}"
    return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")


def read_text(path: str) -> str:
    """A file's text, or nothing where it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as handle:
            return handle.read()
    except OSError:
        return ""


def read_json(path: str) -> dict[str, Any]:
    """A JSON object from a file; an empty one where there is none or it is broken."""
    try:
        value = json.loads(read_text(path) or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
