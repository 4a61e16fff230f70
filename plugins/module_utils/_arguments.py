# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Chunks of the argument specs of modules that bring a model somewhere, one for each fragment of plugins/doc_fragments/model."""

from __future__ import annotations

from typing import Any

# Which model.
MODEL: dict[str, Any] = {
    "repo_id": {"type": "str", "required": True},
    "commit": {"type": "str", "required": True},
    "quant": {"type": "str", "required": True},
    "files": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "path": {"type": "str", "required": True},
            "size": {"type": "int", "required": True},
            "sha256": {"type": "str", "required": True},
        },
    },
}
# How it is fetched.
TRANSFER: dict[str, Any] = {
    "header": {"type": "dict"},
    "timeout": {"type": "float", "default": 60},
    "retries": {"type": "int", "default": 8},
    "rate_limit": {"type": "int", "default": 0},
    "window": {"type": "str", "default": ""},
}
# How a host's transient unit works on it.
UNIT: dict[str, Any] = {
    "root": {"type": "path", "default": "/var/lib/llamacpp/models"},
    "user": {"type": "str", "default": "llamacpp-fetch"},
    "wait": {"type": "float", "default": 5},
}
