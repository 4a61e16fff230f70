#!/usr/bin/python
# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation; the work is done by the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: bundle_model
short_description: Download a quant of a GGUF model into a bundle
version_added: 0.1.0
description:
  - Does on the controller what M(onprem.llamacpp.gguf_download) does on a host, in the process of the task itself, so that neither
    systemd nor root is needed. Every file's SHA-256 is checked, and a model appears whole or not at all.
  - What was fetched before an interruption stays. A published model of which files are missing gets just those.
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
    description: Name of the quant.
    type: str
    required: true
  files:
    description: Files of the quant, shards in order, as M(onprem.llamacpp.gguf_repo_info) returns them.
    type: list
    elements: dict
    required: true
  header:
    description: Summary of the model's header, as M(onprem.llamacpp.gguf_repo_info) returns it.
    type: dict
  root:
    description: Folder of the controller that holds the models.
    type: path
    required: true
  endpoint:
    description: URL of the Hub or of a mirror that speaks its API, or the absolute path of a directory with the files.
    type: str
    required: true
  token:
    description: Token for a private or gated repository.
    type: str
  timeout:
    description: Seconds without a byte after which a connection counts as broken.
    type: float
    default: 60
  retries:
    description: Attempts in a row that may bring nothing before the transfer fails.
    type: int
    default: 8
  rate_limit:
    description: Bytes a second, V(0) for no limit.
    type: int
    default: 0
  window:
    description: Hours at which bytes may be fetched, such as V(22:00-06:00), in local time. Empty for always.
    type: str
    default: ""
extends_documentation_fragment:
  - onprem.llamacpp.attributes
attributes:
  action:
    description: Runs on the controller only.
    support: full
  check_mode:
    support: full
  diff_mode:
    support: none
seealso:
  - module: onprem.llamacpp.gguf_download
author:
  - onprem.llamacpp contributors (@onprem)
"""

EXAMPLES = r"""
---
- name: Bring one quant into a bundle
  onprem.llamacpp.bundle_model:
    repo_id: "{{ repository.repo_id }}"
    commit: "{{ repository.commit }}"
    quant: UD-Q2_K_XL
    files: "{{ repository.quants['UD-Q2_K_XL'].files }}"
    root: /mnt/usb/models
    endpoint: https://huggingface.co
"""

RETURN = r"""
---
path:
  description: Directory of the published model.
  returned: success
  type: str
bytes_total:
  description: Size of all files in bytes.
  returned: success
  type: int
"""
