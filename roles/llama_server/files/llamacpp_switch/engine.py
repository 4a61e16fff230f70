# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether an engine is still what its build.json says.

An engine of packages is links to files that others may change; its build.json holds their sha256. One that was built lies in
a folder of its own, which nobody changes.
"""

from __future__ import annotations

import hashlib
import pathlib

from .files import read_json

BLOCK = 2**20


def sha256(path: pathlib.Path) -> str:
    """The sha256 of a file in hex; empty when it cannot be read."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as handle:
            for block in iter(lambda: handle.read(BLOCK), b""):
                digest.update(block)
    except OSError:
        return ""
    return digest.hexdigest()


def changed(engine: pathlib.Path) -> str:
    """Why an engine may not start, in a sentence or two; empty when it is as it was made."""
    build = read_json(engine / "build.json")
    files = build.get("files") or {}
    other = [path for path, wanted in sorted(files.items()) if sha256(pathlib.Path(path)) != wanted]
    folders = {pathlib.Path(path).parent for path in files}
    # An engine loads every backend of its folder.
    come = sorted(
        str(path)
        for folder in folders
        if folder.name.startswith("backends")
        for path in folder.glob("libggml-*.so")
        if str(path) not in files
    )
    name = f"the engine {build.get('build_id')}"
    if other:
        packages = ", ".join(f"{package} {version}" for package, version in sorted((build.get("packages") or {}).items()))
        return (
            f"{name} was made of {packages}, and {len(other)} of its {len(files)} files are no longer those, {other[0]} first: packages"
            " do not go back, so this engine cannot serve any more. Reinstall these versions, or where there are newer ones run the"
            " playbook, which makes an engine of them and gates it"
        )
    if come:
        return (
            f"{name} would load {', '.join(come)}, which it was made without. Remove the package, or run the playbook, which plans with it"
        )
    return ""
