# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which published files can stand in for wanted ones."""

from __future__ import annotations

import json
import os

import pytest

from ansible_collections.onprem.llamacpp.plugins.module_utils._copies import find_copies

ITEM = {"path": "Q2_K/m.gguf", "size": 5, "sha256": "a" * 64}


def publish(root, commit, content=b"bytes", **change):
    """A published model with one file; returns the file's path."""
    folder = root / "org--repo" / commit / "Q2_K"
    folder.mkdir(parents=True)
    path = folder / "m.gguf"
    path.write_bytes(content)
    entry = {**ITEM, "name": "m.gguf", "modified_ns": path.stat().st_mtime_ns, **change}
    (folder / "manifest.json").write_text(json.dumps({"files": [entry]}))
    return str(path)


def copies(root, own="/nowhere"):
    return find_copies(str(root), str(own), [ITEM], os.stat(root).st_dev)


def test_a_copy_under_another_commit(tmp_path):
    path = publish(tmp_path, "b" * 40, blocks=["a" * 64])
    assert copies(tmp_path) == {ITEM["path"]: (path, False, ["a" * 64])}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"sha256": "b" * 64}, id="other hash"),
        pytest.param({"size": 6}, id="other size"),
        pytest.param({"content": b"byte"}, id="truncated"),
        pytest.param({"name": "../../../x"}, id="name that climbs"),
        pytest.param({"name": None}, id="no name"),
        pytest.param({"name": "missing.gguf"}, id="missing"),
    ],
)
def test_what_is_no_copy(tmp_path, change):
    publish(tmp_path, "b" * 40, **change)
    assert copies(tmp_path) == {}


def test_links_and_other_disks_are_not_used(tmp_path):
    path = publish(tmp_path, "b" * 40)
    assert find_copies(str(tmp_path), "", [ITEM], 1) == {}
    os.rename(path, tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", path)
    assert copies(tmp_path) == {}


def test_a_time_that_changed_is_told_and_an_untouched_copy_is_preferred(tmp_path):
    touched = publish(tmp_path, "b" * 40)
    os.utime(touched, ns=(1, 1))
    assert copies(tmp_path)[ITEM["path"]].touched is True
    good = publish(tmp_path, "c" * 40)
    assert copies(tmp_path)[ITEM["path"]].path == good


def test_manifests_of_the_first_schema_know_no_times_and_no_blocks(tmp_path):
    path = publish(tmp_path, "b" * 40, modified_ns=None)
    assert copies(tmp_path) == {ITEM["path"]: (path, False, None)}


def test_the_models_own_file_comes_first(tmp_path):
    publish(tmp_path, "b" * 40)
    own = publish(tmp_path, "c" * 40)
    assert copies(tmp_path, os.path.dirname(own))[ITEM["path"]].path == own
