# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A bundle answers like the repository that it was made from, hashes and headers included, and nobody is asked."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hub_server import COMMIT, REPO_ID, Hub
from test_gguf_repo_info import HEADER, run_module

from ansible_collections.onprem.llamacpp.plugins.module_utils import _bundle

NAME = "M-Q4_K_M.gguf"
PART = f"{REPO_ID.replace('/', '--')}/{COMMIT}/"


@pytest.fixture
def hub():
    made = Hub({NAME: HEADER})
    yield made
    made.close()


@pytest.fixture
def bundle(hub, tmp_path):
    """What the controller has of a bundle: no weights."""
    online = run_module(hub, headers=["Q4_K_M"], cache_dir=str(tmp_path / "headers"))
    entry = {"path": NAME, "name": NAME, "size": len(HEADER), "sha256": hashlib.sha256(HEADER).hexdigest()}
    folder = tmp_path / "models" / PART / "Q4_K_M"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"files": [entry]}))
    identity = {"repo_id": REPO_ID, "revision": "main", "commit": COMMIT, "quant": "Q4_K_M"}
    parts = {f"models/{PART}Q4_K_M/": {"kind": "model", "inputs": identity}, f"headers/{PART}": {"kind": "headers", "inputs": {}}}
    _bundle.seal(str(tmp_path), parts, {})
    hub.requests.clear()
    return tmp_path, online


def test_the_answer_is_the_repository_s(hub, bundle):
    folder, online = bundle
    found = run_module(hub, bundle=str(folder), headers=["Q4_K_M"], any_header=True)
    assert hub.requests == []
    assert (found["commit"], found["endpoint"]) == (online["commit"], "")
    assert found["quants"] == online["quants"]


@pytest.mark.parametrize(
    ("damage", "params", "told"),
    [
        pytest.param(lambda path: None, {"revision": "v2"}, f"has nothing of {REPO_ID} at v2", id="another revision"),
        pytest.param(lambda path: (path / "bundle.json").unlink(), {}, "no index of version 1", id="no index"),
        pytest.param(
            lambda path: (path / "headers" / PART / f"{NAME}.header").write_bytes(b"x"),
            {},
            f"{NAME} cannot be read",
            id="a header that is another",
        ),
    ],
)
def test_what_it_lacks_is_told(hub, bundle, damage, params, told):
    folder, _online = bundle
    damage(Path(folder))
    found = run_module(hub, bundle=str(folder), headers=["Q4_K_M"], **params)
    assert found["failed"] is True
    assert told in found["msg"]
    assert hub.requests == []
