# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Damage is refused, or removed where it is to be fetched again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.onprem.llamacpp.plugins.module_utils import _bundle
from ansible_collections.onprem.llamacpp.plugins.modules.bundle_check import check


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    for name in ("one", "two"):
        (tmp_path / "engines" / name).mkdir(parents=True)
        (tmp_path / "engines" / name / "e.tar.gz").write_text(name)
    parts = {f"engines/{name}/": {"kind": "engine", "inputs": {"build_id": name}} for name in ("one", "two")}
    _bundle.seal(str(tmp_path), parts, {})
    return tmp_path


def asked(path: Path, **more: Any) -> dict[str, Any]:
    return {"path": str(path), "kinds": [], "inputs": {}, "repair": False, "read": True, **more}


def test_a_whole_bundle(bundle: Path) -> None:
    found = check(asked(bundle), False)
    assert (found["changed"], found["damaged"], sorted(found["parts"])) == (False, [], ["engines/one/", "engines/two/"])


def test_damage_is_refused(bundle: Path) -> None:
    (bundle / "engines/two/e.tar.gz").write_text("owt")
    with pytest.raises(_bundle.BundleError, match=r"engines/two/e.tar.gz has another SHA-256"):
        check(asked(bundle), False)
    assert check(asked(bundle, read=False), False)["damaged"] == []
    assert list(check(asked(bundle, kinds=["engine"], inputs={"build_id": "one"}), False)["files"]) == ["engines/one/e.tar.gz"]


@pytest.mark.parametrize("check_mode", [False, True])
def test_damage_is_removed_to_be_fetched_again(bundle: Path, check_mode: bool) -> None:
    (bundle / "engines/two/e.tar.gz").write_text("owt")
    found = check(asked(bundle, repair=True), check_mode)
    assert (found["changed"], list(found["parts"])) == (True, ["engines/one/"])
    assert found["damaged"] == ["engines/two/e.tar.gz has another SHA-256 than its checksum"]
    assert (bundle / "engines/two/e.tar.gz").exists() == check_mode


def test_a_new_directory_has_nothing_to_mend(tmp_path: Path) -> None:
    assert check(asked(tmp_path, repair=True), False) == {"changed": False, "files": {}, "damaged": [], "parts": {}}


def test_a_damaged_index_makes_every_part_anew(bundle: Path) -> None:
    (bundle / "bundle.json").write_text("{}")
    assert check(asked(bundle, repair=True), False)["parts"] == {}
