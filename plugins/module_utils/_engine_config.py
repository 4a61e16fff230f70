# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The settings file of the whole host that llama.cpp's programs merge into theirs, which is not ours."""

from __future__ import annotations

import re
from typing import Any

# Read by every program of builds since about b10700, below the user's own file, the environment and the arguments.
PATH = "/etc/llama.cpp/config.ini"

# Sections of other names are presets, which a program must ask for.
MERGED = ("", "default", "*")

_SECTION = re.compile(r"\[(.*)\]")
_KEY = re.compile(r"([^=\[;#]+?)\s*=")


def merged_keys(text: str) -> list[str]:
    """The settings in the file that reach every program, by name; values may be secrets and are not read."""
    section, found = "", []
    for line in map(str.strip, text.splitlines()):
        named, key = _SECTION.match(line), _KEY.match(line)
        if named:
            section = named.group(1).strip()
        elif key and section in MERGED and key.group(1) != "version":
            found.append(key.group(1))
    return sorted(set(found))


def read(path: str = PATH) -> dict[str, Any]:
    """``path`` and ``keys`` of the file; nothing where there is none, keys None where it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as handle:
            return {"path": path, "keys": merged_keys(handle.read())}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError:
        return {"path": path, "keys": None}
