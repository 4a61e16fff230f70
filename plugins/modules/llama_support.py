#!/usr/bin/python
# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: llama_support
short_description: Packs what somebody who helps has to know of a host
version_added: 0.1.0
description:
  - Writes a tarball for the host on the controller, with its facts, the deployments, plans, gates and benchmarks of its instances,
    what systemd says of their units, and the end of their journals.
  - API keys, tokens, and what users asked and were answered are taken out on the host, before anything leaves it. Read the
    tarball before you give it away all the same.
  - Leaves nothing on the host.
options:
  destination:
    description: Folder on the controller for the tarball, which is named after the host. It is made when it is not there.
    type: path
    required: true
  documents:
    description: More texts for the tarball, by file name.
    type: dict
    default: {}
  journal_lines:
    description: Lines of each unit's journal.
    type: int
    default: 1000
extends_documentation_fragment:
  - onprem.llamacpp.attributes
attributes:
  action:
    description: Collects on the host, and packs on the controller.
    support: full
  check_mode:
    support: full
    details: Says which file would be written.
  diff_mode:
    support: none
    details: Only the controller gets a file.
author:
  - onprem.llamacpp contributors (@onprem)
"""

EXAMPLES = r"""
- name: Pack what a helper needs
  onprem.llamacpp.llama_support:
    destination: support
  become: true
"""

RETURN = r"""
path:
  description: The tarball on the controller.
  returned: always
  type: str
  sample: support/gpu-a.tar.gz
files:
  description: Names of the files in it.
  returned: when not in check mode
  type: list
  elements: str
"""

import json
import os
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.onprem.llamacpp.plugins.module_utils import _hardware, _instance, _redact
from ansible_collections.onprem.llamacpp.plugins.module_utils._host import Run, read_json, read_text, run_command

RECORDS = ("plan.json", "gate.json", "actual.json", "benchmark.json", "request.json")
LARGEST_LOG = 512 * 1024
TOOLS = {"nvidia-smi.txt": ["nvidia-smi", "-q"], "systemd.txt": ["systemctl", "--version"], "kernel.txt": ["uname", "-a"]}


def known_keys(root: str) -> set[str]:
    """Whatever may be a key in the files below a folder that are closed to others; it is compared with and goes nowhere."""
    found: set[str] = set()
    for folder, _folders, files in os.walk(root):
        for path in (os.path.join(folder, name) for name in files):
            if not os.path.islink(path) and not os.stat(path).st_mode & 0o077:
                found |= _redact.keys_of(read_text(path))
    return found


def of_instance(instance: _instance.Instance, lines: int, run: Run) -> dict[str, str]:
    """The files about one instance, not yet free of keys."""
    found = {}
    for identity in filter(None, dict.fromkeys([instance.current(), instance.previous()])):
        for name, text in instance.documents(identity).items():
            found[f"{identity}/{name}"] = text
        for name in RECORDS:
            record = read_json(instance.record(identity, name))
            if record:
                found[f"{identity}/{name}"] = _instance.to_json(_redact.document(record))
    found["switch.json"] = _instance.to_json(_redact.document(instance.journal()))
    found["links.json"] = _instance.to_json({"current": instance.current(), "previous": instance.previous()})
    unit = f"llamacpp@{instance.name}.service"
    found["unit.txt"] = run(["systemctl", "show", unit])[1]
    for name, units in (("server.log", [unit]), ("switch.log", [f"llamacpp-switch-{instance.name}.service", "llamacpp-recover.service"])):
        chosen = [f"--unit={each}" for each in units]
        out = run(["journalctl", "--quiet", "--no-pager", "--output=short-iso", f"--lines={lines}", *chosen])[1]
        found[name] = _redact.log(out[-LARGEST_LOG:], [])
    return found


def collect(
    lines: int,
    more: dict[str, str],
    run: Run = run_command,
    config_root: str = _instance.CONFIG_ROOT,
    state_root: str = _instance.STATE_ROOT,
) -> dict[str, str]:
    """All files by name, with C(more) of them, without keys, tokens, questions and answers."""
    names = _instance.instances(config_root)
    instances = [_instance.Instance(name, config_root, state_root) for name in names]
    ports = [int(read_json(f"{each.deployment(each.current())}/deployment.json").get("port", 0)) for each in instances if each.current()]
    facts = _hardware.collect(["/", "/var/lib/llamacpp/models"], ports, may_write=False)
    found = {
        **more,
        "collected_at.txt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()) + "\n",
        "facts.json": _instance.to_json(_redact.document(facts)),
    }
    for name, argv in TOOLS.items():
        status, out, _err = run(argv)
        if status == 0:
            found[name] = out
    for instance in instances:
        found.update({f"instances/{instance.name}/{name}": text for name, text in of_instance(instance, lines, run).items()})
    keys = known_keys(os.path.dirname(config_root))
    return {name: _redact.text(text, keys) for name, text in found.items()}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "destination": {"type": "path", "required": True},
            "documents": {"type": "dict", "default": {}},
            "journal_lines": {"type": "int", "default": 1000},
        },
        supports_check_mode=True,
    )
    if module.check_mode:
        module.exit_json(changed=False, collected={})
    params: dict[str, Any] = module.params
    more = {name: text if isinstance(text, str) else json.dumps(text, indent=2) for name, text in params["documents"].items()}
    module.exit_json(changed=False, collected=collect(params["journal_lines"], more))


if __name__ == "__main__":
    main()
