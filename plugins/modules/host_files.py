#!/usr/bin/python
# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: host_files
short_description: Installs several small text files in one run
version_added: 0.1.0
description:
  - Writes each file atomically, owned by the user that runs the module, and makes the folders above it.
  - One run on the host for all of them, where M(ansible.builtin.copy) takes two for each.
options:
  files:
    description: The files.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: The absolute path.
        type: path
        required: true
      content:
        description: The whole text. It may not hold a secret, because differences are shown.
        type: str
        required: true
      mode:
        description: The permissions, as octal digits.
        type: str
        default: "0644"
extends_documentation_fragment:
  - onprem.llamacpp.attributes
attributes:
  diff_mode:
    support: full
author:
  - onprem.llamacpp contributors (@onprem)
"""

EXAMPLES = r"""
- name: Install a program and its unit
  onprem.llamacpp.host_files:
    files:
      - path: /usr/local/libexec/example
        content: "{{ lookup('ansible.builtin.file', 'example') }}"
        mode: "0755"
      - path: /etc/systemd/system/example.service
        content: "{{ lookup('ansible.builtin.template', 'example.service.j2') }}"
  become: true
"""

RETURN = r"""
changed_paths:
  description: The files that were changed.
  returned: always
  type: list
  elements: str
  sample: [/etc/systemd/system/example.service]
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.onprem.llamacpp.plugins.module_utils import _instance


def apply(files: list[dict[str, Any]], check_mode: bool) -> dict[str, Any]:
    """Write the files that differ in text, mode or owner, or only say which."""
    changed, diff = [], []
    for entry in files:
        path, text, mode = entry["path"], entry["content"], int(entry["mode"], 8)
        before = _instance.read_text(path)
        if before == text and not os.path.islink(path):
            status = os.stat(path)
            if status.st_mode & 0o7777 == mode and status.st_uid == os.geteuid():
                continue
        changed.append(path)
        diff.append({"before_header": path, "before": before or "", "after_header": path, "after": text})
        if not check_mode:
            _instance.make_directory(os.path.dirname(path))
            _instance.write_file(path, text, mode)
    return {"changed": bool(changed), "changed_paths": changed, "diff": diff}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "files": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "path": {"type": "path", "required": True},
                    "content": {"type": "str", "required": True},
                    "mode": {"type": "str", "default": "0644"},
                },
            }
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(**apply(module.params["files"], module.check_mode))
    except (OSError, ValueError) as error:
        module.fail_json(msg=f"A file could not be installed: {error}")


if __name__ == "__main__":
    main()
