# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of the modules that bring a model somewhere; the chunks of their argument specs are in module_utils/_arguments."""

from __future__ import annotations


class ModuleDocFragment:
    """The fragments."""

    # Which model.
    DOCUMENTATION = r"""
options:
  repo_id:
    description: Repository as C(organisation/name).
    type: str
    required: true
  commit:
    description: Commit of the repository, 40 hexadecimal digits.
    type: str
    required: true
  quant:
    description: Name of the quant, the last part of the directory's name.
    type: str
    required: true
  files:
    description:
      - Files of the quant, shards in order, as M(onprem.llamacpp.gguf_repo_info) returns them.
      - Required, unless a model is removed.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Path inside the repository. The last part becomes the file's name.
        type: str
        required: true
      size:
        description: Size in bytes.
        type: int
        required: true
      sha256:
        description: SHA-256 in hexadecimal.
        type: str
        required: true
"""

    # How it is fetched.
    TRANSFER = r"""
options:
  header:
    description:
      - Summary of the model's header, as M(onprem.llamacpp.gguf_repo_info) returns it. It is kept in the manifest, so that the
        model can be planned again without asking a repository.
    type: dict
  timeout:
    description: Seconds with nothing or next to nothing after which a connection counts as broken.
    type: float
    default: 60
  retries:
    description: Attempts in a row that may bring nothing before a source is left for the next one, or the transfer fails.
    type: int
    default: 8
  rate_limit:
    description: Bytes a second over all connections, V(0) for no limit.
    type: int
    default: 0
  window:
    description:
      - Hours at which bytes may be fetched, such as V(22:00-06:00), in the local time of the machine that fetches. Empty for always.
      - Outside of them the transfer waits; what is there is hashed all the same.
    type: str
    default: ""
"""

    # How a host's transient unit works on it.
    UNIT = r"""
options:
  root:
    description: Directory that holds all models.
    type: path
    default: /var/lib/llamacpp/models
  user:
    description: System user that runs the unit. It must exist.
    type: str
    default: llamacpp-fetch
  wait:
    description: Seconds that one run of the module stays on the host. The task as a whole runs it as often as it takes.
    type: float
    default: 5
"""
