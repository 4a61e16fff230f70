# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module on real releases with real deployments: what is gone afterwards, and what never is."""

from __future__ import annotations

import json
import mmap
from pathlib import Path

import pytest

from ansible_collections.onprem.llamacpp.plugins.modules import llama_engine_prune


class Host:
    """Releases and instances in a temporary directory."""

    def __init__(self, base: Path) -> None:
        self.root, self.instances = base / "opt", base / "instances"
        self.built = 0

    def build(self, build_id: str) -> Path:
        """A release, younger than those before it."""
        folder = self.root / "releases" / build_id
        (folder / "bin").mkdir(parents=True)
        (folder / "bin/llama-server").write_bytes(b"x" * 4096)
        (folder / "bin/llama-server").chmod(0o755)
        self.built += 1
        build = {"build_id": build_id, "built_at": f"2026-11-{self.built:02}T00:00:00Z", "programs": {"llama-server": "bin/llama-server"}}
        (folder / "build.json").write_text(json.dumps(build))
        return folder

    def deploy(self, link: str, release: str) -> None:
        folder = self.instances / "main" / "deployments" / link
        folder.mkdir(parents=True)
        if release:
            (folder / "engine").symlink_to(self.root / "releases" / release)
        (self.instances / "main" / link).symlink_to(f"deployments/{link}")

    def prune(self, keep: int, *wanted: str, check: bool = False) -> list[str]:
        params = {"root": str(self.root), "instance_root": str(self.instances), "keep": keep, "wanted": list(wanted), "build_path": None}
        result = llama_engine_prune.prune(params, check)
        assert result["changed"] is bool(result["removed"])
        return [engine["build_id"] for engine in result["removed"]]

    @property
    def names(self) -> list[str]:
        return sorted(path.name for path in (self.root / "releases").iterdir())


@pytest.fixture
def host(tmp_path: Path) -> Host:
    found = Host(tmp_path)
    for build_id in ("b1", "b2", "b3", "b4", "b5"):
        found.build(build_id)
    return found


@pytest.mark.parametrize(
    ("keep", "stay"),
    [
        pytest.param(0, ["b1", "b3", "b5"], id="none-besides"),
        pytest.param(1, ["b1", "b3", "b4", "b5"], id="the-newest-besides"),
        pytest.param(2, ["b1", "b2", "b3", "b4", "b5"], id="all-there-are"),
        pytest.param(-1, ["b1", "b2", "b3", "b4", "b5"], id="never"),
    ],
)
def test_what_serves_what_served_and_what_is_wanted_stay(host: Host, keep: int, stay: list[str]) -> None:
    host.deploy("current", "b3")
    host.deploy("previous", "b1")
    host.prune(keep, "b5")
    assert host.names == stay


def test_check_mode_tells_what_the_run_then_does(host: Host) -> None:
    host.deploy("current", "b3")
    would = host.prune(1, check=True)
    assert host.names == ["b1", "b2", "b3", "b4", "b5"]
    assert would == host.prune(1) == ["b1", "b2", "b4"]
    assert host.prune(1) == []


def test_all_stay_while_a_deployment_does_not_tell_its_engine(host: Host) -> None:
    host.deploy("current", "")
    assert host.prune(0) == []


def test_a_release_that_a_program_runs_from_stays(host: Host) -> None:
    program = host.root / "releases/b2/bin/llama-server"
    with program.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ):
        assert host.prune(0) == ["b1", "b3", "b4", "b5"]
    assert host.prune(0) == ["b2"]


def test_what_is_no_release_is_left_alone(host: Host) -> None:
    (host.root / "releases/.b6").mkdir()
    (host.root / "releases/notes").mkdir()
    host.prune(0)
    assert host.names == [".b6", "notes"]


def test_what_an_interrupted_removal_has_left_goes_with_the_next(host: Host) -> None:
    (host.root / "releases/b2").rename(host.root / "releases/.b2.removed")
    in_builds = host.root / "build/.b7.removed"
    in_builds.mkdir(parents=True)
    params = {"root": str(host.root), "instance_root": str(host.instances), "keep": -1, "wanted": [], "build_path": None}
    would = llama_engine_prune.prune(params, check_mode=True)
    assert (would["changed"], would["removed"], would["diff"]["before"]) == (True, [], f"{in_builds}\n{host.root}/releases/.b2.removed\n")
    assert ".b2.removed" in host.names
    llama_engine_prune.prune(params, check_mode=False)
    assert host.names == ["b1", "b3", "b4", "b5"] and not in_builds.exists()
    assert not llama_engine_prune.prune(params, check_mode=False)["changed"]


def test_what_builds_have_left_goes_unless_one_is_under_way_or_wanted(host: Host, tmp_path: Path) -> None:
    failed, running, wanted = (f"b11549-cpu-x86_64-0000000{digit}" for digit in "123")
    releases, builds, proc = host.root / "releases", host.root / "build", tmp_path / "proc"
    for build_id in (failed, running, wanted):
        (builds / build_id / "source").mkdir(parents=True)
        (builds / build_id / "build.pid").write_text("7\n")
        (releases / f".{build_id}").mkdir()
    (builds / f"{failed}.tar.gz").write_bytes(b"x")
    (builds / f"again-{failed}").mkdir()
    for name in ("ccache", "notes-12345678"):
        (builds / name).mkdir()
    # Process 7 builds one of them; the others have a number that went to it.
    (proc / "7").mkdir(parents=True)
    (proc / "7/cwd").symlink_to(builds / running)
    params = {"root": str(host.root), "build_path": None, "instance_root": str(host.instances), "keep": -1, "wanted": [wanted]}
    going = [builds / f"again-{failed}", builds / failed, builds / f"{failed}.tar.gz", releases / f".{failed}"]
    would = llama_engine_prune.prune(params, True, str(proc))
    assert (would["changed"], sorted(would["diff"]["before"].split())) == (True, sorted(map(str, going)))
    assert all(path.exists() for path in going)
    llama_engine_prune.prune(params, False, str(proc))
    assert sorted(path.name for path in builds.iterdir()) == sorted(["ccache", "notes-12345678", running, wanted])
    assert host.names == [f".{running}", f".{wanted}", "b1", "b2", "b3", "b4", "b5"]
    assert not llama_engine_prune.prune(params, False, str(proc))["changed"]
