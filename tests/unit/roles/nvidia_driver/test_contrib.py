# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian's section contrib beside NVIDIA's repository: added where apt does not read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize(
    ("source", "sections", "components"),
    [
        pytest.param("nvidia", "main", "contrib", id="a fresh Debian"),
        pytest.param("nvidia", "main\\ncontrib", "", id="there already"),
    ],
)
def test_contrib(tmp_path: Path, run_tasks: Any, source: str, sections: str, components: str) -> None:
    path = tmp_path / "debian.sources"
    extra = {
        "nvidia_driver_source": source,
        "_nvidia_driver_hardware": {"os": {"id": "debian", "codename": "bookworm"}},
        "_nvidia_driver_debian_file": str(path),
    }
    done = run_tasks("contrib", {"one": {}}, extra, {"apt-get": f'printf "{sections}\\n"\n'})
    assert done.returncode == 0, done.stdout
    written = path.read_text().splitlines() if path.exists() else []
    assert [line for line in written if "Components" in line] == [f"Components: {components}"] * 2 * bool(components)
    assert ("Suites: bookworm bookworm-updates" in written) == bool(components)
