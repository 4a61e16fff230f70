#!/usr/bin/python
# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation and wiring of the module; the work is done in module_utils."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: hub_index
short_description: Index directories of model files like a Hugging Face Hub
version_added: 0.1.0
description:
  - Writes the documents with which a plain web server answers the part of the Hub's API that C(hf), C(huggingface_hub) and
    M(onprem.llamacpp.gguf_download) need, and the nginx maps that give every file its headers.
  - The commit of a directory is derived from the names and hashes of its files, so the same files have the same commit everywhere.
  - A file is hashed once, and again only when its size, inode or modification time has changed. The running hash at the end of
    every 64 MiB is kept and served, so that a client can tell which part of a damaged copy to fetch again.
options:
  root:
    description: Directory of the index. It must not be used for anything else, but for C(torrents), which is left alone.
    type: path
    required: true
  repos:
    description: Repositories that are served from directories.
    type: list
    elements: dict
    default: []
    suboptions:
      repo_id:
        description: Name of the repository as C(organisation/name).
        type: str
        required: true
      path:
        description: Directory that holds the repository's files. Names that begin with a dot, and links, are left out.
        type: path
        required: true
      revisions:
        description: Branch or tag names that stand for it. Its commit always does.
        type: list
        elements: str
        default: [main]
  model_root:
    description: Directory in which M(onprem.llamacpp.gguf_download) has published models that are served too, under their own commits.
    type: path
  revisions:
    description:
      - Which commit of a published model a branch or tag stands for. It is remembered, so that later runs need not say it again.
      - Where nothing was said of V(main), it is what was published last.
    type: list
    elements: dict
    default: []
    suboptions:
      repo_id:
        description: Name of the repository as C(organisation/name).
        type: str
        required: true
      name:
        description: Name of the branch or tag. A commit given as its own name says nothing and is passed over.
        type: str
        required: true
      commit:
        description: Commit, 40 hexadecimal digits.
        type: str
        required: true
extends_documentation_fragment:
  - onprem.llamacpp.attributes
attributes:
  check_mode:
    support: full
    details: Files that were never hashed are not hashed in check mode; they count as a change.
  diff_mode:
    support: full
author:
  - onprem.llamacpp contributors (@onprem)
"""

EXAMPLES = r"""
---
- name: Index two repositories
  become: true
  onprem.llamacpp.hub_index:
    root: /var/lib/llamacpp/mirror
    repos:
      - repo_id: unsloth/Kimi-K2-Instruct-GGUF
        path: /srv/models/kimi-k2
      - repo_id: example/small-GGUF
        path: /srv/models/small
        revisions: [main, v1]
"""

RETURN = r"""
---
repos:
  description: What the index holds.
  returned: success
  type: list
  elements: dict
  contains:
    repo_id:
      description: Name of the repository.
      type: str
    commit:
      description: Its commit, 40 hexadecimal digits. Empty in check mode when files were never hashed.
      type: str
    revisions:
      description: Names that stand for the commit.
      type: list
      elements: str
    quants:
      description: Quants of it that are whole.
      type: list
      elements: str
    published_at:
      description: When the newest of its quants was published. Empty for a directory.
      type: str
    files:
      description: Number of its files.
      type: int
    bytes:
      description: Size of all its files in bytes.
      type: int
hashed_bytes:
  description: Bytes that were read for hashing in this run.
  returned: success
  type: int
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.onprem.llamacpp.plugins.module_utils import _hub_files as hub_files
from ansible_collections.onprem.llamacpp.plugins.module_utils import _hub_index as hub_index
from ansible_collections.onprem.llamacpp.plugins.module_utils._files import read_json, write_json
from ansible_collections.onprem.llamacpp.plugins.module_utils._quant import QuantError


def build(module: AnsibleModule) -> dict[str, Any]:
    params = module.params
    root = params["root"]
    cache = hub_files.HashCache(os.path.join(root, hub_index.CACHE))
    hash_of = cache.lookup if module.check_mode else cache.compute
    snapshots = [hub_files.snapshot_directory(item["repo_id"], item["path"], item["revisions"], hash_of) for item in params["repos"]]
    named = hub_index.known_revisions(root, params["revisions"])
    if params["model_root"]:
        snapshots = hub_files.merged(snapshots, hub_files.scan_models(params["model_root"], named))
    hub_index.check_snapshots(snapshots)
    wanted, wanted_links = hub_index.documents(snapshots), hub_index.links(snapshots)
    there, linked = hub_index.present(root)
    changed = (there, linked) != (wanted, wanted_links)
    if not module.check_mode:
        os.makedirs(root, mode=0o755, exist_ok=True)
        if changed:
            hub_index.write_index(root, wanted, wanted_links)
        cache.save()
        names_file = os.path.join(root, hub_index.REVISIONS)
        if named != read_json(names_file):
            write_json(names_file, named)
    result: dict[str, Any] = {
        "changed": changed,
        "hashed_bytes": cache.hashed_bytes,
        "repos": [
            {
                "repo_id": item.repo_id,
                "commit": item.commit,
                "revisions": item.revisions,
                "quants": item.quants,
                "published_at": item.published_at,
                "files": len(item.files),
                "bytes": sum(file.size for file in item.files),
            }
            for item in snapshots
        ],
    }
    if changed:
        result["diff"] = {
            "before": there.get("maps.conf", ""),
            "after": wanted["maps.conf"],
            "before_header": "index",
            "after_header": "index",
        }
    return result


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "required": True},
            "repos": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "repo_id": {"type": "str", "required": True},
                    "path": {"type": "path", "required": True},
                    "revisions": {"type": "list", "elements": "str", "default": ["main"]},
                },
            },
            "model_root": {"type": "path"},
            "revisions": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "repo_id": {"type": "str", "required": True},
                    "name": {"type": "str", "required": True},
                    "commit": {"type": "str", "required": True},
                },
            },
        },
        supports_check_mode=True,
    )
    try:
        result = build(module)
    except (hub_files.HubIndexError, QuantError) as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename}: {error.strerror}. The index was left as it was.")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
