# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A repository that the host's sources of apt have already."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.onprem.llamacpp.plugins.module_utils import _apt_sources

URL = "https://m.example/cuda/repos/debian12/x86_64"
KEYRING = f"deb [signed-by=/usr/share/keyrings/cuda-archive-keyring.gpg] {URL}/ /\n"
STANZA = f"Types: deb\nURIs: http://deb.example/debian\n {URL}/\nSuites: /\nSigned-By: /usr/share/keyrings/x.gpg\n"
# File below /etc/apt -> its text, whether it has the repository
FILES = {
    "cuda-keyring's": ("sources.list.d/cuda-debian12-x86_64.list", KEYRING, True),
    "without options": ("sources.list", f"deb {URL} /\n", True),
    "commented": ("sources.list.d/cuda.list", f"# {KEYRING}", False),
    "another platform": ("sources.list.d/cuda.list", KEYRING.replace("debian12", "debian13"), False),
    "stanza": ("sources.list.d/cuda.sources", f"Types: deb\nURIs: http://deb.example/debian\n\n{STANZA}", True),
    "stanza that is off": ("sources.list.d/cuda.sources", f"Enabled: no\n{STANZA}", False),
    "our own": ("sources.list.d/llamacpp-nvidia.sources", STANZA, False),
    "no source by its name": ("sources.list.d/cuda.list.save", KEYRING, False),
}


@pytest.mark.parametrize(("name", "text", "found"), FILES.values(), ids=FILES)
def test_file_of_a_repository(tmp_path: Path, name: str, text: str, found: bool) -> None:
    path = tmp_path / "etc/apt" / name
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert _apt_sources.file_of(f"{URL}", str(tmp_path)) == (str(path) if found else "")
