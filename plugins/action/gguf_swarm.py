# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the module until the exchange on the host has ended, and shows how far it is."""

from __future__ import annotations

from typing import Any, Optional

from ansible.plugins.action import ActionBase

from ansible_collections.onprem.llamacpp.plugins.plugin_utils._following import follow, progress


class ActionModule(ActionBase):
    """The task behind the module's name."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: Any = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        args = dict(self._task.args)
        return follow(
            self,
            "gguf_swarm",
            task_vars,
            lambda begun: {**args, "started": begun},
            lambda host, result: progress(host, str(args.get("quant")), result, f" by the swarm, {result.get('peers', 0)} peers"),
        )
