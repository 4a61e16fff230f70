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


@pytest.mark.parametrize(
    ("urls", "addresses"),
    [
        pytest.param({"distribution": ""}, None, id="no archive"),
        pytest.param({"distribution_security": ""}, ["http://deb.debian.org/debian"], id="no security updates"),
    ],
)
def test_an_empty_address_adds_nothing(tmp_path: Path, run_tasks: Any, urls: dict[str, str], addresses: list[str] | None) -> None:
    """Debian's own driver too. The other tasks of the file have nothing to do with another package manager."""
    path = tmp_path / "debian.sources"
    (tmp_path / "sources.list.d").mkdir()
    extra = {
        "nvidia_driver_source": "distribution",
        "_nvidia_driver_hardware": {"os": {"id": "debian", "codename": "bookworm"}},
        "_nvidia_driver_debian_file": str(path),
        "_nvidia_driver_apt": str(tmp_path),
        "_nvidia_driver_switches": False,
        "__nvidia_driver_plan": {"manager": "dnf"},
        **{f"nvidia_driver_{name}_url": url for name, url in urls.items()},
    }
    done = run_tasks("repository", {"one": {}}, extra, {})
    assert done.returncode == 0, done.stdout
    assert path.exists() == (addresses is not None)
    if path.exists():
        written = path.read_text().splitlines()
        assert [line.removeprefix("URIs: ") for line in written if line.startswith("URIs")] == addresses
        assert written.count("Types: deb") == len(addresses or [])
