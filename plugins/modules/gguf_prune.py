#!/usr/bin/python
# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation and wiring of the module; the work is done in module_utils."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: gguf_prune
short_description: Remove models that a host no longer needs
version_added: 0.1.0
description:
  - Removes models that M(onprem.llamacpp.gguf_download) has published, the oldest first, as far as O(free_bytes) asks for.
  - A model that the current or the previous deployment of any server instance uses stays, and so does one that a program has open.
    A deployment that cannot be read ends the module before anything is removed.
  - On a filesystem that several hosts share nothing is removed, because the deployments of other hosts are not known here.
  - Directories of transfers that nobody goes on with, and what an interrupted removal has left, go too.
options:
  root:
    description: Directory that holds all models.
    type: path
    default: /var/lib/llamacpp/models
  instance_root:
    description: Directory of the server instances, whose deployments say which models are in use.
    type: path
    default: /etc/llamacpp/instances
  keep:
    description: Models that stay although nothing uses them.
    type: list
    elements: dict
    default: []
    suboptions:
      repo_id:
        description: Repository as C(organisation/name).
        type: str
        required: true
      commit:
        description: Commit of the repository. Every commit when it is not given.
        type: str
      quant:
        description: Name of the quant. Every quant when it is not given.
        type: str
  free_bytes:
    description:
      - Bytes that shall be free on the filesystem of O(root). Nothing more is removed once they are.
      - Without it, everything goes that may go.
    type: int
  must_reach:
    description: Fail, before anything is removed, when O(free_bytes) cannot be reached. Otherwise RV(missing) tells.
    type: bool
    default: false
  unused:
    description: Whether models are removed that no deployment uses.
    type: bool
    default: true
  replace:
    description:
      - Name of an instance whose own models may go too, that of its previous deployment first, and only when that reaches O(free_bytes).
      - Its server is stopped when it has a file open that goes, because the room is not free before. One that has read its weights into
        memory serves on, but cannot be started again.
    type: str
  staging_days:
    description: Days after which a transfer that nothing was written to counts as given up. V(-1) leaves all of them.
    type: int
    default: 7
  shared:
    description: Remove from a filesystem of a network too. Only right when no other host uses it.
    type: bool
    default: false
extends_documentation_fragment:
  - onprem.llamacpp.attributes
attributes:
  diff_mode:
    support: full
seealso:
  - module: onprem.llamacpp.gguf_download
author:
  - onprem.llamacpp contributors (@onprem)
"""

EXAMPLES = r"""
---
- name: Keep what deployments use and one model more, and remove the rest
  become: true
  onprem.llamacpp.gguf_prune:
    keep:
      - repo_id: unsloth/Kimi-K2-Instruct-GGUF
        quant: UD-TQ1_0

- name: Remove old models until 650 GB are free
  become: true
  onprem.llamacpp.gguf_prune:
    free_bytes: 650000000000
"""

RETURN = r"""
---
removed:
  description: Models that were removed, in order, each with C(repo_id), C(commit), C(quant), C(path), C(bytes) and C(why).
  returned: success
  type: list
  elements: dict
  sample: [{"repo_id": org/Model-GGUF, "commit": 0123456789abcdef0123456789abcdef01234567, "quant": UD-TQ1_0, "bytes": 245000000000,
            "path": /var/lib/llamacpp/models/org--Model-GGUF/0123456789abcdef0123456789abcdef01234567/UD-TQ1_0,
            "why": no deployment uses it}]
kept:
  description: Models that stay, in the same form.
  returned: success
  type: list
  elements: dict
abandoned:
  description: Directories of given up transfers that were removed, with C(path) and C(bytes).
  returned: success
  type: list
  elements: dict
stopped:
  description: Units that were stopped because they had a removed file open.
  returned: success
  type: list
  elements: str
free:
  description: Bytes that are free afterwards; in check mode, that would be.
  returned: success
  type: int
missing:
  description: Bytes that O(free_bytes) is still short of.
  returned: success
  type: int
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.onprem.llamacpp.plugins.module_utils._host import Run, run_command
from ansible_collections.onprem.llamacpp.plugins.module_utils._prune_store import PruneError, Store
from ansible_collections.onprem.llamacpp.plugins.module_utils._words import amount


def run(argv: list[str]) -> tuple[int, str, str]:
    """Runs a tool of systemd's; stopping a server may take its time."""
    return run_command(argv, timeout=180.0)


def prune(params: dict[str, Any], check_mode: bool, run: Run = run) -> dict[str, Any]:
    """Remove what may go, or only say what would."""
    store = Store(params, run)
    leftovers = store.abandoned()
    store.free += sum(entry["bytes"] for entry in leftovers)
    choice = store.choose()
    stops = store.stops(choice)
    lines = [
        *(f"{entry['path']} {entry['bytes']}\n" for entry in leftovers),
        *(f"{model['path']} {model['bytes']}\n" for model in choice.remove),
    ]
    if not check_mode:
        store.remove(choice, leftovers)
    free = choice.free if check_mode else store.free_bytes()
    missing = max(0, (params["free_bytes"] or 0) - free)
    return {
        "changed": bool(lines),
        "removed": choice.remove,
        "kept": choice.keep,
        "abandoned": leftovers,
        "stopped": stops,
        "free": free,
        "missing": missing,
        "diff": {"before": "".join(lines), "after": ""},
        "msg": f"{amount(missing)} are still missing at {params['root']} to have {amount(params['free_bytes'])} free." if missing else "",
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "default": "/var/lib/llamacpp/models"},
            "instance_root": {"type": "path", "default": "/etc/llamacpp/instances"},
            "keep": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {"repo_id": {"type": "str", "required": True}, "commit": {"type": "str"}, "quant": {"type": "str"}},
            },
            "free_bytes": {"type": "int"},
            "must_reach": {"type": "bool", "default": False},
            "unused": {"type": "bool", "default": True},
            "replace": {"type": "str"},
            "staging_days": {"type": "int", "default": 7},
            "shared": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    try:
        result = prune(module.params, module.check_mode)
    except PruneError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(
            msg=f"{error.filename or module.params['root']}: {error.strerror}. What was to be removed is not all gone; run again."
        )
    module.exit_json(**result)


if __name__ == "__main__":
    main()
