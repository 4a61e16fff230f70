# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Turns what a mirror has to serve into the documents with which a plain web server answers like a Hugging Face Hub.

Below the index's root lie ``api/<org>/<repo>/<commit>/{model,tree}.json``, ``blobs/<sha256>`` (links to the files),
``blocks/<sha256>.json`` (hashes of their blocks) and ``maps.conf``, from which nginx knows what a URL stands for. What
others keep there is left alone: ``torrents``, and the memory of earlier runs in ``cache.json`` and ``revisions.json``.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any

from ansible_collections.onprem.llamacpp.plugins.module_utils._blocks import BLOCK
from ansible_collections.onprem.llamacpp.plugins.module_utils._files import read_json
from ansible_collections.onprem.llamacpp.plugins.module_utils._hub_files import HubIndexError, Snapshot
from ansible_collections.onprem.llamacpp.plugins.module_utils._quant import COMMIT, REPO_ID

POINTER_SIZE = 135  # of a Git LFS pointer file; clients want the field, nobody reads it
CACHE = "cache.json"
REVISIONS = "revisions.json"
FOREIGN = "torrents"


def known_revisions(root: str, given: list[dict[str, str]]) -> dict[str, dict[str, str]]:
    """Which commit each name of a repository stands for: as earlier runs were told, and this one."""
    kept = read_json(os.path.join(root, REVISIONS))
    known = {
        repo_id: {name: commit for name, commit in names.items() if isinstance(commit, str) and COMMIT.match(commit)}
        for repo_id, names in kept.items()
        if isinstance(names, dict)
    }
    for item in given:
        if not REPO_ID.match(item["repo_id"]) or not COMMIT.match(item["commit"]):
            raise HubIndexError(
                f"{item['name']} of {item['repo_id']} cannot stand for {item['commit']!r}: a commit has 40 hexadecimal digits."
            )
        if item["name"] != item["commit"]:
            known.setdefault(item["repo_id"], {})[item["name"]] = item["commit"]
    return known


def check_snapshots(snapshots: list[Snapshot]) -> None:
    """Raise when two snapshots claim the same revision of a repository."""
    owners: dict[tuple[str, str], str] = {}
    for item in snapshots:
        for name in item.revisions:
            if owners.setdefault((item.repo_id, name), item.commit) != item.commit:
                raise HubIndexError(f"Two directories claim the revision {name} of {item.repo_id}. Correct llama_mirror_repos.")


def model_document(item: Snapshot) -> dict[str, Any]:
    """The answer to ``/api/models/<repo>``."""
    return {
        "id": item.repo_id,
        "modelId": item.repo_id,
        "author": item.repo_id.split("/")[0],
        "sha": item.commit,
        "private": False,
        "gated": False,
        "disabled": False,
        "tags": ["gguf"],
        "siblings": [
            {
                "rfilename": file.path,
                "size": file.size,
                "blobId": str(file.sha256)[:40],
                "lfs": {"sha256": file.sha256, "size": file.size, "pointerSize": POINTER_SIZE},
            }
            for file in item.files
        ],
    }


def tree_document(item: Snapshot) -> list[dict[str, Any]]:
    """The answer to ``/api/models/<repo>/tree/<revision>?recursive=true``."""
    return [
        {
            "type": "file",
            "path": file.path,
            "size": file.size,
            "oid": str(file.sha256)[:40],
            "lfs": {"oid": file.sha256, "size": file.size, "pointerSize": POINTER_SIZE},
        }
        for file in item.files
    ]


def nginx_maps(snapshots: list[Snapshot]) -> str:
    """nginx maps from what stands in a URL to commit, hash and size. The template of the site says how they are used."""
    known = {item.repo_id: "" for item in snapshots}
    commits, hashes, sizes = {}, {}, {}
    for item in snapshots:
        for name in [*item.revisions, item.commit]:
            commits[f"{item.repo_id}@{name}"] = item.commit
        if "main" in item.revisions:
            commits[f"{item.repo_id}@"] = item.commit
        for file in item.files:
            hashes[f"{item.repo_id}@{item.commit}/{file.path}"] = str(file.sha256)
            sizes[str(file.sha256)] = str(file.size)
    return "# Written by onprem.llamacpp.hub_index; changes are lost.\n" + "".join(
        (
            _map("$llama_mirror_repo", "$llama_mirror_unknown", "RepoNotFound", known),
            _map("$llama_mirror_repo@$llama_mirror_revision", "$llama_mirror_commit", "", commits),
            _map("$llama_mirror_repo@$llama_mirror_commit/$llama_mirror_path", "$llama_mirror_sha256", "none", hashes),
            _map("$llama_mirror_sha256", "$llama_mirror_size", "", sizes),
        )
    )


def _map(source: str, target: str, otherwise: str, entries: dict[str, str]) -> str:
    lines = "".join(f"    {_quote(key)} {_quote(value)};\n" for key, value in sorted(entries.items()))
    return f"map {_quote(source)} {target} {{\n    default {_quote(otherwise)};\n{lines}}}\n"


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def documents(snapshots: list[Snapshot]) -> dict[str, str]:
    """Every document of the index by its path below the root."""
    made = {"maps.conf": nginx_maps(snapshots)}
    for item in snapshots:
        folder = f"api/{item.repo_id}/{item.commit}"
        made[f"{folder}/model.json"] = json.dumps(model_document(item), indent=1) + "\n"
        made[f"{folder}/tree.json"] = json.dumps(tree_document(item), indent=1) + "\n"
        for file in item.files:
            if file.blocks:
                document = {"size": file.size, "block_size": BLOCK, "blocks": file.blocks}
                made[f"blocks/{file.sha256}.json"] = json.dumps(document) + "\n"
    return made


def links(snapshots: list[Snapshot]) -> dict[str, str]:
    """Name of the blob to the file that holds it."""
    return {f"blobs/{file.sha256}": file.source for item in reversed(snapshots) for file in item.files}


def present(root: str) -> tuple[dict[str, str], dict[str, str]]:
    """The documents and links that are there now."""
    there: dict[str, str] = {}
    linked: dict[str, str] = {}
    for top, folders, names in os.walk(root):
        if top == root:
            folders[:] = [name for name in folders if name != FOREIGN]
        for name in names:
            path = os.path.join(top, name)
            relative = os.path.relpath(path, root)
            if os.path.islink(path):
                linked[relative] = os.readlink(path)
            elif relative not in (CACHE, REVISIONS):
                with open(path, encoding="utf-8", errors="replace") as stream:
                    there[relative] = stream.read()
    return there, linked


def write_index(root: str, wanted: dict[str, str], wanted_links: dict[str, str]) -> None:
    """Make the directory hold exactly the documents and links; each is replaced at once, what is new comes first."""
    there, linked = present(root)
    for relative, source in wanted_links.items():
        if linked.get(relative) != source:
            path = _parent_made(root, relative)
            with contextlib.suppress(FileNotFoundError):
                os.remove(path + ".new")
            os.symlink(source, path + ".new")
            os.replace(path + ".new", path)
    for relative, text in wanted.items():
        if there.get(relative) != text:
            path = _parent_made(root, relative)
            with open(path + ".new", "w", encoding="utf-8") as stream:
                stream.write(text)
            os.chmod(path + ".new", 0o644)
            os.replace(path + ".new", path)
    for relative in (set(there) - set(wanted)) | (set(linked) - set(wanted_links)):
        os.remove(os.path.join(root, relative))
        folder = os.path.dirname(relative)
        while folder:
            with contextlib.suppress(OSError):
                os.rmdir(os.path.join(root, folder))
            folder = os.path.dirname(folder)


def _parent_made(root: str, relative: str) -> str:
    path = root
    for part in os.path.dirname(relative).split("/"):
        path = os.path.join(path, part)
        if not os.path.isdir(path):
            os.mkdir(path)
            os.chmod(path, 0o755)  # noqa: S103 - the web server reads it as another user
    return os.path.join(root, relative)
