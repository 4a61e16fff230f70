#!/usr/bin/python
# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation and wiring of the module; the work is done in module_utils."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: gguf_download
short_description: Bring a quant of a GGUF model to a host, verified
version_added: 0.1.0
description:
  - Downloads the given files of a model repository at a pinned commit, checks the SHA-256 of each and publishes them
    with one rename to C(<root>/<organisation>--<name>/<commit>/<quant>/), together with a C(manifest.json).
    Nothing is visible there before everything is verified.
  - The transfer is a transient systemd unit that runs as an unprivileged user. It does not stop when the connection to the
    host is lost or when Ansible is stopped; running the task again attaches to it. An interrupted transfer goes on
    where it was.
  - Run as a task, it waits for the end and shows a line of progress every few seconds.
  - The unit gets the proxies (E(http_proxy), E(https_proxy), E(all_proxy), E(no_proxy)) and the CA bundle (E(SSL_CERT_FILE),
    E(REQUESTS_CA_BUNDLE), E(CURL_CA_BUNDLE)) of the task's environment.
  - A model that is complete already is left alone, without any request and without reading it.
options:
  repo_id:
    description: Repository as C(organisation/name).
    type: str
    required: true
  commit:
    description: Commit of the repository, 40 hexadecimal digits.
    type: str
    required: true
  quant:
    description: Name of the quant, the last part of the directory's name.
    type: str
    required: true
  files:
    description:
      - Files of the quant, shards in order, as M(onprem.llamacpp.gguf_repo_info) returns them.
      - Required when O(state=present).
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Path inside the repository. The last part becomes the file's name.
        type: str
        required: true
      size:
        description: Size in bytes.
        type: int
        required: true
      sha256:
        description: SHA-256 in hexadecimal.
        type: str
        required: true
  header:
    description:
      - Summary of the model's header, as M(onprem.llamacpp.gguf_repo_info) returns it. It is kept in the manifest, so that the
        model can be planned again without asking a repository.
    type: dict
  state:
    description:
      - V(present) brings the model to the host.
      - V(absent) stops a transfer of it and removes what there is. It does not ask whether a server uses the model.
    type: str
    choices: [present, absent]
    default: present
  root:
    description: Directory that holds all models.
    type: path
    default: /var/lib/llamacpp/models
  endpoint:
    description:
      - URL of the Hub or of a mirror that speaks its API.
      - Or the absolute path of a directory of the host with models, laid out like O(root).
    type: str
    default: https://huggingface.co
  controller_directory:
    description:
      - Directory of the controller with models, laid out like O(root), that is offered to the host through the SSH connection of the
        play for as long as the task runs. O(endpoint) is not asked then.
    type: path
  token:
    description: Token for a private or gated repository. It is handed to the transfer as a systemd credential.
    type: str
  user:
    description: System user that runs the transfer. It must exist.
    type: str
    default: llamacpp-fetch
  timeout:
    description: Seconds without a byte after which a connection counts as broken.
    type: float
    default: 60
  retries:
    description: Attempts in a row that may bring nothing before the transfer fails.
    type: int
    default: 8
  wait:
    description: Seconds that one run of the module stays on the host. The task as a whole runs it as often as it takes.
    type: float
    default: 5
  run_id:
    description: Tells the runs of one task from those of another. Set by the task itself.
    type: str
    default: ""
extends_documentation_fragment:
  - onprem.llamacpp.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
requirements:
  - systemd 247 or newer on the host
seealso:
  - module: onprem.llamacpp.gguf_repo_info
author:
  - onprem.llamacpp contributors (@onprem)
"""

EXAMPLES = r"""
---
- name: See what the repository holds
  onprem.llamacpp.gguf_repo_info:
    repo_id: unsloth/Kimi-K2-Instruct-GGUF
  delegate_to: localhost
  register: repository

- name: Bring one quant to the host
  become: true
  onprem.llamacpp.gguf_download:
    repo_id: "{{ repository.repo_id }}"
    commit: "{{ repository.commit }}"
    quant: UD-Q2_K_XL
    files: "{{ repository.quants['UD-Q2_K_XL'].files }}"

- name: Remove it again
  become: true
  onprem.llamacpp.gguf_download:
    repo_id: "{{ repository.repo_id }}"
    commit: "{{ repository.commit }}"
    quant: UD-Q2_K_XL
    state: absent
"""

RETURN = r"""
---
finished:
  description: Whether the model is published, or gone for O(state=absent).
  returned: success
  type: bool
path:
  description: Directory of the published model.
  returned: success
  type: str
  sample: /var/lib/llamacpp/models/unsloth--Kimi-K2-Instruct-GGUF/0123456789abcdef0123456789abcdef01234567/UD-Q2_K_XL
bytes_total:
  description: Size of all files in bytes.
  returned: success
  type: int
bytes_done:
  description: Bytes that are on the host, verified or not.
  returned: success
  type: int
rate:
  description: Bytes a second over the last seconds. 0 when nothing is under way.
  returned: success
  type: int
eta_seconds:
  description: Seconds that the rest takes at this rate, or null.
  returned: success
  type: int
file:
  description: File that is under way.
  returned: success
  type: str
note:
  description: What the transfer is struggling with at the moment. Empty when all is well.
  returned: success
  type: str
unit:
  description: Name of the transient unit.
  returned: success
  type: str
  sample: llamacpp-fetch-0123abcd.service
"""

import os
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.onprem.llamacpp.plugins.module_utils._fetch_unit import Download
from ansible_collections.onprem.llamacpp.plugins.module_utils._host import run_command
from ansible_collections.onprem.llamacpp.plugins.module_utils._model_store import Model, StoreError
from ansible_collections.onprem.llamacpp.plugins.module_utils._words import amount

POLL_SECONDS = 0.5


def run(argv: list[str]) -> tuple[int, str, str]:
    """Runs a tool of systemd's; stopping a unit may take its time."""
    return run_command(argv, timeout=120.0)


def require_systemd(module: AnsibleModule) -> None:
    if not os.path.isdir("/run/systemd/system") or not module.get_bin_path("systemd-run"):
        raise StoreError("The transfer needs systemd, which does not run this host (no /run/systemd/system, or no systemd-run).")


def fetch(module: AnsibleModule, model: Model) -> dict[str, Any]:
    """Publish the model, or stay with its transfer for O(wait) seconds."""
    download = Download(model, module.params, run)
    if model.complete():
        return dict(download.progress(finished=True), changed=False)
    if not model.files:
        raise StoreError(f"No files are given for {model.repo_id} {model.quant}.")
    change: dict[str, Any] = {"changed": True, "diff": {"before": "", "after": model.listing()}}
    if module.check_mode:
        found = download.progress()
        download.check_space(found["bytes_done"])
        left = model.bytes - found["bytes_done"]
        size = f"{amount(left)} of {amount(model.bytes)}"
        msg = f"Would download {len(model.files)} files, {size}, from {module.params['endpoint']} to {model.path}."
        return dict(found, msg=msg, **change)
    require_systemd(module)
    deadline = time.monotonic() + max(module.params["wait"], 0.0)
    while True:
        with download.lock():
            finished = download.step()
        if finished or time.monotonic() >= deadline:
            return dict(download.progress(finished), **change)
        time.sleep(POLL_SECONDS)


def remove(module: AnsibleModule, model: Model) -> dict[str, Any]:
    download = Download(model, module.params, run)
    changed = model.present()
    result = {"changed": changed, "finished": True, "path": model.path, "unit": download.unit}
    if changed:
        result["diff"] = {"before": f"{model.path}\n", "after": ""}
        if not module.check_mode:
            download.absent()
    return dict(result, bytes_total=0, bytes_done=0, rate=0, eta_seconds=None, file="", note="")


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "repo_id": {"type": "str", "required": True},
            "commit": {"type": "str", "required": True},
            "quant": {"type": "str", "required": True},
            "files": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "path": {"type": "str", "required": True},
                    "size": {"type": "int", "required": True},
                    "sha256": {"type": "str", "required": True},
                },
            },
            "header": {"type": "dict"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "root": {"type": "path", "default": "/var/lib/llamacpp/models"},
            "endpoint": {"type": "str", "default": "https://huggingface.co"},
            "token": {"type": "str", "no_log": True},
            "controller_directory": {"type": "path"},
            "user": {"type": "str", "default": "llamacpp-fetch"},
            "timeout": {"type": "float", "default": 60},
            "retries": {"type": "int", "default": 8},
            "wait": {"type": "float", "default": 5},
            "run_id": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    params = module.params
    if not params["endpoint"].startswith(("http://", "https://", "/")):
        module.fail_json(msg=f"endpoint {params['endpoint']!r} is neither an http or https URL nor an absolute path.")
    try:
        model = Model(params["root"], params["repo_id"], params["commit"], params["quant"], params["files"], params["header"])
        result = fetch(module, model) if params["state"] == "present" else remove(module, model)
    except StoreError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename or params['root']}: {error.strerror}. The model was not published.")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
