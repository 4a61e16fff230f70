#!/usr/bin/python
# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: plan_inputs
short_description: Brings together what the plan of a host is made of
version_added: 0.1.0
description:
  - Checks the wish, finds the model in the catalogue, collects the host's facts, and tells whether the model's repository must be asked.
  - A number that cannot be planned with, an unknown model, and recorded facts of another schema are refused in a sentence.
  - With O(recorded) no connection is made.
options:
  settings:
    description: The wish and the policy, as the role P(onprem.llamacpp.llama_plan#role) gathers them in C(vars/main.yml).
    type: dict
    required: true
  catalog:
    description: The user's entries by key. They win over those that the role has loaded from C(vars/catalog).
    type: dict
    default: {}
  advisories:
    description:
      - The user's advisories. One with the id of one that the role has loaded from C(vars/advisories.yml) replaces it.
    type: list
    elements: dict
    default: []
  instances:
    description:
      - Further instances of the host, as C(llama_instances) has them. They get O(settings) but for the keys that they have themselves.
    type: list
    elements: dict
    default: []
  serving:
    description: What decides the ports that instances take, C(fronted), C(metrics), C(overlap), and the ports of the main one.
    type: dict
    default: {}
  hardware:
    description: Options for M(onprem.llamacpp.hardware_facts).
    type: dict
    default: {}
  recorded:
    description: Facts of this host that were collected earlier, instead of collecting them.
    type: dict
extends_documentation_fragment:
  - onprem.llamacpp.attributes
attributes:
  action:
    description: Runs on the controller, and runs M(onprem.llamacpp.hardware_facts) on the host.
    support: full
  diff_mode:
    support: none
    details: Nothing is changed.
  facts:
    description: Returns C(ansible_facts) when they were collected.
    support: full
seealso:
  - module: onprem.llamacpp.hardware_facts
  - plugin: onprem.llamacpp.fit_plan
    plugin_type: filter
    description: Makes the plan.
author:
  - onprem.llamacpp contributors (@onprem)
"""

EXAMPLES = r"""
- name: Collect what the plan is made of
  onprem.llamacpp.plan_inputs:
    settings: "{{ settings }}"
    hardware:
      model_root: /var/lib/llamacpp/models
  register: inputs
"""

RETURN = r"""
facts:
  description: The host's facts, collected now or recorded earlier.
  returned: success
  type: dict
recorded:
  description: Whether RV(facts) were recorded earlier.
  returned: success
  type: bool
ansible_facts:
  description: C(llama_hardware), as M(onprem.llamacpp.hardware_facts) returns it.
  returned: when O(recorded) is not given
  type: dict
wishes:
  description:
    - What is wished of each instance by its name, in the order in which they are planned. C(settings), checked; C(entry), the catalogue
      entry of the model with C(alias) and C(repo_id); C(question), what M(onprem.llamacpp.gguf_repo_info) must be asked before a plan can
      be made, empty when it need not be; C(ports) by what sets them; C(instance), every key of a further instance.
  returned: success
  type: dict
questions:
  description: The questions of all instances that have one.
  returned: success
  type: list
  elements: dict
"""
