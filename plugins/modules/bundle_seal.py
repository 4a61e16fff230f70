#!/usr/bin/python
# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation and wiring of the module; the work is done in module_utils."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: bundle_seal
short_description: Write the index and the checksums of a bundle
version_added: 0.1.0
description:
  - Writes C(bundle.json), which says what a bundle was made for, and C(SHA256SUMS), which C(sha256sum -c) reads.
  - The checksums are written last. A file that they do not name is not part of the bundle.
  - Weights are not read again, because their manifest was written when they were verified.
options:
  path:
    description: Directory of the bundle.
    type: path
    required: true
  parts:
    description: Folder of each part with its C(kind) and the C(inputs) that it was made from.
    type: dict
    required: true
  about:
    description: What else the index says.
    type: dict
    default: {}
extends_documentation_fragment:
  - onprem.llamacpp.attributes
attributes:
  check_mode:
    support: none
author:
  - onprem.llamacpp contributors (@onprem)
"""

EXAMPLES = r"""
---
- name: Seal a bundle
  onprem.llamacpp.bundle_seal:
    path: /mnt/usb
    parts:
      wheels/: {kind: wheels, inputs: {requirements: [ansible-core==2.19.4]}}
"""

RETURN = r"""
---
bytes:
  description: Size of each kind of part in bytes.
  returned: success
  type: dict
  sample: {model: 381000000000, packages: 126817156}
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.onprem.llamacpp.plugins.module_utils import _bundle


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "parts": {"type": "dict", "required": True},
            "about": {"type": "dict", "default": {}},
        },
    )
    path = module.params["path"]
    try:
        changed = _bundle.seal(path, module.params["parts"], module.params["about"])
        sizes: dict[str, int] = {}
        for part in _bundle.read_index(path)["parts"].values():
            sizes[part["kind"]] = sizes.get(part["kind"], 0) + part["bytes"]
    except _bundle.BundleError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename or path}: {error.strerror}. The bundle was not sealed.")
    module.exit_json(changed=changed, bytes=sizes)


if __name__ == "__main__":
    main()
