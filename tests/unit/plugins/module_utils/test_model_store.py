# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Places and publishing: all of a model becomes visible at once, or nothing does."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from ansible_collections.onprem.llamacpp.plugins.module_utils._model_store import Model, StoreError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONTENT = {"Q2_K/M-Q2_K-00001-of-00002.gguf": b"first", "Q2_K/M-Q2_K-00002-of-00002.gguf": b"second!"}
FILES = [{"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for path, data in CONTENT.items()]


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fchown", lambda *_args: None)
    monkeypatch.setattr(os, "chown", lambda *_args: None)
    return Model(str(tmp_path / "models"), "org/Repo-GGUF", COMMIT, "Q2_K", FILES, {"architecture": "llama"})


def fill(model):
    model.make_staging(0, 0)
    for path, data in CONTENT.items():
        with open(os.path.join(model.staging, os.path.basename(path)), "wb") as stream:
            stream.write(data)
    with open(os.path.join(model.staging, "status.json"), "w") as stream:
        stream.write("{}")


def test_paths(model, tmp_path):
    assert model.path == f"{tmp_path}/models/org--Repo-GGUF/{COMMIT}/Q2_K"
    assert os.path.dirname(model.staging) == os.path.dirname(model.path)


def test_publish(model):
    fill(model)
    assert not model.complete()
    model.publish("http://mirror/")
    assert model.complete()
    assert sorted(os.listdir(model.path)) == ["M-Q2_K-00001-of-00002.gguf", "M-Q2_K-00002-of-00002.gguf", "manifest.json"]
    assert not os.path.exists(model.staging)
    manifest = json.loads(Path(model.path, "manifest.json").read_text())
    assert manifest.pop("published_at").endswith("Z")
    for entry in manifest["files"]:
        assert entry.pop("modified_ns") == os.stat(os.path.join(model.path, entry["name"])).st_mtime_ns
    assert manifest == {
        "schema_version": 2,
        "block_size": 64 * 2**20,
        "repo_id": "org/Repo-GGUF",
        "commit": COMMIT,
        "quant": "Q2_K",
        "source": "http://mirror/",
        "files": [dict(item, name=os.path.basename(item["path"])) for item in FILES],
        "bytes": 12,
        "header": {"architecture": "llama"},
    }
    modes = {name: oct(os.stat(os.path.join(model.path, name)).st_mode & 0o777) for name in [".", *os.listdir(model.path)]}
    assert modes.pop(".") == "0o755"
    assert set(modes.values()) == {"0o644"}


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda path, _outside: os.truncate(path, 2), id="shorter"),
        pytest.param(lambda path, _outside: os.remove(path), id="missing"),
        pytest.param(lambda path, _outside: (os.remove(path), os.symlink("/etc/passwd", path)), id="link"),
        pytest.param(os.link, id="a second name elsewhere"),
    ],
)
def test_nothing_is_published_from_a_tampered_staging_directory(model, spoil):
    fill(model)
    spoil(os.path.join(model.staging, "M-Q2_K-00002-of-00002.gguf"), os.path.join(model.root, "outside"))
    with pytest.raises((StoreError, OSError)):
        model.publish("http://mirror")
    assert not os.path.exists(model.path)


def test_damaged_model_is_replaced(model):
    fill(model)
    model.publish("http://mirror")
    os.truncate(os.path.join(model.path, "M-Q2_K-00001-of-00002.gguf"), 1)
    assert not model.complete()
    fill(model)
    model.publish("http://mirror")
    assert model.complete()
    assert os.listdir(model.parent) == ["Q2_K"]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"sha256": "0" * 64}, id="another hash"),
        pytest.param({"size": 6}, id="another size"),
        pytest.param({"path": "Q2_K/other-Q2_K-00001-of-00002.gguf"}, id="another name"),
    ],
)
def test_other_files_are_another_model(model, change):
    fill(model)
    model.publish("http://mirror")
    assert not Model(model.root, model.repo_id, COMMIT, "Q2_K", [dict(FILES[0], **change), FILES[1]]).complete()


def test_remove_leaves_nothing_behind(model):
    fill(model)
    model.publish("http://mirror")
    model.make_staging(0, 0)
    model.remove()
    assert os.listdir(model.root) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        pytest.param({"root": "relative"}, "absolute path", id="relative root"),
        pytest.param({"root": "/a b"}, "plain characters", id="space in root"),
        pytest.param({"root": "/"}, "not usable", id="root of the system"),
        pytest.param({"commit": "main"}, "commit 'main'", id="branch for a commit"),
        pytest.param({"quant": "../x"}, "quant '../x'", id="quant that climbs"),
        pytest.param({"repo_id": "../.."}, "repo_id", id="repository that climbs"),
        pytest.param({"files": [dict(FILES[0], path="../x.gguf")]}, "leaves its directory", id="file that climbs"),
        pytest.param({"files": [dict(FILES[0], path="manifest.json")]}, "not a GGUF file", id="manifest as a file"),
        pytest.param({"files": [dict(FILES[0], sha256="x")]}, "no SHA-256", id="no hash"),
        pytest.param({"files": [FILES[0], dict(FILES[0], path="b/M-Q2_K-00001-of-00002.gguf")]}, "same name", id="two of one name"),
    ],
)
def test_bad_wishes_are_refused(change, told):
    known = {"root": "/m", "repo_id": "a/b", "commit": COMMIT, "quant": "Q2_K", "files": FILES, **change}
    with pytest.raises(StoreError, match=told):
        Model(**known)


def test_free_space_is_that_of_the_nearest_directory(model, tmp_path):
    free, where = model.free_bytes()
    assert where == str(tmp_path)
    assert free > 0
