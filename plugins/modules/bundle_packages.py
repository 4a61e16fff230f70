#!/usr/bin/python
# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation and wiring of the module; the work is done in module_utils."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: bundle_packages
short_description: Collect distribution packages with everything that they need
version_added: 0.1.0
description:
  - Run on a connected machine of the platform that the packages are for, it resolves O(names) and all that they depend on, downloads
    what O(dest) lacks, and keeps it in O(dest) on the controller with an index, as a repository of one folder.
  - The set is closed over an empty system. It can be installed whatever the target has already.
  - apt resolves and verifies, with the system's sources and keys but a state of its own. Nothing is installed, and root is not needed.
options:
  names:
    description: Packages that are wanted.
    type: list
    elements: str
    required: true
  dest:
    description: Folder of the controller for the packages. What it holds beyond them is removed.
    type: path
    required: true
  have:
    description: SHA-256 of packages that need not be downloaded. Set by the task itself.
    type: list
    elements: str
    default: []
  work:
    description: Folder on the machine that the task downloads to. Set by the task itself.
    type: path
    default: ""
extends_documentation_fragment:
  - onprem.llamacpp.attributes
attributes:
  action:
    description: Runs on the controller too, which keeps the packages.
    support: full
  check_mode:
    support: none
requirements:
  - apt 2.0 or newer
author:
  - onprem.llamacpp contributors (@onprem)
"""

EXAMPLES = r"""
---
- name: Collect what the engine's libraries need
  onprem.llamacpp.bundle_packages:
    names: [libgomp1, libstdc++6, libssl3t64]
    dest: /mnt/usb/packages/debian-13-x86_64
"""

RETURN = r"""
---
packages:
  description: The packages with file, size in bytes and SHA-256.
  returned: success
  type: list
  elements: dict
  sample: [{name: libgomp1, version: 14.2.0-19, file: libgomp1_14.2.0-19_amd64.deb, size: 137000, sha256: 9f86d0}]
index:
  description: The text of the repository's index.
  returned: success
  type: str
downloaded:
  description: The files that were downloaded.
  returned: success
  type: list
  elements: str
"""

import os
import tempfile

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.onprem.llamacpp.plugins.module_utils import _apt_closure
from ansible_collections.onprem.llamacpp.plugins.module_utils._host import run_command


def run(argv: list[str]) -> tuple[int, str, str]:
    """Runs apt, which may have a slow network to wait for."""
    return run_command(argv, timeout=3600.0)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "names": {"type": "list", "elements": "str", "required": True},
            "dest": {"type": "path", "required": True},
            "have": {"type": "list", "elements": "str", "default": []},
            "work": {"type": "path", "default": ""},
        },
    )
    if not module.get_bin_path("apt-get"):
        module.fail_json(msg="There is no apt-get here. Packages are collected on a connected machine of the platform that they are for.")
    have = set(module.params["have"])
    try:
        with tempfile.TemporaryDirectory(prefix="llamacpp-bundle-") as state:
            apt = _apt_closure.Apt(state, run)
            apt("apt-get", "update")
            packages = _apt_closure.closure(apt, module.params["names"])
            missing = [package for package in packages if package.sha256 not in have]
            if missing:
                os.makedirs(module.params["work"], exist_ok=True)
                _apt_closure.download(apt, missing, module.params["work"])
    except _apt_closure.ClosureError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename}: {error.strerror}.")
    module.exit_json(
        changed=bool(missing),
        packages=[{key: value for key, value in package._asdict().items() if key != "stanza"} for package in packages],
        index=_apt_closure.index(packages),
        downloaded=[package.file for package in missing],
    )


if __name__ == "__main__":
    main()
