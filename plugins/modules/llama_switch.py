#!/usr/bin/python
# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: llama_switch
short_description: Lets a server instance serve another deployment, or fails with the old one serving
version_added: 0.1.0
description:
  - Starts C(llamacpp-switch) on the host, detached from the connection, and shows its progress until it is done.
  - The switch restarts the server, asks it the questions of its gate, and goes back by itself when an answer is wrong.
  - The connection may break meanwhile; polling goes on when it comes back.
options:
  instance:
    description: The name of the instance.
    type: str
    default: main
  to:
    description: The id of the deployment to serve, or V(previous) for the one before.
    type: str
    required: true
  restart:
    description: Restart the server even when it runs this deployment already.
    type: bool
    default: false
  at_once:
    description: Do not read the model ahead while the old one serves, as a way back does not. V(previous) never does.
    type: bool
    default: false
  program:
    description: Where C(llamacpp-switch) is on the host.
    type: path
    default: /usr/local/libexec/llamacpp/llamacpp-switch
  patience:
    description:
      - Seconds for which the host may be out of reach before polling gives up. The switch itself goes on.
      - Until then a start that was cut off is tried again; the host starts nothing twice.
    type: int
    default: 300
extends_documentation_fragment:
  - onprem.llamacpp.attributes
attributes:
  action:
    description: Runs on the controller, and calls the program on the host.
    support: full
  check_mode:
    support: full
    details: Says which switch it would start.
  diff_mode:
    support: none
    details: M(onprem.llamacpp.llama_deployment) shows how the deployment differs.
seealso:
  - module: onprem.llamacpp.llama_deployment
author:
  - onprem.llamacpp contributors (@onprem)
"""

EXAMPLES = r"""
- name: Serve the deployment
  onprem.llamacpp.llama_switch:
    instance: main
    to: 3f2a9c0d1b7e
  become: true

- name: Serve the deployment before
  onprem.llamacpp.llama_switch:
    to: previous
  become: true
"""

RETURN = r"""
journal:
  description: The journal of the switch, with whatever it came to. After a failure the end of the server's log is in C(msg).
  returned: when the switch was followed to its end
  type: dict
  contains:
    state:
      description: V(committed), V(undone) or V(failed).
      type: str
      returned: always
      sample: committed
    reason:
      description: Why the switch was undone.
      type: str
      returned: always
    serving:
      description: The id of the deployment that serves now, empty when none does.
      type: str
      returned: always
      sample: 3f2a9c0d1b7e
lost:
  description: The host was out of reach for longer than O(patience), so that it is not known what came of its switch.
  returned: when it was
  type: bool
started:
  description: Whether the switch is known to have begun.
  returned: when the host was lost
  type: bool
"""
