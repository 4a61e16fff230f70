# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documents of a mirror, and that the Hub's own client is content with them."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import re
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ansible_collections.onprem.llamacpp.plugins.module_utils import _hub_files, _hub_index
from ansible_collections.onprem.llamacpp.plugins.module_utils._hub_files import (
    HashCache,
    Hashes,
    HubIndexError,
    Snapshot,
    snapshot_directory,
)

REPO = "org/Repo-GGUF"


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "files"
    (made / "Q2_K").mkdir(parents=True)
    (made / "Q2_K" / "M-Q2_K-00001-of-00001.gguf").write_bytes(b"weights" * 1000)
    (made / "README.md").write_text("text")
    (made / ".cache").mkdir()
    (made / ".cache" / "junk").write_text("junk")
    (made / "link").symlink_to("/etc/passwd")
    return made


def index(root, folder, revisions=("main",), repo=REPO):
    cache = HashCache(str(root / "cache.json"))
    snapshot = snapshot_directory(repo, str(folder), list(revisions), cache.compute)
    root.mkdir(exist_ok=True)
    _hub_index.write_index(str(root), _hub_index.documents([snapshot]), _hub_index.links([snapshot]))
    cache.save()
    return snapshot, cache


def test_links_and_hidden_names_are_left_out(folder):
    assert [item.path for item in _hub_files.scan_directory(str(folder))] == ["README.md", "Q2_K/M-Q2_K-00001-of-00001.gguf"]


def test_commit_follows_names_and_bytes_only(folder, tmp_path):
    first, _cache = index(tmp_path / "a", folder)
    assert re.fullmatch("[0-9a-f]{40}", first.commit)
    os.utime(folder / "README.md", (1, 1))
    assert index(tmp_path / "b", folder)[0].commit == first.commit
    (folder / "README.md").write_text("tex!")
    assert index(tmp_path / "c", folder)[0].commit != first.commit


def test_a_file_is_hashed_once_for_each_state(folder, tmp_path):
    root = tmp_path / "index"
    assert index(root, folder)[1].hashed_bytes == 7004
    assert index(root, folder)[1].hashed_bytes == 0
    (folder / "README.md").write_text("longer text")
    snapshot, cache = index(root, folder)
    assert cache.hashed_bytes == 11
    assert {item.path: item.sha256 for item in snapshot.files}["README.md"] == hashlib.sha256(b"longer text").hexdigest()


def test_index_holds_exactly_what_is_served(folder, tmp_path):
    root = tmp_path / "index"
    index(root, folder)
    (folder / "README.md").unlink()
    snapshot, _cache = index(root, folder)
    there, linked = _hub_index.present(str(root))
    assert there == _hub_index.documents([snapshot])
    assert linked == _hub_index.links([snapshot])
    assert os.listdir(root / "api" / "org" / "Repo-GGUF") == [snapshot.commit]


def test_maps_escape_what_nginx_would_read(tmp_path, folder):
    (folder / 'odd"name.txt').write_text("x")
    snapshot, _cache = index(tmp_path / "index", folder)
    assert rf'"{REPO}@{snapshot.commit}/odd\"name.txt"' in _hub_index.nginx_maps([snapshot])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        pytest.param({"repo_id": "nothing"}, "<organisation>/<name>", id="name of a repository"),
        pytest.param({"folder": "/nowhere/at/all"}, "does not exist on this host", id="missing directory"),
        pytest.param({"revisions": ["a/b"]}, "not usable as a revision", id="revision with a slash"),
    ],
)
def test_bad_wishes_are_refused(folder, change, told):
    known = {"repo_id": REPO, "folder": str(folder), "revisions": ["main"], "hash_of": lambda _path: Hashes("0" * 64, ["0" * 64]), **change}
    with pytest.raises(HubIndexError, match=told):
        snapshot_directory(**known)


def test_unreadable_and_empty_directories_are_refused(folder, tmp_path):
    (folder / "README.md").chmod(0o600)
    with pytest.raises(HubIndexError, match="not readable for the web server"):
        _hub_files.scan_directory(str(folder))
    (tmp_path / "empty").mkdir()
    with pytest.raises(HubIndexError, match="holds no files"):
        _hub_files.scan_directory(str(tmp_path / "empty"))


def test_two_directories_cannot_share_a_revision():
    one, two = (Snapshot(REPO, digit * 40, ["main"], [], []) for digit in "12")
    with pytest.raises(HubIndexError, match="claim the revision main"):
        _hub_index.check_snapshots([one, two])


def publish(root, quant, commit, when, **more):
    """A published model as gguf_download leaves it."""
    folder = root / "org--Repo-GGUF" / commit / quant
    folder.mkdir(parents=True)
    (folder / f"M-{quant}.gguf").write_bytes(b"abc")
    files = [{"path": f"{quant}/M-{quant}.gguf", "name": f"M-{quant}.gguf", "size": 3, "sha256": "a" * 64, **more}]
    document = {"repo_id": REPO, "commit": commit, "quant": quant, "files": files, "published_at": when}
    (folder / "manifest.json").write_text(json.dumps(document))
    return folder


@pytest.fixture
def store(tmp_path):
    """Two commits of a repository, the older one with one quant."""
    root = tmp_path / "store"
    publish(root, "Q2_K", "2" * 40, "2026-01-01T00:00:00Z")
    publish(root, "Q4_K", "2" * 40, "2026-01-02T00:00:00Z")
    publish(root, "Q2_K", "1" * 40, "2025-01-01T00:00:00Z")
    return root


def scan(store, named=None):
    return {item.commit: item for item in _hub_files.scan_models(str(store), named or {})}


def test_published_models_are_served_under_their_own_commit(store):
    found = scan(store)
    assert [item.path for item in found["2" * 40].files] == ["Q2_K/M-Q2_K.gguf", "Q4_K/M-Q4_K.gguf"]
    assert (found["2" * 40].revisions, found["2" * 40].quants) == (["main"], ["Q2_K", "Q4_K"])
    assert (found["1" * 40].revisions, found["1" * 40].quants) == ([], ["Q2_K"])
    named = Snapshot(REPO, "1" * 40, ["main"], [], [])
    merged = _hub_files.merged([named], list(found.values()))
    assert [(item.commit, item.revisions) for item in merged] == [("1" * 40, ["main"]), ("2" * 40, [])]


def test_a_commit_that_was_fetched_later_does_not_become_main(store, tmp_path):
    root = tmp_path / "index"
    root.mkdir()
    told = _hub_index.known_revisions(str(root), [{"repo_id": REPO, "name": "main", "commit": "1" * 40}])
    assert {commit: item.revisions for commit, item in scan(store, told).items()} == {"1" * 40: ["main"], "2" * 40: []}
    (root / "revisions.json").write_text(json.dumps(told))
    more = _hub_index.known_revisions(str(root), [{"repo_id": REPO, "name": "v1", "commit": "2" * 40}])
    assert {commit: item.revisions for commit, item in scan(store, more).items()} == {"1" * 40: ["main"], "2" * 40: ["v1"]}


def test_a_name_whose_commit_is_gone_falls_back_to_what_is_there(store):
    assert scan(store, {REPO: {"main": "9" * 40}})["2" * 40].revisions == ["main"]


@pytest.mark.parametrize(
    "damage", [pytest.param(lambda file: file.unlink(), id="gone"), pytest.param(lambda file: file.write_bytes(b"a"), id="short")]
)
def test_a_model_that_is_not_whole_is_not_served(store, damage):
    damage(store / "org--Repo-GGUF" / ("2" * 40) / "Q4_K" / "M-Q4_K.gguf")
    assert scan(store)["2" * 40].quants == ["Q2_K"]


@pytest.mark.parametrize(
    ("size", "ends"),
    [
        pytest.param(0, [0], id="empty"),
        pytest.param(5, [5], id="less than a block"),
        pytest.param(8, [8], id="one block"),
        pytest.param(20, [8, 16, 20], id="two and a half"),
    ],
)
def test_blocks_are_the_running_hash_at_their_ends(tmp_path, monkeypatch, size, ends):
    monkeypatch.setattr(_hub_files, "CHUNK", 4)
    monkeypatch.setattr(_hub_files, "BLOCK", 8)
    data = bytes(range(size))
    (tmp_path / "file").write_bytes(data)
    found, read = _hub_files.hash_file(str(tmp_path / "file"))
    assert read == size
    assert found.blocks == [hashlib.sha256(data[:end]).hexdigest() for end in ends]
    assert found.blocks[-1] == found.sha256


def test_blocks_are_served_by_content(folder, tmp_path):
    snapshot, _cache = index(tmp_path / "index", folder)
    made = _hub_index.documents([snapshot])
    digest = hashlib.sha256(b"text").hexdigest()
    assert json.loads(made[f"blocks/{digest}.json"]) == {"size": 4, "block_size": 67108864, "blocks": [digest]}


def test_blocks_of_a_manifest_are_handed_on_and_are_missing_where_it_has_none(tmp_path):
    publish(tmp_path, "Q2_K", "2" * 40, "2026-01-01T00:00:00Z", blocks=["a" * 64])
    made = _hub_index.documents(_hub_files.scan_models(str(tmp_path), {}))
    assert json.loads(made[f"blocks/{'a' * 64}.json"])["blocks"] == ["a" * 64]
    publish(tmp_path / "old", "Q2_K", "2" * 40, "2026-01-01T00:00:00Z")
    assert not [name for name in _hub_index.documents(_hub_files.scan_models(str(tmp_path / "old"), {})) if name.startswith("blocks/")]


def test_torrents_are_left_alone(folder, tmp_path):
    root = tmp_path / "index"
    (root / "torrents" / ("2" * 40)).mkdir(parents=True)
    (root / "torrents" / ("2" * 40) / "Q2_K.torrent").write_bytes(b"d8:announce")
    index(root, folder)
    assert (root / "torrents" / ("2" * 40) / "Q2_K.torrent").read_bytes() == b"d8:announce"
    assert not any("torrents" in name for name in _hub_index.present(str(root))[0])


class DocumentServer(SimpleHTTPRequestHandler):
    """Answers from an index as the nginx template does, with nothing but the maps and the files."""

    root = ""

    def maps(self):
        text = Path(self.root, "maps.conf").read_text()
        found = {}
        for name, body in re.findall(r'^map "[^"]*" \$(\w+) \{\n(.*?)^\}', text, re.DOTALL | re.MULTILINE):
            found[name] = dict(re.findall(r'^    "(.*)" "(.*)";$', body, re.MULTILINE))
        return found

    def log_message(self, *args):
        pass

    def send_head(self):
        self.extra = {}
        maps = self.maps()
        path = self.path.split("?")[0]
        api = re.match(r"^/api/models/([^/]+/[^/]+?)(?:/(revision|tree)/([^/]+))?$", path)
        file = re.match(r"^/([^/]+/[^/]+)/resolve/([^/]+)/(.+)$", path)
        if api:
            commit = maps["llama_mirror_commit"].get(f"{api.group(1)}@{api.group(3) or ''}", "")
            self.served = f"api/{api.group(1)}/{commit}/{'tree' if api.group(2) == 'tree' else 'model'}.json"
        elif file:
            commit = maps["llama_mirror_commit"].get(f"{file.group(1)}@{file.group(2)}", "")
            sha256 = maps["llama_mirror_sha256"].get(f"{file.group(1)}@{commit}/{file.group(3)}", "none")
            self.served = f"blobs/{sha256}"
            size = maps["llama_mirror_size"].get(sha256, "")
            self.extra = {"ETag": f'"{sha256}"', "X-Repo-Commit": commit, "X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": size}
        else:
            self.served = "none"
        return super().send_head()

    def translate_path(self, path):
        return os.path.join(self.root, self.served)

    def end_headers(self):
        for name, value in self.extra.items():
            self.send_header(name, value)
        super().end_headers()


def test_the_hubs_client_takes_a_snapshot(folder, tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    root = tmp_path / "index"
    snapshot, _cache = index(root, folder)
    handler = type("Handler", (DocumentServer,), {"root": str(root)})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        constants = importlib.import_module("huggingface_hub.constants")
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
        info = hub.HfApi(endpoint=endpoint, token=False).model_info(REPO, files_metadata=True)
        assert info.sha == snapshot.commit
        assert {item.rfilename: item.lfs.sha256 for item in info.siblings} == {item.path: item.sha256 for item in snapshot.files}
        target = hub.snapshot_download(REPO, endpoint=endpoint, token=False, local_dir=tmp_path / "copy", cache_dir=tmp_path / "cache")
        server.shutdown()
    for item in snapshot.files:
        with open(item.source, "rb") as one, open(os.path.join(target, item.path), "rb") as two:
            assert one.read() == two.read()
