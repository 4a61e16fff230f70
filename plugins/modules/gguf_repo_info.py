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
  - Meant to run on the controller, once for a repository and revision.
  - Only O(endpoint) is asked. Xet transfers, telemetry and tokens stored on the controller are switched off.
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
    description: URL of the Hub or of a mirror that speaks its API.
    type: str
    default: https://huggingface.co
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
requirements:
  - huggingface_hub >= 1.0
extends_documentation_fragment:
  - onprem.llamacpp.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details: Nothing is changed.
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
"""

RETURN = r"""
---
repo_id:
  description: The repository, as asked for.
  returned: success
  type: str
  sample: unsloth/Kimi-K2-Instruct-GGUF
commit:
  description: The commit that O(revision) stands for. Pin it for the download.
  returned: success
  type: str
  sample: 0123456789abcdef0123456789abcdef01234567
endpoint:
  description: The URL that was asked, without a trailing slash.
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
      description: Whether every file is listed with a size and a SHA-256.
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
          description: SHA-256 in hexadecimal.
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

import traceback

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ansible_collections.onprem.llamacpp.plugins.module_utils._hub import HubError, read_listing
from ansible_collections.onprem.llamacpp.plugins.module_utils._quant import QuantError, repo_quants


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "repo_id": {"type": "str", "required": True},
            "revision": {"type": "str", "default": "main"},
            "endpoint": {"type": "str", "default": "https://huggingface.co"},
            "token": {"type": "str", "no_log": True},
            "timeout": {"type": "float", "default": 20},
            "retries": {"type": "int", "default": 2},
        },
        supports_check_mode=True,
    )
    params = module.params
    endpoint = params["endpoint"].rstrip("/")
    if not endpoint.startswith(("http://", "https://")):
        module.fail_json(msg=f"endpoint {endpoint!r} is not an http or https URL.")
    try:
        listing = read_listing(
            endpoint, params["repo_id"], params["revision"], params["token"], max(params["timeout"], 0.1), max(params["retries"], 0)
        )
        quants, other = repo_quants(listing.files)
    except ImportError:
        module.fail_json(msg=missing_required_lib("huggingface_hub"), exception=traceback.format_exc())
    except QuantError as error:
        module.fail_json(msg=f"{params['repo_id']} at {endpoint} is refused. {error}")
    except HubError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, repo_id=listing.repo_id, commit=listing.commit, endpoint=endpoint, quants=quants, other=other)


if __name__ == "__main__":
    main()
