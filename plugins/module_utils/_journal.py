# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known of a file that is under way: ``<name>.part.json`` beside ``<name>.part``. Sizes are bytes.

It is replaced often and not synced. ``<name>.part.synced.json`` is the same, written and synced whenever the part was.

``{size, sha256, received: [[begin, end], …], synced: [[begin, end], …], boot, etags: {source: ETag}}``. What was received counts as long
as the host has not been started anew; after that only what was synced does. Nothing in it depends on a URL, so a signed one may change.
"""

from __future__ import annotations

import os
from typing import Any, Optional

from ansible_collections.onprem.llamacpp.plugins.module_utils._files import boot_id, read_json, remove, size_of, write_json
from ansible_collections.onprem.llamacpp.plugins.module_utils._ranges import Ranges


class Journal:
    """The journal of one part; ``part`` is the path of the file it tells of."""

    def __init__(self, part: str, item: dict[str, Any]) -> None:
        self.path = part + ".json"
        self.synced_path = part + ".synced.json"
        self.item = {"size": item["size"], "sha256": item["sha256"]}
        self.boot = boot_id()
        document, known = self._read()
        if not document:
            # Without a journal nothing of a part is known; one of other content is of no use.
            remove(part, self.path, self.synced_path)
        whole = Ranges([(0, min(size_of(part), item["size"]))])
        self.received = _ranges(document.get(known)).common(whole)
        self.synced = _ranges(document.get("synced")).common(self.received)
        etags = document.get("etags")
        self.etags = {str(key): str(value) for key, value in etags.items()} if isinstance(etags, dict) else {}

    def _read(self) -> tuple[dict[str, Any], str]:
        """What is to be believed, and which of its ranges."""
        latest, synced = (
            document if {name: document.get(name) for name in self.item} == self.item else {}
            for document in (read_json(self.path), read_json(self.synced_path))
        )
        if latest.get("boot") == self.boot:
            return latest, "received"
        return synced or latest, "synced"

    def document(self) -> dict[str, Any]:
        return {
            **self.item,
            "boot": self.boot,
            "etags": dict(self.etags),
            "received": self.received.pairs(),
            "synced": self.synced.pairs(),
        }

    def forget(self) -> None:
        """Nothing of the file is there any more, so no ETag binds it either."""
        self.received, self.synced, self.etags = Ranges(), Ranges(), {}


def _ranges(pairs: Any) -> Ranges:
    found = Ranges()
    for pair in pairs if isinstance(pairs, list) else []:
        if isinstance(pair, list) and len(pair) == 2 and all(isinstance(end, int) and 0 <= end < 1 << 62 for end in pair):
            found.add(pair[0], pair[1])
    return found


def give_journal(part: str, item: dict[str, Any], received: Optional[list[list[int]]] = None) -> None:
    """For a part of full size that came by another way: all of it is there, or these ranges are; none of it is verified."""
    journal = {
        "size": item["size"],
        "sha256": item["sha256"],
        "boot": boot_id(),
        "received": [[0, item["size"]]] if received is None else received,
        "synced": [],
        "etags": {},
    }
    write_json(part + ".json", journal)


def bytes_present(staging: str, files: list[dict[str, Any]]) -> int:
    """What of ``files`` is in the staging directory already, whole or in part."""
    total = 0
    for item in files:
        whole = os.path.join(staging, os.path.basename(item["path"]))
        if size_of(whole) == item["size"]:
            total += item["size"]
        elif size_of(whole + ".part"):
            document = read_json(whole + ".part.json")
            if document.get("sha256") == item["sha256"]:
                total += _ranges(document.get("received")).common(Ranges([(0, item["size"])])).total()
    return total
