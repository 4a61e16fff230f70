#!/usr/bin/python
# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: nvidia_driver_info
short_description: Tells what is installed and on offer of NVIDIA's driver, and why it does not work
version_added: 0.1.0
description:
  - Asks the package manager for versions, and, with O(kernel), collects what shows whether the driver works and names the cause
    where it does not.
  - Changes nothing and needs nothing but the host's Python.
author:
  - onprem.llamacpp contributors (@onprem)
extends_documentation_fragment:
  - onprem.llamacpp.attributes
attributes:
  diff_mode:
    support: none
    details: Nothing is changed.
options:
  manager:
    description: The package manager.
    type: str
    choices: [apt, dnf]
    default: apt
  packages:
    description: Packages whose versions on offer are returned.
    type: list
    elements: str
    default: []
  kernel:
    description: Release of the kernel that the modules are for. Without it nothing is diagnosed.
    type: str
    default: ""
  load:
    description: What C(modprobe) said when it could not load the modules.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Find out why the driver does not work
  onprem.llamacpp.nvidia_driver_info:
    kernel: "{{ ansible_facts.llama_hardware.os.kernel }}"
  register: driver
  become: true

- name: Show the cause
  ansible.builtin.debug:
    msg: "{{ driver.diagnosis.sentence }}"
"""

RETURN = r"""
available:
  description: Versions on offer by package, newest first.
  type: dict
  returned: always
installed:
  description: Every installed package with C(version), whether it is C(whole) and whether it is C(held).
  type: dict
  returned: always
unread:
  description: What the package manager says where it cannot read its repositories, else empty.
  type: str
  returned: always
holder:
  description: The process that holds the package manager's lock, with C(pid) and C(name), else empty.
  type: dict
  returned: always
kernels:
  description: Releases of the installed kernels.
  type: list
  elements: str
  returned: always
dkms:
  description: NVIDIA's modules that DKMS knows, with C(name), C(version), C(kernel) (empty before one is built) and C(state).
  type: list
  elements: dict
  returned: always
evidence:
  description: What the diagnosis rests on.
  type: dict
  returned: with O(kernel)
diagnosis:
  description:
    - C(working), C(version), the devices C(listed) and C(missing), and where it does not work C(cause) and C(sentence).
    - The cause is one of V(headers), V(compile), V(build), V(kernel), V(missing), V(secure_boot), V(nouveau), V(modules), V(mismatch),
      V(container), V(device), V(no_device), V(load), V(smi).
  type: dict
  returned: with O(kernel)
"""

import functools

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.onprem.llamacpp.plugins.module_utils import _driver_diagnosis, _driver_packages, _driver_state
from ansible_collections.onprem.llamacpp.plugins.module_utils._host import run_command

PATIENCE = 300.0  # seconds; dnf may have to fetch the lists of all its repositories first
WAKING = 120.0  # seconds; nvidia-smi wakes devices one after the other where no persistence daemon keeps them awake


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "manager": {"type": "str", "choices": ["apt", "dnf"], "default": "apt"},
            "packages": {"type": "list", "elements": "str", "default": []},
            "kernel": {"type": "str", "default": ""},
            "load": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    options = module.params
    result = _driver_packages.collect(options["manager"], options["packages"], functools.partial(run_command, timeout=PATIENCE))
    result["kernels"] = [entry["release"] for entry in _driver_state.kernels()]
    result["dkms"] = _driver_diagnosis.dkms_states(run_command(["dkms", "status"])[1])
    if options["kernel"]:
        result["evidence"] = _driver_diagnosis.collect(options["kernel"], options["load"], functools.partial(run_command, timeout=WAKING))
        result["diagnosis"] = _driver_diagnosis.diagnose(result["evidence"])
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
