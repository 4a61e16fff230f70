#!/usr/bin/python
# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: hardware_facts
short_description: Collects what a plan needs to know about a host
version_added: 0.1.0
description:
  - Reads hardware, disks, engines, models and instances of a host in one run, with nothing but the host's Python.
  - Sources are procfs, sysfs, C(nvidia-smi) when there is one, and the documents that this collection's roles leave behind.
  - A tool that is missing, fails or hangs becomes an entry in RV(ansible_facts.llama_hardware.warnings), never a failure.
options:
  paths:
    description: Absolute paths whose filesystems are reported; a path need not exist yet.
    type: list
    elements: path
    default: [/opt/llamacpp, /var/lib/llamacpp/models]
  ports:
    description: TCP ports for which listening programs are reported. Naming programs of other users needs root.
    type: list
    elements: int
    default: [8080]
  engine_root:
    description: Folder that holds the engine releases.
    type: path
    default: /opt/llamacpp
  model_root:
    description: Folder that holds the published models.
    type: path
    default: /var/lib/llamacpp/models
  device_backend:
    description:
      - Where devices are read from.
      - V(auto) and V(cuda) ask C(nvidia-smi), V(vulkan) and V(rpc) ask an installed engine of that backend, V(cpu) reports none.
    type: str
    choices: [auto, cpu, cuda, vulkan, rpc]
    default: auto
  engine_environment:
    description: Environment variables for that engine, such as E(LLAMA_ARG_RPC) or E(GGML_VK_VISIBLE_DEVICES).
    type: dict
    default: {}
extends_documentation_fragment:
  - onprem.llamacpp.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details: Nothing is changed.
  facts:
    description: Returns C(ansible_facts).
    support: full
seealso:
  - plugin: onprem.llamacpp.fit_plan
    plugin_type: filter
    description: Turns these facts into a plan.
author:
  - onprem.llamacpp contributors (@onprem)
"""

EXAMPLES = r"""
- name: Collect hardware facts
  onprem.llamacpp.hardware_facts:
  become: true

- name: Show the memory of the host
  ansible.builtin.debug:
    msg: "{{ ansible_facts.llama_hardware.memory.total }} bytes"
"""

RETURN = r"""
ansible_facts:
  description: Facts of the host.
  returned: always
  type: dict
  contains:
    llama_hardware:
      description: Hardware and what this collection has put on the host. Sizes are bytes.
      returned: always
      type: dict
      contains:
        schema_version:
          description: Version of this structure.
          type: int
          returned: always
          sample: 1
        collected_at:
          description: When the facts were read, UTC.
          type: str
          returned: always
          sample: "2026-11-21T22:00:00Z"
        platform:
          description: Distribution and release.
          type: str
          returned: always
          sample: debian-12
        memory:
          description: The host's memory and swap.
          type: dict
          returned: always
          sample: {"total": 67392348160, "swap_total": 0}
        cpu:
          description: Model, cores, threads, flags and NUMA nodes.
          type: dict
          returned: always
        devices:
          description: Devices a model can be placed on; C(foreign) is memory held by programs that are not ours.
          type: list
          elements: dict
          returned: always
          sample:
            - uuid: GPU-6ee1a3b4-5b57-9c38-6a6e-0d4f2f3a9e11
              kind: cuda
              engine_name: CUDA0
              name: Tesla T4
              total: 16106127360
              foreign: 0
        disks:
          description: Filesystems of the paths asked for.
          type: list
          elements: dict
          returned: always
        engines:
          description: Engine releases with their C(build.json).
          type: list
          elements: dict
          returned: always
        models:
          description: Published models with their manifests.
          type: list
          elements: dict
          returned: always
        partial_models:
          description: Models that a download has begun, with the bytes it holds.
          type: list
          elements: dict
          returned: always
        instances:
          description: Server instances, their deployment and state.
          type: list
          elements: dict
          returned: always
        listeners:
          description: Programs that listen on the ports asked for.
          type: list
          elements: dict
          returned: always
        warnings:
          description: Sources that could not be read, in words.
          type: list
          elements: str
          returned: always
"""

from datetime import datetime, timezone

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.onprem.llamacpp.plugins.module_utils import _hardware


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "paths": {"type": "list", "elements": "path", "default": ["/opt/llamacpp", "/var/lib/llamacpp/models"]},
            "ports": {"type": "list", "elements": "int", "default": [8080]},
            "engine_root": {"type": "path", "default": "/opt/llamacpp"},
            "model_root": {"type": "path", "default": "/var/lib/llamacpp/models"},
            "device_backend": {"type": "str", "default": "auto", "choices": ["auto", "cpu", "cuda", "vulkan", "rpc"]},
            "engine_environment": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    environment = {key: str(value) for key, value in module.params["engine_environment"].items()}
    facts = _hardware.collect(**{**module.params, "engine_environment": environment})
    facts["collected_at"] = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    module.exit_json(changed=False, ansible_facts={"llama_hardware": facts})


if __name__ == "__main__":
    main()
