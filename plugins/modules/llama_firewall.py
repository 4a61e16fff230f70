#!/usr/bin/python
# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: llama_firewall
short_description: Says to a host's firewall who may reach an instance's ports
version_added: 0.1.0
description:
  - V(firewalld) and V(ufw) get rules that let somebody in, beside those that are there. Both have to be in use already; neither is
    switched on.
  - V(nftables) gets a table of the instance's own that closes its ports to everybody else. A packet that another table drops stays
    dropped. It needs the unit C(llamacpp-firewall@.service) of the role C(llama_server).
  - What was let in for the instance before and is no longer wanted is taken out, whatever firewall it was said to.
options:
  instance:
    description: The name of the instance.
    type: str
    default: main
  kind:
    description: The firewall.
    type: str
    choices: [none, firewalld, ufw, nftables]
    required: true
  ports:
    description: TCP ports.
    type: list
    elements: int
    default: []
  sources:
    description: Addresses and networks that may reach them; everybody when empty.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - onprem.llamacpp.attributes
author:
  - onprem.llamacpp contributors (@onprem)
"""

EXAMPLES = r"""
- name: Let the application's hosts in
  onprem.llamacpp.llama_firewall:
    kind: ufw
    ports: [8443]
    sources: [10.1.2.0/24]
  become: true
"""

RETURN = r"""
rules:
  description: What is let in.
  returned: always
  type: list
  elements: dict
  sample: [{port: 8443, source: 10.1.2.0/24}]
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.onprem.llamacpp.plugins.module_utils import _firewall


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "instance": {"type": "str", "default": "main"},
            "kind": {"type": "str", "choices": ["none", "firewalld", "ufw", "nftables"], "required": True},
            "ports": {"type": "list", "elements": "int", "default": []},
            "sources": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        wanted = _firewall.rules(params["ports"], params["sources"])
        changed = _firewall.Firewall(params["instance"]).apply(params["kind"], wanted, module.check_mode)
    except _firewall.FirewallError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"The firewall's rules could not be recorded: {error.strerror}: {error.filename}")
    module.exit_json(changed=changed, rules=[rule._asdict() for rule in wanted])


if __name__ == "__main__":
    main()
