# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which file of apt's sources has a repository already. apt reads nothing at all where two name different keys for it."""

from __future__ import annotations

import glob
import os
import re

from ansible_collections.onprem.llamacpp.plugins.module_utils._host import read_text

OWN = "llamacpp-"  # how the files of this collection's roles begin
_LINE = re.compile(r"^[ \t]*deb[ \t]+(?:\[[^\]]*\][ \t]*)?(\S+)", re.MULTILINE)
_FIELD = re.compile(r"^URIs:((?:.*)(?:\n[ \t]+\S.*)*)", re.MULTILINE | re.IGNORECASE)
_OFF = re.compile(r"^Enabled:[ \t]*(no|false|0)\b", re.MULTILINE | re.IGNORECASE)


def addresses(text: str, stanzas: bool) -> list[str]:
    """The repositories in the text of a file, which has a line or a stanza for each."""
    if not stanzas:
        return _LINE.findall(text)
    parts = [part for part in re.split(r"\n[ \t]*\n", text) if not _OFF.search(part)]
    return [address for part in parts for field in _FIELD.findall(part) for address in field.split()]


def file_of(url: str, root: str = "/") -> str:
    """The file of another's that has the repository; empty where none has."""
    folder = os.path.join(root, "etc/apt")
    paths = [os.path.join(folder, "sources.list")]
    for ending in ("list", "sources"):
        paths += sorted(glob.glob(os.path.join(folder, "sources.list.d", f"*.{ending}")))
    for path in paths:
        known = [address.rstrip("/") for address in addresses(read_text(path), path.endswith(".sources"))]
        if url.rstrip("/") in known and not os.path.basename(path).startswith(OWN):
            return path
    return ""
