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
  - Every file is fetched over several connections, several files at once, from the first of O(sources) that has it. When a
    source fails, the next one goes on where it stopped; all end in the same verification.
  - Files that are published on the host already, under whatever commit, are linked instead of fetched again.
  - A damaged file is repaired by fetching only its damaged blocks of 64 MiB where the manifest or a mirror knows their hashes.
    Otherwise it is fetched again once, and that is told.
  - A model that is complete already is left alone, without any request and without reading it, unless O(verify) says otherwise.
options:
  state:
    description:
      - V(present) brings the model to the host.
      - V(absent) stops a transfer of it and removes what there is. It does not ask whether a server uses the model.
    type: str
    choices: [present, absent]
    default: present
  controller_directory:
    description:
      - Directory of the controller with models, laid out like O(root), that is offered to the host through the SSH connection of the
        play for as long as the task runs. No other source is asked then.
    type: path
  sources:
    description: Where the files may be had, in the order in which they are asked.
    type: list
    elements: dict
    default:
      - transport: hub
        url: https://huggingface.co
    suboptions:
      transport:
        description:
          - V(hub) and V(mirror) speak the Hub's API.
          - V(directory) is a directory on the host, such as a USB disk or a network file system, with the files as in the
            repository, all in one folder, or as below O(root).
        type: str
        choices: [hub, mirror, directory]
        default: hub
      url:
        description:
          - URL, or the absolute path of the directory.
          - O(user) must be able to read a directory. One below C(/root) is not such a directory.
        type: str
        required: true
      token:
        description: Token for a private or gated repository. It is handed to the transfer as a systemd credential.
        type: str
        default: ""
  verify:
    description:
      - How a model that is complete already, and files of it that are published under another commit, are looked at.
      - V(none) compares the manifest and the sizes.
      - V(sizes) compares the times too; a file that was written to since it was published is read.
      - V(full) reads every file and compares its hashes, at the pace of O(rate_limit).
      - Damage that is found is repaired; the published directory stays as it is until the repaired one replaces it.
    type: str
    choices: [none, sizes, full]
    default: none
  connections:
    description: Connections for each file.
    type: int
    default: 4
  files_at_once:
    description: How many files are under way at the same time.
    type: int
    default: 2
  ca_file:
    description: CA bundle on the host with which the sources' certificates are checked. Wins over the task's environment.
    type: path
  run_id:
    description: Tells the runs of one task from those of another. Set by the task itself.
    type: str
    default: ""
extends_documentation_fragment:
  - onprem.llamacpp.attributes
  - onprem.llamacpp.model
  - onprem.llamacpp.model.transfer
  - onprem.llamacpp.model.unit
attributes:
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
bytes_adopted:
  description: Bytes of these that were published on the host before, and are linked.
  returned: success
  type: int
source:
  description: Source that is in use.
  returned: success
  type: str
repaired:
  description: Whether the model was published by this run, or published anew after damage.
  returned: success
  type: bool
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

from ansible_collections.onprem.llamacpp.plugins.module_utils._arguments import MODEL, TRANSFER, UNIT
from ansible_collections.onprem.llamacpp.plugins.module_utils._fetch_unit import Download
from ansible_collections.onprem.llamacpp.plugins.module_utils._host import run_command
from ansible_collections.onprem.llamacpp.plugins.module_utils._model_store import PLAIN_PATH, Model, StoreError
from ansible_collections.onprem.llamacpp.plugins.module_utils._pace import Hours, PaceError
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
    if download.satisfied():
        return dict(download.progress(finished=True), changed=False, repaired=False)
    if not model.files:
        raise StoreError(f"No files are given for {model.repo_id} {model.quant}.")
    if module.check_mode:
        return foretell(download, model, module.params)
    require_systemd(module)
    complete = model.complete()
    deadline = time.monotonic() + max(module.params["wait"], 0.0)
    while True:
        with download.lock():
            finished = download.step()
        if finished or time.monotonic() >= deadline:
            break
        time.sleep(POLL_SECONDS)
    # To read a model that is complete changes nothing; to repair it does.
    changed = download.repaired if complete else True
    diff = {"diff": {"before": "", "after": model.listing()}} if changed else {}
    return dict(download.progress(finished), changed=changed, repaired=download.repaired, **diff)


def foretell(download: Download, model: Model, params: dict[str, Any]) -> dict[str, Any]:
    """What a run would do."""
    copies = download.copies()
    wanted = download.job_files(copies)
    read = [item for item in wanted if "published" in item]
    fetched = [item for item in wanted if "published" not in item]
    found = download.progress()
    download.check_space(wanted)
    told = []
    if fetched:
        left = sum(item["size"] for item in wanted) - (found["bytes_done"] - found["bytes_adopted"])
        size = f"{amount(left)} of {amount(model.bytes)}"
        sources = ", then ".join(entry["url"] for entry in params["sources"])
        told.append(f"Would download {len(fetched)} files, {size}, from {sources} to {model.path}.")
    if found["bytes_adopted"]:
        told.append(f"Would link {len(model.files) - len(wanted)} files, {amount(found['bytes_adopted'])}, that are on this host already.")
    if read:
        size = amount(sum(item["size"] for item in read))
        told.append(f"Would read {len(read)} published files, {size}, compare their hashes, and fetch what is damaged.")
    changed = not model.complete()
    diff = {"diff": {"before": "", "after": model.listing()}} if changed else {}
    return dict(found, changed=changed, repaired=False, msg=" ".join(told), **diff)


def check_params(params: dict[str, Any]) -> None:
    """Raises StoreError for options that make no sense."""
    if not params["sources"]:
        raise StoreError("sources is empty: name at least one.")
    for entry in params["sources"]:
        wanted = PLAIN_PATH.match(entry["url"]) if entry["transport"] == "directory" else entry["url"].startswith(("http://", "https://"))
        if not wanted:
            kind = "an absolute path of plain characters" if entry["transport"] == "directory" else "an http or https URL"
            raise StoreError(f"The source {entry['url']!r} is not {kind}.")
    for name, least, most in (("connections", 1, 16), ("files_at_once", 1, 8), ("rate_limit", 0, 1 << 50)):
        if not least <= params[name] <= most:
            raise StoreError(f"{name} {params[name]} is not usable: it is a number from {least} to {most}.")
    try:
        Hours(params["window"])
    except PaceError as error:
        raise StoreError(str(error)) from error


def remove(module: AnsibleModule, model: Model) -> dict[str, Any]:
    download = Download(model, module.params, run)
    changed = model.present()
    result = {"changed": changed, "finished": True, "path": model.path, "unit": download.unit}
    if changed:
        result["diff"] = {"before": f"{model.path}\n", "after": ""}
        if not module.check_mode:
            download.absent()
    nothing = {"bytes_total": 0, "bytes_done": 0, "bytes_adopted": 0, "rate": 0, "eta_seconds": None, "file": "", "source": "", "note": ""}
    return dict(result, repaired=False, **nothing)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **MODEL,
            **TRANSFER,
            **UNIT,
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "controller_directory": {"type": "path"},
            "sources": {
                "type": "list",
                "elements": "dict",
                "default": [{"transport": "hub", "url": "https://huggingface.co"}],
                "options": {
                    "transport": {"type": "str", "choices": ["hub", "mirror", "directory"], "default": "hub"},
                    "url": {"type": "str", "required": True},
                    "token": {"type": "str", "default": "", "no_log": True},
                },
            },
            "verify": {"type": "str", "choices": ["none", "sizes", "full"], "default": "none"},
            "connections": {"type": "int", "default": 4},
            "files_at_once": {"type": "int", "default": 2},
            "ca_file": {"type": "path"},
            "run_id": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        check_params(params)
        model = Model(params["root"], params["repo_id"], params["commit"], params["quant"], params["files"], params["header"])
        result = fetch(module, model) if params["state"] == "present" else remove(module, model)
    except StoreError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename or params['root']}: {error.strerror}. The model was not published.")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
