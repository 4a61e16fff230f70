# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The task as Ansible runs it: real files of a bundle come to the controller, compared on both sides, or are refused by their names."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail

from ansible_collections.onprem.llamacpp.plugins.action import bundle_files
from ansible_collections.onprem.llamacpp.plugins.module_utils import _bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    for name in ("one", "two"):
        (folder / "engines" / name).mkdir(parents=True)
        (folder / "engines" / name / f"{name}.tar.gz").write_text(name)
    parts = {f"engines/{name}/": {"kind": "engine", "inputs": {"build_id": name}} for name in ("one", "two")}
    _bundle.seal(str(folder), parts, {})
    return folder


def test_files_of_a_part_come_once(tmp_path: Path, bundle: Path, run_task: Any) -> None:
    wanted = {"path": str(bundle), "kinds": ["engine"], "inputs": {"build_id": "one"}, "dest": str(tmp_path / "to")}
    status, result = run_task("bundle_files", **wanted)
    assert (status, result["changed"], result["fetched"]) == (0, False, ["engines/one/one.tar.gz"])
    assert {path.name: path.read_text() for path in (tmp_path / "to").iterdir()} == {"one.tar.gz": "one"}
    assert run_task("bundle_files", **wanted)[1]["fetched"] == []


def test_a_damaged_file_is_refused_by_its_name(tmp_path: Path, bundle: Path, run_task: Any) -> None:
    (bundle / "engines/two/two.tar.gz").write_text("owt")
    status, result = run_task("bundle_files", path=str(bundle), kinds=["engine"], dest=str(tmp_path / "to"))
    assert status == 2
    assert f"The bundle {bundle} is refused: engines/two/two.tar.gz has another SHA-256 than its checksum" in result["msg"]
    assert not (tmp_path / "to").exists()


def test_a_disk_of_the_controller_is_read_in_place(bundle: Path, run_task: Any) -> None:
    status, result = run_task("bundle_files", path=str(bundle), at="controller", kinds=["engine"])
    assert (status, result["folder"], sorted(result["files"])) == (0, str(bundle), ["engines/one/one.tar.gz", "engines/two/two.tar.gz"])


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "engines/../../outside"])
def test_a_host_does_not_choose_where_the_controller_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(bundle_files.ActionBase, "run", lambda self, tmp, task_vars: {})
    monkeypatch.setattr(bundle_files.ActionBase, "_execute_module", lambda self, **_arguments: {"files": {name: "0" * 64}})
    action = bundle_files.ActionModule.__new__(bundle_files.ActionModule)
    action._task = SimpleNamespace(args={"path": "/mnt/usb", "kinds": ["model"], "cache": str(tmp_path)})
    action._connection = SimpleNamespace(fetch_file=lambda *_paths: pytest.fail("it was fetched"))
    with pytest.raises(AnsibleActionFail, match="The listing holds"):
        action.run(None, {})
