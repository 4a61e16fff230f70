#!/usr/bin/python
# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation; the work is done by the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: bundle_files
short_description: Bring files of a bundle to the controller
version_added: 0.1.0
description:
  - Compares the files of some kinds with the checksums of their bundle, and refuses what differs by its name.
  - Where the bundle is on the host, its files are copied to the controller and compared again there. Files that are there already
    stay. Weights are never copied.
options:
  path:
    description: Directory of the bundle.
    type: path
    required: true
  at:
    description: Where O(path) is.
    type: str
    choices: [host, controller]
    default: host
  kinds:
    description: Kinds of parts whose files are wanted, as M(onprem.llamacpp.bundle_check) knows them. With V(model) the index comes too.
    type: list
    elements: str
    required: true
  inputs:
    description: Only parts that were made from these inputs.
    type: dict
    default: {}
  dest:
    description: Folder of the controller for the files, without the folders that they have in the bundle.
    type: path
  cache:
    description: Folder of the controller that gets a folder for the files, laid out as in the bundle, where O(dest) is not given.
    type: path
extends_documentation_fragment:
  - onprem.llamacpp.attributes
attributes:
  action:
    description: Runs on the controller, and runs M(onprem.llamacpp.bundle_check) on the host.
    support: full
  check_mode:
    support: full
    details: Brings the files too, because what follows is decided by them.
seealso:
  - module: onprem.llamacpp.bundle_check
author:
  - onprem.llamacpp contributors (@onprem)
"""

EXAMPLES = r"""
---
- name: Bring an engine from a disk on the host to the controller's cache
  onprem.llamacpp.bundle_files:
    path: /mnt/usb
    kinds: [engine]
    inputs: {build_id: b11549-cpu-x86_64-0f6d59c1}
    dest: ~/.cache/onprem-llamacpp/engines
"""

RETURN = r"""
---
folder:
  description: Folder of the controller that has the files.
  returned: success
  type: str
files:
  description: The files by their path in the bundle, with their SHA-256. Empty when the bundle has no such part.
  returned: success
  type: dict
fetched:
  description: The files that were copied.
  returned: when files may have to be copied
  type: list
  elements: str
"""
