#!/usr/bin/python
# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: unpack_wheels
short_description: Makes a folder of what Python wheels carry
version_added: 0.1.0
description:
  - Verifies wheels and lays what they carry under one folder of theirs into a new folder, as programs with their permissions and
    libraries with their links.
  - The folder appears under its name when it is whole. One that was made of the same wheels is left alone.
options:
  path:
    description: The folder to make.
    type: path
    required: true
  source:
    description: The folder on the host that holds the wheels.
    type: path
    required: true
  inside:
    description: The folder inside the wheels.
    type: str
    required: true
  wheels:
    description: The wheels, all of which are needed.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The project's name.
        type: str
        required: true
      version:
        description: The version.
        type: str
        required: true
      sha256:
        description: Checksum of the wheel for this host's architecture.
        type: str
        required: true
extends_documentation_fragment:
  - onprem.llamacpp.attributes
attributes:
  diff_mode:
    support: none
    details: The files are too many and too large to be shown.
author:
  - onprem.llamacpp contributors (@onprem)
"""

EXAMPLES = r"""
- name: Unpack a compiler
  onprem.llamacpp.unpack_wheels:
    path: /opt/llamacpp/cuda/13.0.2
    source: /opt/llamacpp/cuda/wheels
    inside: nvidia/cu13
    wheels:
      - name: nvidia-cuda-nvcc
        version: 13.0.88
        sha256: 56fe502eb77625a12f25172caa3cdddb4e4c8ba2c8c17dba44b164761b380f03
  become: true
"""

RETURN = r"""
path:
  description: The folder.
  returned: always
  type: str
  sample: /opt/llamacpp/cuda/13.0.2
needed:
  description: Whether the folder had to be made, or would have been in check mode.
  returned: always
  type: bool
  sample: true
"""

import os
import shutil
import zipfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.onprem.llamacpp.plugins.module_utils import _files, _host, _wheels


def make(path: str, files: list[str], inside: str, manifest: dict[str, Any]) -> None:
    """Make the folder beside its place and put it there at once; what was there before goes."""
    parent, name = os.path.split(path)
    stage, old = os.path.join(parent, f".{name}.new"), os.path.join(parent, f".{name}.old")
    for leftover in (stage, old):
        shutil.rmtree(leftover, ignore_errors=True)
    os.makedirs(stage, mode=0o755)
    try:
        for file in files:
            _wheels.unpack(file, inside, stage)
        _wheels.link(stage)
        _files.write_json(os.path.join(stage, _wheels.MANIFEST), manifest)
        if os.path.lexists(path):
            os.rename(path, old)
        os.rename(stage, path)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def main() -> None:
    wheel = {key: {"type": "str", "required": True} for key in ("name", "version", "sha256")}
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "source": {"type": "path", "required": True},
            "inside": {"type": "str", "required": True},
            "wheels": {"type": "list", "elements": "dict", "required": True, "options": wheel},
        },
        supports_check_mode=True,
    )
    path, wheels = os.path.normpath(module.params["path"]), module.params["wheels"]
    manifest = _wheels.manifest(wheels)
    if _host.read_json(os.path.join(path, _wheels.MANIFEST)) == manifest:
        module.exit_json(changed=False, path=path, needed=False)
    if module.check_mode:
        module.exit_json(changed=True, path=path, needed=True)
    try:
        os.umask(0o022)
        make(path, _wheels.find(module.params["source"], wheels), module.params["inside"], manifest)
    except _wheels.WheelError as error:
        module.fail_json(msg=str(error))
    except (OSError, zipfile.BadZipFile) as error:
        module.fail_json(msg=f"{path} could not be made: {error}")
    module.exit_json(changed=True, path=path, needed=True)


if __name__ == "__main__":
    main()
