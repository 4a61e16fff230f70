#!/usr/bin/python
# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: llama_fit_info
short_description: Asks the installed engine what a model takes on the host's devices, before the model is there
version_added: 0.1.0
description:
  - Lays the headers of a model's shards into a private directory as sparse files of their full size, asks C(llama-fit-params)
    on the real devices with the flags that the server will get, and removes them again.
  - Searches for the placement that uses the devices best, which is the one with the fewest layers whose experts stay in host
    memory, and the split over the devices that goes with it.
  - Host memory is not told, because the engine's own figure for it leaves out repacked weights. It follows from the header.
  - The engine runs as the user V(nobody), since a header comes from elsewhere.
options:
  engine:
    description: Folder of the engine's release.
    type: path
    required: true
  header:
    description:
      - Summary of the model's header, as M(onprem.llamacpp.gguf_repo_info) returns it in
        RV(onprem.llamacpp.gguf_repo_info#module:quants).
    type: dict
    required: true
  model:
    description:
      - First shard of the model where it is on the host already. Without it the headers that O(header) names are sent there.
    type: path
    default: ""
  environment:
    description: Environment that the server will get, such as what the filter P(onprem.llamacpp.server_environment#filter) returns.
    type: dict
    default: {}
  placement:
    description: The planned placement, with C(ctx_size), C(parallel), C(cache_type_k), C(cache_type_v) and C(ubatch_size).
    type: dict
    required: true
  devices:
    description: Devices in the engine's order, each with C(uuid), C(engine_name) and C(capacity) in bytes.
    type: list
    elements: dict
    required: true
  search:
    description: Whether a better placement is looked for, or only the one given is sized.
    type: bool
    default: true
  work_root:
    description: Folder in which, or above which, the private directory is made. Its filesystem has to keep holes in files.
    type: path
    default: /var/lib/llamacpp
  timeout:
    description: Seconds to wait for each answer of the engine.
    type: float
    default: 120
  bundle:
    description: Archive of the headers on the host. The action sets it.
    type: path
    default: ""
extends_documentation_fragment:
  - onprem.llamacpp.attributes
attributes:
  diff_mode:
    support: none
    details: Nothing is changed.
seealso:
  - module: onprem.llamacpp.gguf_repo_info
author:
  - onprem.llamacpp contributors (@onprem)
"""

EXAMPLES = r"""
- name: Ask the engine what the quant takes on the devices
  onprem.llamacpp.llama_fit_info:
    engine: /opt/llamacpp/releases/b11549-cuda-x86_64-75-0f6d59c1
    header: "{{ repository.quants['UD-Q2_K_XL'].header }}"
    placement: "{{ llama_plan_result.placement }}"
    devices: "{{ llama_plan_result.devices }}"
  become: true
  register: exact
"""

RETURN = r"""
asked:
  description: Whether the engine could be asked. Without it, RV(reason) says why.
  returned: success
  type: bool
reason:
  description: Why the engine could not be asked; empty when it was.
  returned: success
  type: str
fits:
  description: Whether the placement is within the capacities by the engine's figures. When it is not, it is the best one found.
  returned: when the engine was asked
  type: bool
placement:
  description: The placement that was found, C(n_gpu_layers), C(n_cpu_moe) and C(tensor_split).
  returned: when the engine was asked
  type: dict
devices:
  description: What the placement takes on each device, in bytes.
  returned: when the engine was asked
  type: list
  elements: dict
  sample:
    - uuid: GPU-6ee1a3b4-5b57-9c38-6a6e-0d4f2f3a9e11
      engine_name: CUDA0
      weights: 9824108544
      context: 1151336448
      compute: 411041792
questions:
  description: How often the engine was asked.
  returned: when the engine was asked
  type: int
seconds:
  description: How long it took.
  returned: success
  type: float
"""

import os
import time

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.onprem.llamacpp.plugins.module_utils import _fit_info
from ansible_collections.onprem.llamacpp.plugins.module_utils._placement import planned_setup


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "engine": {"type": "path", "required": True},
            "header": {"type": "dict", "required": True},
            "model": {"type": "path", "default": ""},
            "environment": {"type": "dict", "default": {}},
            "placement": {"type": "dict", "required": True},
            "devices": {"type": "list", "elements": "dict", "required": True},
            "search": {"type": "bool", "default": True},
            "work_root": {"type": "path", "default": "/var/lib/llamacpp"},
            "timeout": {"type": "float", "default": 120},
            "bundle": {"type": "path", "default": ""},
        },
        supports_check_mode=True,
    )
    params, started = module.params, time.monotonic()
    program = os.path.join(params["engine"], "bin", "llama-fit-params")
    environment = {key: str(value) for key, value in params["environment"].items()}
    answer = {"asked": False, "reason": ""}
    try:
        with _fit_info.private_folder(params["work_root"]) as folder:
            model = params["model"] or _fit_info.unpack(params["bundle"], folder)
            _fit_info.hand_over(folder)
            engine = _fit_info.Engine(program, environment, folder, params["timeout"])
            setup = planned_setup(params["placement"])
            answer.update(_fit_info.fit(engine, model, params["header"], setup, params["devices"], params["search"]), asked=True)
    except (_fit_info.FitError, ValueError) as error:
        answer["reason"] = str(error)
    except OSError as error:
        answer["reason"] = f"no stub can be laid into {params['work_root']}: {error.strerror}"
    module.exit_json(changed=False, seconds=round(time.monotonic() - started, 2), **answer)


if __name__ == "__main__":
    main()
