#!/usr/bin/python
# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation and wiring of the module; the work is done in module_utils."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: bundle_check
short_description: Compare a bundle with its checksums
version_added: 0.1.0
description:
  - Reads the files of a bundle that the playbook C(bundle) has made, and compares them with C(SHA256SUMS).
  - A file that is missing, empty or different is refused by its name, unless O(repair=true).
options:
  path:
    description: Directory of the bundle.
    type: path
    required: true
  kinds:
    description:
      - Look only at parts of these kinds, without weights. Weights are checked by the transfer that reads them.
      - Everything, weights too, where none is named.
    type: list
    elements: str
    choices: [collection, engine, headers, model, packages, source, wheels]
    default: []
  inputs:
    description: Look only at parts of O(kinds) that were made from these inputs.
    type: dict
    default: {}
  repair:
    description:
      - Remove what is damaged, so that it is fetched again. A directory without a bundle is no failure then.
    type: bool
    default: false
  read:
    description: Whether files are read. Otherwise only missing and empty ones are found.
    type: bool
    default: true
extends_documentation_fragment:
  - onprem.llamacpp.attributes
author:
  - onprem.llamacpp contributors (@onprem)
"""

EXAMPLES = r"""
---
- name: Check a whole bundle
  onprem.llamacpp.bundle_check:
    path: /mnt/usb

- name: Check the packages for this host
  onprem.llamacpp.bundle_check:
    path: /mnt/usb
    kinds: [packages]
    inputs:
      platform: debian-13
      architecture: x86_64
"""

RETURN = r"""
---
files:
  description: The files that were looked at, with their SHA-256.
  returned: success
  type: dict
  sample: {"bundle.json": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"}
damaged:
  description: What was damaged, as sentences. Not empty only with O(repair=true).
  returned: success
  type: list
  elements: str
  sample: ["wheels/jinja2-3.1.6-py3-none-any.whl is missing"]
parts:
  description: The parts of which every file is there, by their folder, with C(kind), C(inputs), C(bytes) and C(files).
  returned: success
  type: dict
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.onprem.llamacpp.plugins.module_utils import _bundle

KINDS = ["collection", "engine", "headers", "model", "packages", "source", "wheels"]


def check(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Compare, and with O(repair) remove what is damaged. Raises BundleError."""
    path = params["path"]
    if params["repair"] and not os.path.exists(os.path.join(path, _bundle.SUMS)):
        return {"changed": False, "files": {}, "damaged": [], "parts": {}}
    files = _bundle.files_of(path, params["kinds"], params["inputs"])
    found = _bundle.damages(path, files, params["read"])
    if not params["repair"]:
        _bundle.refuse(path, found)
    present = [os.path.join(path, item.path) for item in found if os.path.isfile(os.path.join(path, item.path))]
    if not check_mode:
        for name in present:
            os.remove(name)
    bad = {item.path for item in found}
    parts = _bundle.whole_parts(path, files) if not bad & {_bundle.INDEX} else {}
    whole = {prefix: part for prefix, part in parts.items() if not any(name.startswith(prefix) for name in bad)}
    return {"changed": bool(present), "files": files, "damaged": [f"{item.path} {item.reason}" for item in found], "parts": whole}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "kinds": {"type": "list", "elements": "str", "default": [], "choices": KINDS},
            "inputs": {"type": "dict", "default": {}},
            "repair": {"type": "bool", "default": False},
            "read": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(**check(module.params, module.check_mode))
    except _bundle.BundleError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename or module.params['path']}: {error.strerror}.")


if __name__ == "__main__":
    main()
