# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The task as Ansible runs it, with the system's apt and a repository of real packages."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail

from ansible_collections.onprem.llamacpp.plugins.action import bundle_packages

pytestmark = pytest.mark.skipif(
    not (shutil.which("apt-get") and shutil.which("dpkg-deb")), reason="packages of Debian are made by its tools"
)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two packages, of which one needs the other, and apt's settings that know nothing else."""
    folder = tmp_path / "repository"
    folder.mkdir()
    index = ""
    for name, needs in (("lab-engine", "Depends: lab-library\n"), ("lab-library", "")):
        control = tmp_path / name / "DEBIAN/control"
        control.parent.mkdir(parents=True)
        fields = f"Package: {name}\nVersion: 1:2.0\nArchitecture: all\nMaintainer: lab <lab@example.org>\n{needs}"
        control.write_text(f"{fields}Description: of the lab\n")
        package = folder / f"{name}_2.0_all.deb"
        subprocess.run(["dpkg-deb", "--build", "--root-owner-group", str(tmp_path / name), str(package)], check=True, capture_output=True)
        content = package.read_bytes()
        index += f"{fields}Filename: ./{package.name}\nSize: {len(content)}\nSHA256: {hashlib.sha256(content).hexdigest()}\n\n"
    (folder / "Packages").write_text(index)
    (tmp_path / "sources.list").write_text(f"deb [trusted=yes] copy:{folder} ./\n")
    settings = {"SourceList": tmp_path / "sources.list", "SourceParts": "/dev/null"}
    (tmp_path / "apt.conf").write_text("".join(f'Dir::Etc::{name} "{path}";\n' for name, path in settings.items()))
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    return folder


def test_a_package_comes_with_what_it_needs_and_only_once(tmp_path: Path, repository: Path, run_task: Any) -> None:
    dest = tmp_path / "bundle/packages/debian-13-x86_64"
    wanted = {"names": ["lab-engine"], "dest": str(dest)}
    status, result = run_task("bundle_packages", **wanted)
    assert (status, result["changed"]) == (0, True), result
    assert sorted(result["downloaded"]) == ["lab-engine_2.0_all.deb", "lab-library_2.0_all.deb"]
    for name in result["downloaded"]:
        assert (dest / name).read_bytes() == (repository / name).read_bytes()
    assert "Filename: ./lab-library_2.0_all.deb" in (dest / "Packages").read_text()

    (dest / "lab-old_1.0_all.deb").write_text("of an earlier set")
    (dest / "lab-library_2.0_all.deb").unlink()
    status, result = run_task("bundle_packages", **wanted)
    assert (status, result["changed"], result["downloaded"]) == (0, True, ["lab-library_2.0_all.deb"])
    assert sorted(path.name for path in dest.iterdir()) == ["Packages", "lab-engine_2.0_all.deb", "lab-library_2.0_all.deb"]
    assert run_task("bundle_packages", **wanted)[1]["changed"] is False


def test_a_package_that_nobody_has_is_told_in_apts_words(tmp_path: Path, repository: Path, run_module: Any) -> None:
    status, result = run_module("bundle_packages", names=["lab-nothing"], dest=str(tmp_path / "to"), work=str(tmp_path / "work"))
    assert (status, result["failed"]) == (1, True)
    assert result["msg"] == "apt-get install failed: E: Unable to locate package lab-nothing"


@pytest.mark.parametrize("name", ["../outside.deb", "/etc/outside.deb"])
def test_a_machine_does_not_choose_where_the_controller_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    result = {"packages": [{"file": name, "sha256": "0" * 64}], "downloaded": [name], "index": ""}
    for attribute, value in (("run", {}), ("_execute_module", result), ("_make_tmp_path", "/tmp/x"), ("_remove_tmp_path", None)):
        monkeypatch.setattr(bundle_packages.ActionBase, attribute, lambda self, *_arguments, _value=value, **_more: _value)
    action = bundle_packages.ActionModule.__new__(bundle_packages.ActionModule)
    action._task = SimpleNamespace(args={"names": ["x"], "dest": str(tmp_path / "to")})
    shell = SimpleNamespace(join_path=lambda *parts: "/".join(parts))
    action._connection = SimpleNamespace(_shell=shell, fetch_file=lambda *_paths: pytest.fail("it was fetched"))
    with pytest.raises(AnsibleActionFail, match="is not the name of a package"):
        action.run(None, {})
