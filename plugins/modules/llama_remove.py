#!/usr/bin/python
# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: llama_remove
short_description: Removes server instances, engines and models from a host
version_added: 0.1.0
description:
  - Removes what the roles of this collection have put on a host, and nothing else. Instances, engines and models are asked for
    separately.
  - With the last instance go the units, the programs, and the user of the server.
  - Nothing is removed when something that stays needs any of it. RV(refusals) in the error has all reasons at once.
  - Packages of the distribution stay installed, because others may use them; RV(packages) names them. Their hold is taken off.
options:
  instances:
    description: Names of the instances that go, with deployments, API keys and records. V(all) stands for all of them.
    type: list
    elements: str
    default: []
  engines:
    description: Whether all engines go, with what builds have left and the compilers that were unpacked for them.
    type: bool
    default: false
  models:
    description: Whether all models go, and what interrupted transfers have left.
    type: bool
    default: false
  engine_root:
    description: Folder that holds the engines.
    type: path
    default: /opt/llamacpp
  model_root:
    description: Folder that holds the models.
    type: path
    default: /var/lib/llamacpp/models
  model_user:
    description: The user that models were fetched by. It goes with them.
    type: str
    default: llamacpp-fetch
extends_documentation_fragment:
  - onprem.llamacpp.attributes
attributes:
  diff_mode:
    support: full
seealso:
  - module: onprem.llamacpp.gguf_prune
author:
  - onprem.llamacpp contributors (@onprem)
"""

EXAMPLES = r"""
- name: Remove one instance, and leave engine and model for others
  onprem.llamacpp.llama_remove:
    instances: [small]
  become: true

- name: Leave nothing
  onprem.llamacpp.llama_remove:
    instances: [all]
    engines: true
    models: true
  become: true
"""

RETURN = r"""
removed:
  description:
    - What was removed, in order.
    - C(kind) is C(unit), C(file), C(folder), C(model), C(empty) for an empty folder, C(hold), C(user),
      C(front) or C(firewall).
  returned: success
  type: list
  elements: dict
  sample: [{"kind": "folder", "what": "/etc/llamacpp/instances/main"}]
packages:
  description: Packages that engines were made of, and which stay installed.
  returned: success
  type: list
  elements: str
front_ports:
  description: Ports that nginx listened on for the instances that were removed.
  returned: success
  type: list
  elements: int
refusals:
  description: Why nothing was removed.
  returned: failure
  type: list
  elements: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.onprem.llamacpp.plugins.module_utils import _firewall, _front, _instance, _removal
from ansible_collections.onprem.llamacpp.plugins.module_utils._host import Run, run_command


def run(argv: list[str]) -> tuple[int, str, str]:
    """Runs a tool; stopping a server may take its time."""
    return run_command(argv, timeout=180.0)


def remove(params: dict[str, Any], check_mode: bool, run: Run = run, root: str = "/", proc: str = "/proc") -> dict[str, Any]:
    """Remove what is asked for, or only say what would go; C(refusals) instead where something stands in the way."""
    wish = _removal.Wish(params["instances"], params["engines"], params["models"])
    places = _removal.Places(params["engine_root"], params["model_root"], params["model_user"], root)
    removal = _removal.Removal(wish, places, run, proc)
    refusals = removal.refusals()
    if refusals:
        return {"changed": False, "refusals": refusals}
    steps = removal.steps()
    packages = removal.packages() if wish.engines else []
    ports = removal.front_ports(steps)
    if not check_mode:
        removal.carry_out(steps)
    return {
        "changed": bool(steps),
        "removed": _removal.summary(steps),
        "packages": packages,
        "front_ports": ports,
        "diff": {"before": _removal.lines(steps), "after": ""},
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "instances": {"type": "list", "elements": "str", "default": []},
            "engines": {"type": "bool", "default": False},
            "models": {"type": "bool", "default": False},
            "engine_root": {"type": "path", "default": "/opt/llamacpp"},
            "model_root": {"type": "path", "default": "/var/lib/llamacpp/models"},
            "model_user": {"type": "str", "default": "llamacpp-fetch"},
        },
        supports_check_mode=True,
    )
    for name in module.params["instances"]:
        if not _instance.NAME.match(name):
            module.fail_json(msg=f"{name!r} is not a valid instance name: {_instance.NAME_RULE}.")
    try:
        result = remove(module.params, module.check_mode)
    except (_removal.RemovalError, _front.FrontError, _firewall.FirewallError, OSError) as error:
        module.fail_json(msg=f"{str(error).rstrip('.')}. What was to be removed is not all gone; run again.")
    if "refusals" in result:
        module.fail_json(msg="Nothing was removed: " + "; ".join(result["refusals"]) + ".", **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
