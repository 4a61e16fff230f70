# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are published on this host already, under whatever repository and commit: told by their manifests, never by reading them."""

from __future__ import annotations

import glob
import os
import stat
from typing import Any, NamedTuple, Optional

from ansible_collections.onprem.llamacpp.plugins.module_utils._blocks import checked
from ansible_collections.onprem.llamacpp.plugins.module_utils._files import read_json

MANIFEST = "manifest.json"


class Copy(NamedTuple):
    """A published file. ``touched`` says that its time is not the one of its publishing; ``blocks`` is None where they are not known."""

    path: str
    touched: bool
    blocks: Optional[list[str]]


def copy_of(folder: str, entry: Any, item: dict[str, Any], device: int) -> Optional[Copy]:
    """The file of a manifest's entry, if it is the wanted ``item`` with its full size, on the disk that it could be linked on."""
    if not isinstance(entry, dict) or (entry.get("size"), entry.get("sha256")) != (item["size"], item["sha256"]):
        return None
    name = entry.get("name")
    if not isinstance(name, str) or not name or os.path.basename(name) != name:
        return None
    path = os.path.join(folder, name)
    try:
        found = os.lstat(path)
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode) or found.st_size != item["size"] or found.st_dev != device:
        return None
    written = entry.get("modified_ns")  # manifests of the first schema do not say it
    return Copy(path, written is not None and written != found.st_mtime_ns, checked(entry.get("blocks"), item["size"], item["sha256"]))


def find_copies(root: str, own: str, files: list[dict[str, Any]], device: int) -> dict[str, Copy]:
    """By the wanted path: the copy below ``own``, the model's own directory, else an untouched one of another model below ``root``."""
    found: dict[str, Copy] = {}
    manifests = glob.glob(os.path.join(glob.escape(root), "*", "*", "*", MANIFEST))
    for manifest in sorted(manifests, key=lambda path: (os.path.dirname(path) != own, path)):
        entries = read_json(manifest).get("files")
        folder = os.path.dirname(manifest)
        by_hash = {entry.get("sha256"): entry for entry in entries or [] if isinstance(entry, dict)} if isinstance(entries, list) else {}
        for item in files:
            copy = copy_of(folder, by_hash.get(item["sha256"]), item, device)
            if copy and (item["path"] not in found or (found[item["path"]].touched and not copy.touched)):
                found[item["path"]] = copy
    return found
