# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sections of Debian's archive: contrib beside NVIDIA's repository where apt does not read it, all for Debian's own driver."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

GPG, PGP = (f"/usr/share/keyrings/debian-archive-keyring.{ending}" for ending in ("gpg", "pgp"))


@pytest.mark.parametrize(
    ("source", "sections", "host", "components", "keyring"),
    [
        pytest.param("nvidia", "main", "", "contrib", GPG, id="a fresh Debian"),
        pytest.param("nvidia", "main contrib", "", "", "", id="there already"),
        pytest.param("distribution", "main contrib", "", "contrib non-free non-free-firmware", GPG, id="Debian's own driver"),
        pytest.param("nvidia", "main", f"Signed-By: {PGP}", "contrib", PGP, id="the host's sources name another keyring"),
    ],
)
def test_sections(tmp_path: Path, run_tasks: Any, source: str, sections: str, host: str, components: str, keyring: str) -> None:
    path, folder = tmp_path / "debian.sources", tmp_path / "apt/sources.list.d"
    folder.mkdir(parents=True)
    (folder / "debian.sources").write_text(f"{host}\n")
    # What an earlier run has written says nothing of the host's own.
    (folder / "llamacpp-debian.sources").write_text("Signed-By: /usr/share/keyrings/debian-archive-keyring.old\n")
    extra = {
        "nvidia_driver_source": source,
        "_nvidia_driver_hardware": {"os": {"id": "debian", "codename": "bookworm"}},
        "_nvidia_driver_debian_file": str(path),
        "_nvidia_driver_apt": str(tmp_path / "apt"),
    }
    done = run_tasks("debian", {"one": {}}, extra, {"apt-get": f"printf '%s\\n' {sections}\n"})
    assert done.returncode == 0, done.stdout
    written = path.read_text().splitlines() if path.exists() else []
    assert [line for line in written if line.startswith(("Components", "Signed-By"))] == (
        [f"Components: {components}", f"Signed-By: {keyring}"] * 2 if components else []
    )
    assert ("Suites: bookworm bookworm-updates" in written) == bool(components)
