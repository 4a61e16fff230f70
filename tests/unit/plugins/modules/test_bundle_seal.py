# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module as Ansible runs it: index and checksums of real files, and what cannot be sealed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

PARTS = {
    "engines/one/": {"kind": "engine", "inputs": {"build_id": "one"}},
    "wheels/": {"kind": "wheels", "inputs": {"requirements": ["ansible-core==2.19.4"]}},
}


def fill(folder: Path) -> Path:
    for path, content in {"engines/one/one.tar.gz": "engine", "wheels/a.whl": "wheel", "wheels/b.whl": "another"}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)
    return folder


def test_what_is_sealed_checks_and_stays(tmp_path: Path, run_module: Any) -> None:
    fill(tmp_path)
    status, result = run_module("bundle_seal", path=str(tmp_path), parts=PARTS, about={"collection": "1.0.0"})
    assert (status, result["changed"], result["bytes"]) == (0, True, {"engine": 6, "wheels": 12})
    assert subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=tmp_path, check=False).returncode == 0
    index = json.loads((tmp_path / "bundle.json").read_text())
    assert (index["collection"], index["parts"]["wheels/"]["files"]) == ("1.0.0", 2)
    before = (tmp_path / "SHA256SUMS").stat().st_mtime_ns
    assert run_module("bundle_seal", path=str(tmp_path), parts=PARTS, about={"collection": "1.0.0"})[1]["changed"] is False
    assert (tmp_path / "SHA256SUMS").stat().st_mtime_ns == before
    (tmp_path / "wheels/b.whl").write_text("of another version")
    assert run_module("bundle_seal", path=str(tmp_path), parts=PARTS, about={"collection": "1.0.0"})[1]["changed"] is True


def test_a_part_that_is_not_there_leaves_the_old_seal(tmp_path: Path, run_module: Any) -> None:
    fill(tmp_path)
    run_module("bundle_seal", path=str(tmp_path), parts=PARTS)
    sealed = (tmp_path / "SHA256SUMS").read_bytes()
    more = {**PARTS, "collection/": {"kind": "collection", "inputs": {}}}
    status, result = run_module("bundle_seal", path=str(tmp_path), parts=more)
    assert (status, result["failed"]) == (1, True)
    assert result["msg"] == f"{tmp_path}/collection/ is empty, though it was to hold collection. Run bundle.yml again."
    assert (tmp_path / "SHA256SUMS").read_bytes() == sealed
