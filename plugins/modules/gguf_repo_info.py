#!/usr/bin/python
# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation and wiring of the module; the work is done in module_utils."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: gguf_repo_info
short_description: List the quants of a GGUF model repository
version_added: 0.1.0
description:
  - Asks a Hugging Face Hub, or a mirror of one, for the files of a model repository and groups them into quants.
  - A quant is known by its whole name. V(Q2_K), V(Q2_K_L) and V(UD-Q2_K_XL) are three different quants.
  - Where O(headers) names quants, the headers of their files are read by HTTP ranges, all shards at the same time. No weight is fetched.
  - A header is compared with the size of its file and refused, in one sentence, when the engine could not use it.
  - Meant to run on the controller, once for a repository and revision.
  - Only O(mirror) and O(endpoint) are asked, and for headers the storage they redirect to. Xet transfers, telemetry and tokens stored on
    the controller are switched off.
options:
  repo_id:
    description: Repository as C(organisation/name).
    type: str
    required: true
  revision:
    description: Branch, tag or commit to look at.
    type: str
    default: main
  endpoint:
    description: URL of the Hub or of a mirror that speaks its API. May be empty where O(mirror) is given.
    type: str
    default: https://huggingface.co
  mirror:
    description:
      - URL of a mirror that is asked before O(endpoint), once and for five seconds at most, because the controller need not be able to
        reach the mirror of every site. Where O(endpoint) is empty it is asked like that.
      - Its answer is taken when it has at least one of O(headers), or O(headers) is empty. A warning says why it was not.
    type: str
    default: ""
  mirror_token:
    description: Token for O(mirror).
    type: str
  token:
    description: Token for a private or gated repository. Tokens stored on the controller are not used.
    type: str
  timeout:
    description: Seconds to wait for an answer, for each attempt.
    type: float
    default: 20
  retries:
    description: How often to ask again when O(endpoint) does not answer or says that it is busy.
    type: int
    default: 2
  headers:
    description:
      - Whole names of the quants whose headers are read. Each gets RV(quants.header).
      - A name that the repository does not have, or not completely, is left out, as RV(quants) tells.
      - A quant whose headers are no usable ones counts as not complete, and RV(quants.problem) says why.
    type: list
    elements: str
    default: []
  any_header:
    description:
      - Where none of O(headers) could be read, read those of the smallest quant. All quants of a model have one shape, so what is
        known of one tells much of the others.
    type: bool
    default: false
  cache_dir:
    description:
      - Folder on the controller that keeps headers, by repository, commit and file. What is there is not asked for again;
        what was damaged is noticed and read again. It may be removed at any time.
      - Without it, C(onprem-llamacpp/headers) in E(XDG_CACHE_HOME), or in C(~/.cache) where that is not set.
      - Keeping headers does not count as a change.
    type: path
  directory:
    description:
      - Directory on the controller that holds the repository's files. Nobody is asked then, and O(repo_id) only names it.
      - Sizes are those of the files, hashes are null, and a quant is complete without them.
    type: path
  bundle:
    description:
      - Directory on the controller with a bundle, or with what M(onprem.llamacpp.bundle_files) has brought of one. Nobody is asked then.
      - Commit, sizes and hashes are those that the bundle was made with, and only its quants are listed.
    type: path
requirements:
  - huggingface_hub >= 1.0, unless O(directory) or O(bundle) is used
extends_documentation_fragment:
  - onprem.llamacpp.attributes
attributes:
  diff_mode:
    support: none
    details: Nothing is changed but the cache.
seealso:
  - module: onprem.llamacpp.gguf_download
author:
  - onprem.llamacpp contributors (@onprem)
"""

EXAMPLES = r"""
---
- name: See which quants a repository offers
  onprem.llamacpp.gguf_repo_info:
    repo_id: unsloth/Kimi-K2-Instruct-GGUF
  delegate_to: localhost
  register: repository

- name: Show names and sizes
  ansible.builtin.debug:
    msg: "{{ item.key }}: {{ (item.value.bytes / 1e9) | round }} GB"
  loop: "{{ repository.quants | dict2items }}"

- name: Ask a mirror
  onprem.llamacpp.gguf_repo_info:
    repo_id: unsloth/Kimi-K2-Instruct-GGUF
    endpoint: http://mirror.example.org
  delegate_to: localhost

- name: Read the tensor tables of one quant
  onprem.llamacpp.gguf_repo_info:
    repo_id: unsloth/Kimi-K2-Instruct-GGUF
    headers: [UD-Q2_K_XL]
  delegate_to: localhost
  register: repository

- name: Show how large its experts are
  ansible.builtin.debug:
    msg: "{{ repository.quants['UD-Q2_K_XL'].header.layers | sum(attribute='experts') }} bytes"

- name: Look at files that are here already
  onprem.llamacpp.gguf_repo_info:
    repo_id: example/My-Model-GGUF
    directory: /srv/models/my-model
    headers: [Q4_K_M]
  delegate_to: localhost
"""

RETURN = r"""
---
repo_id:
  description: The repository, as asked for.
  returned: success
  type: str
  sample: unsloth/Kimi-K2-Instruct-GGUF
commit:
  description:
    - The commit that O(revision) stands for. Pin it for the download.
    - With O(directory), an identifier of the same form that changes when a file does.
  returned: success
  type: str
  sample: 0123456789abcdef0123456789abcdef01234567
endpoint:
  description: The URL that was asked, without a trailing slash. Empty with O(directory) and O(bundle).
  returned: success
  type: str
  sample: https://huggingface.co
quants:
  description: The quants by name, smallest first.
  returned: success
  type: dict
  contains:
    bytes:
      description: Size of all its files.
      type: int
    shards:
      description: Number of files that it should have.
      type: int
    complete:
      description: Whether every file is listed with a size and a SHA-256; with O(directory), whether every file is there.
      type: bool
    problem:
      description: Why it cannot be used. Empty when RV(quants.complete) is true.
      type: str
    files:
      description: Its files in shard order.
      type: list
      elements: dict
      contains:
        path:
          description: Path inside the repository.
          type: str
        size:
          description: Size in bytes.
          type: int
        sha256:
          description: SHA-256 in hexadecimal, or null with O(directory).
          type: str
    header:
      description: What the headers of its files say. All sizes are bytes.
      returned: for the quants that O(headers) names
      type: dict
      contains:
        schema_version:
          description: Version of this structure.
          type: int
          sample: 1
        architecture:
          description: The engine's name for the kind of model.
          type: str
          sample: deepseek2
        parameters:
          description:
            - The architecture's settings without their prefix, such as C(block_count) or C(attention.key_length).
            - Strings of more than 64 KiB and arrays of strings or of more than 4096 elements are left out.
          type: dict
          sample: {block_count: 61, attention.key_length: 576}
        name:
          description: The model's name for people, or an empty string.
          type: str
          sample: Kimi K2 Instruct
        vocabulary:
          description: Number of tokens.
          type: int
          sample: 163840
        tensors:
          description: Number of tensors.
          type: int
        bytes:
          description: Size of all tensors.
          type: int
        types:
          description: Size of all tensors of each type, largest first.
          type: dict
          sample: {Q2_K: 300000000000, F32: 1000000}
        layers:
          description: One element for each of C(block_count) layers.
          type: list
          elements: dict
          contains:
            experts:
              description: Size of its routed experts, which C(--cpu-moe) keeps in host memory.
              type: int
            rest:
              description: Size of its other tensors.
              type: int
            names:
              description: Names of its other tensors, without the layer's number and without C(.weight) or C(.bias).
              type: list
              elements: str
        input:
          description: Size of C(token_embd) and other tables that the engine always keeps in host memory.
          type: int
        output:
          description: Size of the other tensors that belong to no layer, such as C(output.weight).
          type: int
        tied:
          description: Whether there is no C(output.weight), so that the engine uses C(token_embd) in its place, too.
          type: bool
        files:
          description: Its files in shard order.
          type: list
          elements: dict
          contains:
            path:
              description: Path inside the repository.
              type: str
            size:
              description: Size of the file.
              type: int
            header_bytes:
              description: Size of its header.
              type: int
            header:
              description: Path of a file on the controller that holds just the header.
              type: str
  sample:
    UD-Q2_K_XL:
      bytes: 381000000000
      shards: 8
      complete: true
      problem: ""
      files: []
other:
  description: The files that belong to no quant, such as C(README.md) or C(mmproj-F16.gguf).
  returned: success
  type: list
  elements: dict
  contains:
    path:
      description: Path inside the repository.
      type: str
    size:
      description: Size in bytes, or null.
      type: int
    sha256:
      description: SHA-256 in hexadecimal, or null.
      type: str
"""

import os
import traceback
from typing import Any, NamedTuple, Optional

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ansible_collections.onprem.llamacpp.plugins.module_utils import _bundle, _headers
from ansible_collections.onprem.llamacpp.plugins.module_utils._gguf import GgufError
from ansible_collections.onprem.llamacpp.plugins.module_utils._http import CA_NAMES
from ansible_collections.onprem.llamacpp.plugins.module_utils._hub import HubError, Listing, check_repo_id, read_listing
from ansible_collections.onprem.llamacpp.plugins.module_utils._quant import QuantError, repo_quants
from ansible_collections.onprem.llamacpp.plugins.module_utils._source import Options, Source, TransferError

MIRROR_SECONDS = 5.0


class Answer(NamedTuple):
    """A listing, who gave it, and what it comes to."""

    listing: Listing
    endpoint: str
    quants: dict[str, dict[str, Any]]
    other: list[dict[str, Any]]


def list_files(params: dict[str, Any], endpoint: str) -> Listing:
    """What the directory, or else the endpoint, holds."""
    if params["directory"]:
        check_repo_id(params["repo_id"])
        commit, files = _headers.scan(params["directory"])
        return Listing(params["repo_id"], commit, files)
    if params["bundle"]:
        check_repo_id(params["repo_id"])
        commit, files = _bundle.find_model(params["bundle"], params["repo_id"], params["revision"])
        return Listing(params["repo_id"], commit, files)
    return read_listing(endpoint, params["repo_id"], params["revision"], params["token"], params["timeout"], params["retries"])


def add_headers(params: dict[str, Any], endpoint: str, listing: Listing, quants: dict[str, dict[str, Any]]) -> None:
    """Read the headers of the quants that were named, one quant after the other, and put them beside their files."""
    names = {name.lower() for name in params["headers"]}
    wanted = [quant for name, quant in quants.items() if name.lower() in names and quant["complete"]]
    if params["directory"]:
        opened = _headers.local_files(params["directory"])
    elif params["bundle"]:
        # They were all kept when the bundle was made; what the engine could not use then is refused now.
        opened = _headers.local_files(os.path.join(params["bundle"], "headers"))
    else:
        bundles = {name: os.environ[name] for name in CA_NAMES if os.environ.get(name)}
        options = Options(params["token"] or "", bundles, params["timeout"], params["retries"])
        opened = _headers.remote_files(Source(options), endpoint, listing.repo_id, listing.commit)
    kept = os.path.join(params["bundle"], "headers") if params["bundle"] else params["cache_dir"]
    cache = _headers.HeaderCache(kept or _headers.default_cache(), listing.repo_id, listing.commit)
    spare = [quant for quant in quants.values() if quant["complete"] and quant not in wanted] if params["any_header"] else []
    for quant in [*wanted, *spare]:
        if quant not in wanted and any("header" in other for other in quants.values()):
            break
        try:
            quant["header"] = _headers.read_profile(quant["files"], opened, cache)
        except GgufError as error:
            quant.update(complete=False, problem=str(error))


def ask(params: dict[str, Any], endpoint: str) -> Answer:
    """What one place has to offer, with the headers that are wanted."""
    listing = list_files(params, endpoint)
    try:
        quants, other = repo_quants(listing.files, hashed=not params["directory"])
        if params["headers"] or params["any_header"]:
            add_headers(params, endpoint, listing, quants)
    except QuantError as error:
        raise HubError(f"{params['repo_id']} at {params['directory'] or params['bundle'] or endpoint} is refused. {error}") from error
    return Answer(listing, endpoint, quants, other)


def ask_mirror(module: AnsibleModule, mirror: str) -> Optional[Answer]:
    """What the mirror has, if that is of use; otherwise a warning."""
    params = dict(module.params, token=module.params["mirror_token"])
    try:
        answer = ask(dict(params, timeout=min(params["timeout"], MIRROR_SECONDS), retries=0), mirror)
    except (HubError, TransferError, _headers.HeaderError) as error:
        module.warn(f"The mirror is passed over. {error}")
        return None
    names = {name.lower() for name in params["headers"]}
    if names and not any(quant["complete"] for name, quant in answer.quants.items() if name.lower() in names):
        there = ", ".join(answer.quants) or "no quant"
        module.warn(f"The mirror {mirror} is passed over. Of {params['repo_id']} it has {there}; fill it with the playbook mirror.")
        return None
    return answer


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "repo_id": {"type": "str", "required": True},
            "revision": {"type": "str", "default": "main"},
            "endpoint": {"type": "str", "default": "https://huggingface.co"},
            "mirror": {"type": "str", "default": ""},
            "mirror_token": {"type": "str", "no_log": True},
            "token": {"type": "str", "no_log": True},
            "timeout": {"type": "float", "default": 20},
            "retries": {"type": "int", "default": 2},
            "headers": {"type": "list", "elements": "str", "default": []},
            "any_header": {"type": "bool", "default": False},
            "cache_dir": {"type": "path"},
            "directory": {"type": "path"},
            "bundle": {"type": "path"},
        },
        mutually_exclusive=[["directory", "bundle"]],
        supports_check_mode=True,
    )
    params = module.params
    params["timeout"], params["retries"] = max(params["timeout"], 0.1), max(params["retries"], 0)
    mirror, endpoint = (params[name].rstrip("/") for name in ("mirror", "endpoint"))
    for name, url in (("mirror", mirror), ("endpoint", endpoint)):
        if url and not url.startswith(("http://", "https://")):
            module.fail_json(msg=f"{name} {url!r} is not an http or https URL.")
    if not endpoint:
        endpoint, mirror, params["token"] = mirror, "", params["mirror_token"]
    if params["directory"] or params["bundle"]:
        endpoint = mirror = ""
    elif not endpoint:
        module.fail_json(msg=f"Nothing is named that could be asked for {params['repo_id']}: neither endpoint nor mirror.")
    try:
        answer = (ask_mirror(module, mirror) if mirror else None) or ask(params, endpoint)
    except ImportError:
        module.fail_json(msg=missing_required_lib("huggingface_hub"), exception=traceback.format_exc())
    except (HubError, TransferError, _headers.HeaderError, _bundle.BundleError) as error:
        module.fail_json(msg=str(error))
    found = {"repo_id": answer.listing.repo_id, "commit": answer.listing.commit, "endpoint": answer.endpoint}
    module.exit_json(changed=False, **found, quants=answer.quants, other=answer.other)


if __name__ == "__main__":
    main()
