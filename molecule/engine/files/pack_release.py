# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Packs an engine of the controller's cache as upstream packs its releases: one flat folder, whose programs look beside themselves.

pack_release.py ARTIFACT FOLDER TAG     prints the file's name and its sha256
"""

from __future__ import annotations

import hashlib
import io
import sys
import tarfile
from pathlib import Path

OURS, THEIRS = b"$ORIGIN/../lib\0", b"$ORIGIN\0"


def pack(artifact: Path, folder: Path, tag: str) -> tuple[str, str]:
    """Writes the tarball below the folder's folder of the tag; its name and its sha256."""
    name = f"llama-{tag}-bin-ubuntu-x64.tar.gz"
    target = folder / tag / name
    target.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(artifact) as ours, tarfile.open(target, "w:gz") as theirs:
        for member in ours:
            if not member.name.startswith(("./bin/", "./lib/")) or member.isdir():
                continue
            content = None
            if member.isfile():
                data = ours.extractfile(member)
                # The path in the program's table of strings, overwritten in place.
                content = data.read().replace(OURS, THEIRS.ljust(len(OURS), b"\0")) if data else None
            member.name = f"llama-{tag}/{Path(member.name).name}"
            theirs.addfile(member, io.BytesIO(content) if content is not None else None)
    return name, hashlib.sha256(target.read_bytes()).hexdigest()


if __name__ == "__main__":
    print(*pack(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
