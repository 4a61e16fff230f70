# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module on a real store with real deployments: what is gone afterwards, and what never is."""

from __future__ import annotations

import json
import mmap
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Optional

import pytest

from ansible_collections.onprem.llamacpp.plugins.module_utils import _disks, _model_store, _processes, _prune_store
from ansible_collections.onprem.llamacpp.plugins.module_utils._prune_store import PruneError
from ansible_collections.onprem.llamacpp.plugins.modules import gguf_prune

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SIZE = 1 << 20


class Host:
    """A store and its instances in a temporary directory, and what systemd is asked."""

    def __init__(self, base: Path) -> None:
        self.base, self.root, self.config = base, base / "models", base / "instances"
        self.root.mkdir()
        self.asked: list[list[str]] = []
        self.active = ""  # how the name of a unit begins that is active
        self.refuses = False
        self.published = 0

    def publish(self, quant: str, repo: str = "org--Repo-GGUF") -> Path:
        """A model, younger than those before it."""
        folder = self.root / repo / COMMIT / quant
        folder.mkdir(parents=True)
        (folder / f"{quant}.gguf").write_bytes(b"x" * SIZE)
        self.published += 1
        manifest = {
            **{"repo_id": repo.replace("--", "/"), "commit": COMMIT, "quant": quant, "bytes": SIZE},
            "files": [{"path": f"{quant}.gguf", "name": f"{quant}.gguf", "size": SIZE, "sha256": "0" * 64}],
            "published_at": f"2026-11-{self.published:02}T00:00:00Z",
        }
        (folder / "manifest.json").write_text(json.dumps(manifest))
        return folder

    def deploy(self, instance: str, link: str, model: Optional[Path], identity: str) -> None:
        folder = self.config / instance / "deployments" / identity
        folder.mkdir(parents=True)
        if model:
            (folder / "model").symlink_to(model)
        (self.config / instance / link).symlink_to(f"deployments/{identity}")

    def run_command(self, argv: list[str]) -> tuple[int, str, str]:
        self.asked.append(argv)
        if argv[1] == "stop":
            return (1, "", "Job failed.") if self.refuses else (0, "", "")
        return 0, "active\n" if self.active and argv[-1].startswith(self.active) else "inactive\n", ""

    def prune(self, check_mode: bool = False, **params: Any) -> dict[str, Any]:
        known = {
            **{"root": str(self.root), "instance_root": str(self.config), "keep": [], "free_bytes": None, "must_reach": False},
            **{"unused": True, "replace": None, "staging_days": 7, "shared": False},
        }
        return gguf_prune.prune({**known, **params}, check_mode, self.run_command)

    def quants(self) -> list[str]:
        return sorted(path.parent.name for path in self.root.glob("*/*/*/manifest.json"))

    def tree(self) -> list[str]:
        return sorted(str(path) for path in self.base.rglob("*"))


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """Four models: OLD is of no use, BEFORE can be gone back to, NOW serves, THEIRS serves elsewhere."""
    made = Host(tmp_path)
    models = {name: made.publish(name) for name in ("OLD", "BEFORE", "NOW", "THEIRS")}
    made.deploy("main", "current", models["NOW"], "aaaaaaaaaaaa")
    made.deploy("main", "previous", models["BEFORE"], "bbbbbbbbbbbb")
    made.deploy("other", "current", models["THEIRS"], "cccccccccccc")
    monkeypatch.setattr(_prune_store._processes, "holders", lambda folders, *_proc: {folder: [] for folder in folders})
    return made


def room(monkeypatch: pytest.MonkeyPatch, host: Host, free: int) -> None:
    """A filesystem with some bytes free beside what the store holds now."""
    held = len(host.quants())
    found = lambda _path: SimpleNamespace(f_bavail=free + (held - len(host.quants())) * SIZE, f_frsize=1)  # noqa: E731
    monkeypatch.setattr(_prune_store.os, "statvfs", found)


def test_what_nothing_uses_goes_and_a_second_run_changes_nothing(host: Host) -> None:
    result = host.prune()
    assert (result["changed"], [entry["quant"] for entry in result["removed"]]) == (True, ["OLD"])
    assert result["diff"]["before"].startswith(f"{host.root}/org--Repo-GGUF/{COMMIT}/OLD ")
    assert host.quants() == ["BEFORE", "NOW", "THEIRS"]
    assert host.prune()["changed"] is False


def test_check_mode_says_the_same_and_changes_nothing(host: Host) -> None:
    before = host.tree()
    checked = host.prune(check_mode=True)
    assert host.tree() == before
    done = host.prune()
    assert {key: checked[key] for key in ("changed", "removed", "kept", "diff")} == {
        key: done[key] for key in ("changed", "removed", "kept", "diff")
    }


def test_the_last_model_of_a_repository_takes_its_directories_along(host: Host) -> None:
    host.publish("ALONE", "org--Another-GGUF")
    host.prune()
    assert sorted(os.listdir(host.root)) == ["org--Repo-GGUF"]
    assert sorted(os.listdir(host.root / "org--Repo-GGUF" / COMMIT)) == ["BEFORE", "NOW", "THEIRS"]


def test_a_deployment_that_cannot_be_read_stops_everything(host: Host) -> None:
    host.deploy("third", "current", None, "dddddddddddd")
    with pytest.raises(PruneError, match="It cannot be told which model third needs"):
        host.prune()
    assert len(host.quants()) == 4


def test_what_a_program_has_open_stays(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    old = host.root / "org--Repo-GGUF" / COMMIT / "OLD/OLD.gguf"
    with old.open("rb"):
        kept = {entry["quant"]: entry["why"] for entry in host.prune()["kept"]}
    assert f"(PID {os.getpid()}) has it open" in kept["OLD"]
    with old.open("rb") as stream:
        mapped = mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ)
    with mapped:
        assert host.prune()["changed"] is False
    assert host.prune()["changed"] is True


def test_nothing_leaves_a_share(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_disks, "mount_of", lambda *_args: _disks.Mount("filer:/models", "/", "nfs4"))
    result = host.prune()
    assert (result["changed"], host.quants()) == (False, ["BEFORE", "NOW", "OLD", "THEIRS"])
    assert {"the store is on nfs4, where other hosts may use it"} < {entry["why"] for entry in result["kept"]}
    assert host.prune(shared=True)["changed"] is True


def test_a_model_behind_a_link_stays(host: Host, tmp_path: Path) -> None:
    (host.root / "org--Repo-GGUF").rename(tmp_path / "elsewhere")
    (host.root / "org--Repo-GGUF").symlink_to(tmp_path / "elsewhere")
    result = host.prune()
    assert result["changed"] is False
    assert "a link leads to it" in {entry["why"] for entry in result["kept"]}


def test_a_target_that_is_out_of_reach(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    room(monkeypatch, host, 1000)
    with pytest.raises(PruneError, match=r"9\.0 MB are wanted free .*so nothing was removed.*NOW \(1\.0 MB\) stays, main serves it"):
        host.prune(free_bytes=9_000_000, must_reach=True)
    assert len(host.quants()) == 4
    result = host.prune(free_bytes=9_000_000)
    assert (result["missing"], host.quants()) == (9_000_000 - SIZE - 1000, ["BEFORE", "NOW", "THEIRS"])
    assert "are still missing" in result["msg"]


@pytest.mark.parametrize(
    ("target", "left"),
    [(SIZE, ["BEFORE", "NOW", "THEIRS"]), (2 * SIZE, ["NOW", "THEIRS"]), (3 * SIZE, ["THEIRS"])],
    ids=["unused is enough", "previous too", "current too"],
)
def test_replacing_in_place_takes_no_more_than_it_must(host: Host, monkeypatch: pytest.MonkeyPatch, target: int, left: list[str]) -> None:
    room(monkeypatch, host, 0)
    result = host.prune(free_bytes=target, replace="main", must_reach=True)
    assert (host.quants(), result["missing"], result["stopped"]) == (left, 0, [])


def test_replacing_never_takes_what_another_instance_serves(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    room(monkeypatch, host, 0)
    with pytest.raises(PruneError, match=r"THEIRS .* stays, other serves it"):
        host.prune(free_bytes=4 * SIZE, replace="main", must_reach=True)
    assert len(host.quants()) == 4


def test_a_model_that_peers_are_given_is_given_no_longer(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    old = str(host.root / "org--Repo-GGUF" / COMMIT / "OLD")
    key = _model_store.key_of(old)
    seed = {"pid": 7, "program": "python3", "unit": f"llamacpp-swarm-seed-{key}.service"}
    monkeypatch.setattr(_processes, "holders", lambda folders, *_proc: {path: [seed] if path == old else [] for path in folders})
    host.active = "llamacpp-swarm-seed-"
    assert [entry["quant"] for entry in host.prune(check_mode=True)["removed"]] == ["OLD"]
    assert host.asked == []
    result = host.prune()
    assert ([entry["quant"] for entry in result["removed"]], result["stopped"]) == (["OLD"], [])
    assert [argv[-1] for argv in host.asked if argv[1] == "stop"] == [seed["unit"]]


@pytest.mark.parametrize("refuses", [False, True], ids=["stops", "does not stop"])
def test_the_server_that_reads_a_replaced_model_is_stopped_first(host: Host, monkeypatch: pytest.MonkeyPatch, refuses: bool) -> None:
    room(monkeypatch, host, 0)
    user = {"pid": 7, "program": "llama-server", "unit": "llamacpp@main.service"}
    monkeypatch.setattr(_processes, "holders", lambda folders, *_proc: {path: [user] if path.endswith("NOW") else [] for path in folders})
    host.refuses = refuses
    if refuses:
        with pytest.raises(PruneError, match=r"llamacpp@main.service could not be stopped: Job failed\.\. Its model was not removed"):
            host.prune(free_bytes=3 * SIZE, replace="main", must_reach=True)
        assert len(host.quants()) == 4
    else:
        assert host.prune(free_bytes=3 * SIZE, replace="main", check_mode=True)["stopped"] == ["llamacpp@main.service"]
        assert host.asked == []
        assert host.prune(free_bytes=3 * SIZE, replace="main")["stopped"] == ["llamacpp@main.service"]
        assert host.quants() == ["THEIRS"]
    assert [argv for argv in host.asked if argv[1] == "stop"] == [["systemctl", "stop", "llamacpp@main.service"]]


@pytest.mark.parametrize(
    ("days", "active", "name", "gone"),
    [
        pytest.param(8, "", "Q2_K", True, id="given up"),
        pytest.param(6, "", "Q2_K", False, id="of last week"),
        pytest.param(8, "llamacpp-fetch-", "Q2_K", False, id="under way"),
        pytest.param(8, "llamacpp-swarm-fill-", "Q2_K", False, id="filled by peers"),
        pytest.param(8, "", "not a quant", False, id="not ours"),
    ],
)
def test_transfers_that_were_given_up_go(host: Host, days: int, active: str, name: str, gone: bool) -> None:
    staging = host.root / "org--Repo-GGUF" / COMMIT / f".{name}.staging"
    staging.mkdir()
    part = staging / "M.gguf.part"
    part.write_bytes(b"x" * 1000)
    for path in (part, staging):
        os.utime(path, (time.time() - days * 86400,) * 2)
    host.active = active
    found = host.prune(check_mode=True)["abandoned"]
    assert staging.exists()
    assert host.prune()["abandoned"] == found == ([{"path": str(staging), "bytes": 1000}] if gone else [])
    assert staging.exists() is not gone


def test_an_interrupted_removal_is_finished(host: Host) -> None:
    (host.root / "org--Repo-GGUF" / COMMIT / "OLD").rename(host.root / "org--Repo-GGUF" / COMMIT / ".OLD.removed")
    assert [entry["bytes"] > SIZE for entry in host.prune()["abandoned"]] == [True]
    assert not list(host.root.glob("*/*/.*.removed"))


def test_a_store_that_is_not_there(tmp_path: Path, run_module: Any) -> None:
    status, result = run_module("gguf_prune", root=str(tmp_path / "none"), instance_root=str(tmp_path / "none"))
    assert (status, result["changed"], result["removed"]) == (0, False, [])
