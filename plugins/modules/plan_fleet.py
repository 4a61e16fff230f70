#!/usr/bin/python
# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: plan_fleet
short_description: Plans every host of a play, and shows the plans
version_added: 0.1.0
description:
  - Plans all hosts in one process, from what M(onprem.llamacpp.plan_inputs) has registered for each of them.
  - Shows a table for each host, and one for the fleet. Hosts without a plan are named.
  - Meant to run once, and inside the role P(onprem.llamacpp.llama_plan#role), whose private results it reads.
options:
  listings:
    description: What M(onprem.llamacpp.gguf_repo_info) has answered, each with the question in C(__llama_plan_ask).
    type: list
    elements: dict
    default: []
  unread:
    description: Why repositories could not be read, shown below the tables.
    type: list
    elements: str
    default: []
  document:
    description: Return RV(json), the plans as one document.
    type: bool
    default: false
extends_documentation_fragment:
  - onprem.llamacpp.attributes
attributes:
  action:
    description: Runs on the controller and needs no connection.
    support: full
  diff_mode:
    support: none
    details: Nothing is changed.
seealso:
  - plugin: onprem.llamacpp.host_plans
    plugin_type: filter
    description: Makes the plans of one host.
author:
  - onprem.llamacpp contributors (@onprem)
"""

EXAMPLES = r"""
- name: Decide what every host will serve
  onprem.llamacpp.plan_fleet:
    listings: "{{ listings.results }}"
  register: fleet
  run_once: true
"""

RETURN = r"""
plans:
  description: The plans of each host by its name in the inventory, and by instance.
  returned: always
  type: dict
refused:
  description: Why a host is refused, by its name in the inventory, for those of which an instance is.
  returned: always
  type: dict
json:
  description: The plans of all hosts as JSON, in the form of C(docs/plan.schema.json).
  returned: when O(document) is true
  type: str
"""
