# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A bundle is what its checksums name; damage is found by name, and models are found by repository and revision."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.onprem.llamacpp.plugins.module_utils import _bundle
from ansible_collections.onprem.llamacpp.plugins.module_utils._bundle import BundleError

REPO = "example/Model-GGUF"
COMMIT = "a" * 40
MODEL = {"repo_id": REPO, "revision": "main", "commit": COMMIT, "quant": "Q2_K"}
PREFIX = f"models/example--Model-GGUF/{COMMIT}/Q2_K/"
PARTS: dict[str, dict[str, Any]] = {
    PREFIX: {"kind": "model", "inputs": MODEL},
    "engines/b1-cpu/": {"kind": "engine", "inputs": {"build_id": "b1-cpu"}},
    "engines/b2-cpu/": {"kind": "engine", "inputs": {"build_id": "b2-cpu"}},
    "wheels/": {"kind": "wheels", "inputs": {"requirements": ["ansible-core==2.19"]}},
}


def write(folder: Path, path: str, content: bytes) -> None:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(content)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    shard = b"weights"
    entry = {"path": "Q2_K/m.gguf", "name": "m.gguf", "size": len(shard), "sha256": hashlib.sha256(shard).hexdigest()}
    write(tmp_path, PREFIX + "m.gguf", shard)
    write(tmp_path, PREFIX + "manifest.json", json.dumps({"files": [entry]}).encode())
    write(tmp_path, "engines/b1-cpu/b1-cpu.tar.gz", b"one")
    write(tmp_path, "engines/b2-cpu/b2-cpu.tar.gz", b"two")
    write(tmp_path, "wheels/a b.whl", b"wheel")
    write(tmp_path, "wheels/.unfinished", b"x")
    assert _bundle.seal(str(tmp_path), PARTS, {})
    return tmp_path


def test_sha256sum_reads_the_checksums(bundle: Path) -> None:
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=bundle, check=True)
    assert "wheels/.unfinished" not in _bundle.read_sums(str(bundle))


def test_sealing_again_changes_nothing(bundle: Path) -> None:
    before = (bundle / "bundle.json").stat().st_mtime_ns
    assert not _bundle.seal(str(bundle), PARTS, {})
    assert (bundle / "bundle.json").stat().st_mtime_ns == before


def test_sealing_does_not_read_weights(bundle: Path) -> None:
    (bundle / PREFIX / "m.gguf").write_bytes(b"WEIGHTS")
    assert not _bundle.seal(str(bundle), PARTS, {})
    assert [item.path for item in _bundle.damages(str(bundle), _bundle.read_sums(str(bundle)))] == [PREFIX + "m.gguf"]


def test_a_part_without_files_is_not_sealed(bundle: Path) -> None:
    with pytest.raises(BundleError, match="sources/ is empty"):
        _bundle.seal(str(bundle), {**PARTS, "sources/": {"kind": "source", "inputs": {}}}, {})


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        pytest.param(lambda path: path.unlink(), "is missing", id="missing"),
        pytest.param(lambda path: path.write_bytes(b""), "is empty", id="empty"),
        pytest.param(lambda path: path.write_bytes(b"tow"), "has another SHA-256 than its checksum", id="flipped"),
    ],
)
def test_damage_is_told_by_name_and_only_where_it_is_needed(bundle: Path, damage: Any, reason: str) -> None:
    damage(bundle / "engines/b2-cpu/b2-cpu.tar.gz")
    needed = _bundle.files_of(str(bundle), ["engine"], {"build_id": "b2-cpu"})
    with pytest.raises(BundleError, match=f"engines/b2-cpu/b2-cpu.tar.gz {reason}"):
        _bundle.refuse(str(bundle), _bundle.damages(str(bundle), needed))
    other = _bundle.files_of(str(bundle), ["engine"], {"build_id": "b1-cpu"})
    assert list(other) == ["engines/b1-cpu/b1-cpu.tar.gz"]
    assert _bundle.damages(str(bundle), other) == []


def test_models_are_described_and_never_moved(bundle: Path) -> None:
    assert sorted(_bundle.files_of(str(bundle), ["model"], {})) == ["bundle.json", PREFIX + "manifest.json"]
    assert PREFIX + "m.gguf" in _bundle.files_of(str(bundle), [], {})


def test_whole_parts_are_those_with_every_file(bundle: Path) -> None:
    (bundle / "engines/b1-cpu/b1-cpu.tar.gz").unlink()
    assert set(_bundle.whole_parts(str(bundle), _bundle.read_sums(str(bundle)))) == {PREFIX, "engines/b2-cpu/", "wheels/"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(None, "There is no bundle at", id="no checksums"),
        pytest.param("nonsense\n", "is garbled", id="garbled"),
        pytest.param(f"{'0' * 64}  ../../etc/passwd\n", "leaves its directory", id="a name that leads out"),
        pytest.param(f"{'0' * 64}  /etc/passwd\n", "absolute or foreign path", id="an absolute name"),
    ],
)
def test_what_is_no_bundle_is_refused(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "SHA256SUMS").write_text(text)
    with pytest.raises(BundleError, match=message):
        _bundle.read_sums(str(tmp_path))


def test_a_changed_index_is_refused(bundle: Path) -> None:
    (bundle / "bundle.json").write_text((bundle / "bundle.json").read_text().replace("main", "next"))
    with pytest.raises(BundleError, match=r"bundle\.json has another SHA-256"):
        _bundle.files_of(str(bundle), ["model"], {})


@pytest.mark.parametrize("schema", [None, 2])
def test_an_index_of_another_version_is_refused(tmp_path: Path, schema: int | None) -> None:
    (tmp_path / "bundle.json").write_text(json.dumps({"schema_version": schema, "parts": {}}))
    with pytest.raises(BundleError, match=f"no index of version 1: it has {schema}"):
        _bundle.read_index(str(tmp_path))


@pytest.mark.parametrize("revision", ["main", COMMIT])
def test_a_model_is_found_by_its_revision(bundle: Path, revision: str) -> None:
    commit, files = _bundle.find_model(str(bundle), REPO, revision)
    assert (commit, [item["path"] for item in files]) == (COMMIT, ["Q2_K/m.gguf"])


@pytest.mark.parametrize(("repo_id", "revision"), [("example/Other-GGUF", "main"), (REPO, "v2")], ids=["repository", "revision"])
def test_what_the_bundle_does_not_have_is_told_with_what_it_has(bundle: Path, repo_id: str, revision: str) -> None:
    with pytest.raises(BundleError, match=f"has nothing of {repo_id} at {revision}. It holds {REPO} Q2_K at main"):
        _bundle.find_model(str(bundle), repo_id, revision)
