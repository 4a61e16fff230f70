#!/usr/bin/python
# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: llama_server_info
short_description: Tells what the server instances of a host serve
version_added: 0.1.0
description:
  - Reads deployments, the journal of the last switch, what the gate found, and whether the server answers.
  - Changes nothing and returns no secret.
options:
  instances:
    description: The instances to tell about; all of the host when empty.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - onprem.llamacpp.attributes
attributes:
  diff_mode:
    support: none
    details: Nothing is changed.
author:
  - onprem.llamacpp contributors (@onprem)
"""

EXAMPLES = r"""
- name: Read what is served
  onprem.llamacpp.llama_server_info:
  become: true
  register: served

- name: Show how fast the gate found it
  ansible.builtin.debug:
    msg: "{{ served.instances.main.gate.tokens_per_second }} tokens/s"
"""

RETURN = r"""
instances:
  description: The instances by name.
  returned: always
  type: dict
  contains:
    deployment:
      description: The C(deployment.json) of the current deployment; empty when there is none.
      type: dict
      returned: always
    previous:
      description: The id of the deployment before, empty when there is none.
      type: str
      returned: always
      sample: 0c11d2e98a47
    committed:
      description: Whether the current deployment passed its gate the last time that it had to.
      type: bool
      returned: always
      sample: true
    journal:
      description: The journal of the last switch.
      type: dict
      returned: always
    gate:
      description: What the last gate of the current deployment found.
      type: dict
      returned: always
    actual:
      description:
        - The memory that the server took, in bytes by buffer and kind, and C(devices) with what was planned for each and by how
          many percent it was missed.
      type: dict
      returned: always
    benchmark:
      description: What M(onprem.llamacpp.llama_benchmark) has measured of the current deployment; empty when it was never measured.
      type: dict
      returned: always
    active_state:
      description: What systemd says about the unit.
      type: str
      returned: always
      sample: active
    health:
      description: What the server's health page says, V(ok), V(loading), V(unreachable) or V(none) when nothing is deployed.
      type: str
      returned: always
      sample: ok
    inspection:
      description:
        - What C(llamacpp-switch inspect) says of it, empty where that program is not installed. C(drift) has a sentence for everything
          that is not as it was deployed, C(devices) the health of NVIDIA devices by UUID (C(uncorrected) memory errors and what they
          are C(slowed_by)), C(xids) what their driver reported since the start, C(uptime_seconds) and C(restarts) are the unit's.
      type: dict
      returned: always
    api_key_file:
      description: Where the API key is on the host.
      type: str
      returned: always
      sample: /etc/llamacpp/instances/main/api-keys
"""

import json
import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.onprem.llamacpp.plugins.module_utils import _instance, _server
from ansible_collections.onprem.llamacpp.plugins.module_utils._host import read_json, run_command

PROGRAM = "/usr/local/libexec/llamacpp/llamacpp-switch"


def describe(instance: _instance.Instance) -> dict[str, Any]:
    """What one instance serves, as its files and the server itself say."""
    current = instance.current()
    document = read_json(f"{instance.deployment(current)}/deployment.json") if current else {}
    return {
        "deployment": document,
        "previous": instance.previous(),
        "committed": instance.proven(),
        "journal": instance.journal(),
        "gate": read_json(instance.record(current, "gate.json")) if current else {},
        "actual": read_json(instance.record(current, "actual.json")) if current else {},
        "benchmark": read_json(instance.record(current, "benchmark.json")) if current else {},
        "active_state": _server.active_state(instance.name),
        "health": _server.health(document["host"], int(document["port"])) if document else "none",
        "inspection": inspection(instance.name),
        "api_key_file": instance.api_keys,
    }


def inspection(name: str) -> dict[str, Any]:
    """What the program of the host finds; it may read what the key opens, and returns nothing of it."""
    if not os.path.exists(PROGRAM):
        return {}
    status, out, _err = run_command([PROGRAM, "inspect", "--instance", name], timeout=120.0)
    try:
        found = json.loads(out) if status == 0 else {}
    except ValueError:
        found = {}
    return found if isinstance(found, dict) else {}


def main() -> None:
    module = AnsibleModule(
        argument_spec={"instances": {"type": "list", "elements": "str", "default": []}},
        supports_check_mode=True,
    )
    names = module.params["instances"] or _instance.instances()
    module.exit_json(changed=False, instances={name: describe(_instance.Instance(name)) for name in names})


if __name__ == "__main__":
    main()
