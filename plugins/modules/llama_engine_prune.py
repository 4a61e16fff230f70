#!/usr/bin/python
# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation and wiring of the module; what goes is decided in module_utils."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: llama_engine_prune
short_description: Remove engine releases that a host no longer needs
version_added: 0.1.0
description:
  - Removes releases of llama.cpp that the role P(onprem.llamacpp.llama_engine#role) has published, the oldest first.
  - A release that the current or the previous deployment of any server instance uses stays, and so does one that a program runs from.
    As long as a deployment does not tell which release it uses, all stay.
  - What an interrupted removal has left goes too, and so do folders of builds that failed or were interrupted, unless a build is under
    way in them. Packages that a release links to are not removed.
options:
  root:
    description: Folder that holds the releases in its folder C(releases).
    type: path
    default: /opt/llamacpp
  build_path:
    description: Folder of the builds, C(build) below O(root) when not given.
    type: path
  instance_root:
    description: Directory of the server instances, whose deployments say which releases are in use.
    type: path
    default: /etc/llamacpp/instances
  keep:
    description: How many releases stay that nothing uses, the newest. V(-1) keeps them all.
    type: int
    default: 2
  wanted:
    description: Build ids that stay, because they are about to be deployed, with what there is of their builds.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - onprem.llamacpp.attributes
attributes:
  diff_mode:
    support: full
seealso:
  - module: onprem.llamacpp.gguf_prune
author:
  - onprem.llamacpp contributors (@onprem)
"""

EXAMPLES = r"""
---
- name: Keep what serves, what served before, and one release more
  become: true
  onprem.llamacpp.llama_engine_prune:
    keep: 1
"""

RETURN = r"""
---
removed:
  description: Releases that were removed, in order, each with C(build_id) and C(path).
  returned: success
  type: list
  elements: dict
  sample: [{"build_id": b11434-cpu-x86_64-0a1b2c3d, "path": /opt/llamacpp/releases/b11434-cpu-x86_64-0a1b2c3d}]
busy:
  description: Releases that no deployment uses and a program has open, by path, with the program's name.
  returned: success
  type: dict
"""

import glob
import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.onprem.llamacpp.plugins.module_utils import _installed, _instance, _processes, _prune_engines
from ansible_collections.onprem.llamacpp.plugins.module_utils._prune_store import discard


def prune(params: dict[str, Any], check_mode: bool, proc: str = "/proc") -> dict[str, Any]:
    """Remove what may go, or only say what would."""
    engines = _installed.engines(params["root"], uses=_instance.engine_uses(params["instance_root"]))
    users = _processes.holders([engine["path"] for engine in engines], proc)
    busy = {path: f"{found[0]['program']} (PID {found[0]['pid']})" for path, found in users.items() if found}
    removed = _prune_engines.choose(engines, params["keep"], params["wanted"], busy)
    releases = os.path.join(params["root"], "releases")
    builds = params["build_path"] or os.path.join(params["root"], "build")
    left = _prune_engines.leftovers(releases, builds, params["wanted"], proc)
    interrupted = sorted(path for folder in (builds, releases) for path in glob.glob(os.path.join(folder, ".*.removed")))
    going = [*interrupted, *left, *(engine["path"] for engine in removed)]
    if not check_mode:
        for path in going:
            if os.path.isdir(path):
                discard(path, os.path.dirname(path))
            else:
                os.unlink(path)
    before = "".join(f"{path}\n" for path in going)
    return {"changed": bool(going), "removed": removed, "busy": busy, "diff": {"before": before, "after": ""}}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "default": "/opt/llamacpp"},
            "build_path": {"type": "path"},
            "instance_root": {"type": "path", "default": "/etc/llamacpp/instances"},
            "keep": {"type": "int", "default": 2},
            "wanted": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    try:
        result = prune(module.params, module.check_mode)
    except OSError as error:
        module.fail_json(
            msg=f"{error.filename or module.params['root']}: {error.strerror}. What was to be removed is not all gone: mend the cause;"
            " what is left goes with the next removal."
        )
    module.exit_json(**result)


if __name__ == "__main__":
    main()
