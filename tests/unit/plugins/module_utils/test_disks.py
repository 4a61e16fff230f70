# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filesystems of paths, and the measurements that are made when asked."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from ansible_collections.onprem.llamacpp.plugins.module_utils import _disks, _hardware, _measure

MIB = 2**20


def test_disk_of_a_path_that_is_not_there_yet(tmp_path: Path) -> None:
    mounts = f"dev / ext4 rw 0 0\ndev2 {tmp_path} xfs rw 0 0\ndev3 {tmp_path}/other tmpfs rw 0 0\n"
    found = _disks.disk(f"{tmp_path}/not/there", mounts)
    assert (found["mount"], found["filesystem"], found["path"]) == (str(tmp_path), "xfs", f"{tmp_path}/not/there")
    assert 0 < found["free"] <= found["total"]
    assert (found["sparse"], found["sequential_read"]) == (True, None)


@pytest.mark.parametrize(
    ("path", "mounts", "expected"),
    [
        pytest.param("/srv/a b/x", "d /srv/a\\040b ext4 rw 0 0\n", ("/srv/a b", "ext4"), id="blank in the name"),
        pytest.param("/srv/ä/x", "d /srv/ä ext4 rw 0 0\n", ("/srv/ä", "ext4"), id="letters beyond ascii"),
        pytest.param("/srv/x", "d /srv ext4 rw 0 0\ne /srv xfs rw 0 0\n", ("/srv", "xfs"), id="one mount over another"),
        pytest.param("/srvx", "d / ext4 rw 0 0\ne /srv xfs rw 0 0\n", ("/", "ext4"), id="a name that begins like a mount"),
        pytest.param("/x", "broken\n", ("/", ""), id="broken"),
    ],
)
def test_mount_of_a_path(path: str, mounts: str, expected: tuple[str, str]) -> None:
    found = _disks.mount_of(path, mounts)
    assert (found.point, found.filesystem) == expected


@pytest.mark.parametrize(
    ("filesystem", "expected"),
    [("ext4", True), ("zfs", True), ("nfs4", True), ("overlay", True), ("vfat", False), ("exfat", False), ("fuse.sshfs", None), ("", None)],
)
def test_sparse_files(filesystem: str, expected: bool | None) -> None:
    assert _disks.sparse(filesystem) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("1\n", True, id="disk"),
        pytest.param("0\n", False, id="solid state"),
        pytest.param("", None, id="not told"),
    ],
)
@pytest.mark.parametrize("partition", [False, True], ids=["whole", "partition"])
def test_rotational(tmp_path: Path, text: str, expected: bool | None, partition: bool) -> None:
    disk = tmp_path / "devices/disk"
    folder = disk / "part1" if partition else disk
    folder.mkdir(parents=True)
    (disk / "queue").mkdir()
    (disk / "queue/rotational").write_text(text)
    (tmp_path / "8:1").symlink_to(folder)
    assert _disks.rotational(os.makedev(8, 1), str(tmp_path)) is expected


def test_memory_is_measured_in_the_time_given() -> None:
    began = time.monotonic()
    speed = _measure.memory(2**31, seconds=0.1, buffer=4 * MIB)
    assert time.monotonic() - began < 5
    assert speed and 10**8 < speed < 10**13


def test_too_little_memory_is_not_measured() -> None:
    assert _measure.memory(64 * MIB) is None


def test_a_large_model_is_what_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_measure, "FILE", 16 * MIB)
    (tmp_path / "org--model/commit/Q2_K").mkdir(parents=True)
    (tmp_path / "org--model/commit/Q2_K/a.gguf").write_bytes(b"x" * 24 * MIB)
    (tmp_path / "small.gguf").write_bytes(b"x" * MIB)
    with (tmp_path / "stub.gguf").open("wb") as stub:
        stub.truncate(2**40)
    assert _measure._large_file(str(tmp_path)).endswith("a.gguf")
    before = sorted(tmp_path.rglob("*"))
    speed = _measure.disk(str(tmp_path), may_write=False)
    assert speed and speed > 10**6
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_is_made_only_when_allowed_and_does_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_measure, "FILE", 16 * MIB)
    assert _measure.disk(str(tmp_path), may_write=False) is None
    speed = _measure.disk(str(tmp_path), may_write=True)
    assert speed and speed > 10**6
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["/proc/none", "/proc"])
def test_where_nothing_can_be_written_nothing_is_measured(path: str) -> None:
    assert _measure.disk(path, may_write=True) is None


def test_a_filesystem_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(_measure, "disk", lambda folder, may_write: asked.append((folder, may_write)) or 5)
    paths = [str(tmp_path / "models"), str(tmp_path)]
    assert [entry["sequential_read"] for entry in _hardware.disk_facts(paths, True, False)] == [5, 5]
    assert asked == [(str(tmp_path / "models"), False)]
    assert [entry["sequential_read"] for entry in _hardware.disk_facts(paths, False, False)] == [None, None]
