# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A model comes into a bundle without systemd or root, whole or not at all; what is whole already does not come again."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail

from ansible_collections.onprem.llamacpp.plugins.action import bundle_model
from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _tunnel

COMMIT = "c" * 40
SHARDS = {f"Q2_K/m-0000{number}-of-00003.gguf": bytes([number]) * 70_000 for number in (1, 2, 3)}


def files(**wrong: str) -> list[dict[str, Any]]:
    return [
        {"path": path, "size": len(content), "sha256": wrong.get(os.path.basename(path)[:7], hashlib.sha256(content).hexdigest())}
        for path, content in SHARDS.items()
    ]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Another store, which the transfer reads."""
    folder = tmp_path / "source" / "example--Model-GGUF" / COMMIT / "Q2_K"
    folder.mkdir(parents=True)
    for path, content in SHARDS.items():
        (folder / os.path.basename(path)).write_bytes(content)
    return tmp_path / "source"


@pytest.fixture
def fetch(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(bundle_model.ActionBase, "run", lambda self, tmp, task_vars: {})
    monkeypatch.setattr(bundle_model, "SECONDS_BETWEEN_LINES", 0.01)

    def run(wanted: list[dict[str, Any]], check_mode: bool = False, endpoint: str = "") -> dict[str, Any]:
        action = bundle_model.ActionModule.__new__(bundle_model.ActionModule)
        args = {"repo_id": "example/Model-GGUF", "commit": COMMIT, "quant": "Q2_K", "files": wanted, "header": {"tensors": 3}}
        args |= {"root": str(tmp_path / "bundle"), "endpoint": endpoint or str(source), "retries": 0}
        action._task = SimpleNamespace(args=args, check_mode=check_mode, environment=[])
        return action.run(None, {})

    return run


def published(tmp_path: Path) -> Path:
    return tmp_path / "bundle" / "example--Model-GGUF" / COMMIT / "Q2_K"


def test_a_model_is_published_with_its_manifest(tmp_path: Path, fetch: Any) -> None:
    assert fetch(files())["changed"]
    manifest = json.loads((published(tmp_path) / "manifest.json").read_text())
    assert manifest["header"] == {"tensors": 3}
    assert {item["path"]: (published(tmp_path) / item["name"]).read_bytes() for item in manifest["files"]} == SHARDS
    assert not fetch(files())["changed"]


def test_a_transfer_reads_what_a_controller_offers(tmp_path: Path, fetch: Any, source: Path) -> None:
    with _tunnel.served(str(source)) as port:
        assert fetch(files(), endpoint=f"http://127.0.0.1:{port}")["changed"]
    assert {f"Q2_K/{path.name}": path.read_bytes() for path in published(tmp_path).glob("*.gguf")} == SHARDS


def test_only_a_missing_shard_comes_again(tmp_path: Path, fetch: Any, source: Path) -> None:
    fetch(files())
    second = published(tmp_path) / "m-00002-of-00003.gguf"
    second.unlink()
    for name in ("m-00001-of-00003.gguf", "m-00003-of-00003.gguf"):
        (source / "example--Model-GGUF" / COMMIT / "Q2_K" / name).unlink()
    assert fetch(files())["changed"]
    assert second.read_bytes() == SHARDS["Q2_K/m-00002-of-00003.gguf"]


def test_a_shard_of_other_bytes_is_refused_and_nothing_published(tmp_path: Path, fetch: Any) -> None:
    with pytest.raises(AnsibleActionFail, match=r"m-00002-of-00003\.gguf"):
        fetch(files(**{"m-00002": "0" * 64}))
    assert not published(tmp_path).exists()


def test_check_mode_fetches_nothing(tmp_path: Path, fetch: Any) -> None:
    assert fetch(files(), check_mode=True)["changed"]
    assert not (tmp_path / "bundle").exists()


def test_a_disk_that_is_too_small_is_told_first(tmp_path: Path, fetch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_model.Model, "free_bytes", lambda self: (100_000, "/mnt/usb"))
    with pytest.raises(AnsibleActionFail, match=r"Q2_K needs 0.2 MB more in the bundle, but the file system of /mnt/usb has 0.1 MB free"):
        fetch(files())
    assert not published(tmp_path).exists()
