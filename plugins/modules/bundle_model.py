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
extends_documentation_fragment:
  - onprem.llamacpp.attributes
  - onprem.llamacpp.model
  - onprem.llamacpp.model.transfer
attributes:
  action:
    description: Runs on the controller only.
    support: full
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
