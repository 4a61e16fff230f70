# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the module until the exchange on the host has ended, and shows how far it is."""

from __future__ import annotations

from typing import Any, Optional

from ansible.plugins.action import ActionBase

from ansible_collections.onprem.llamacpp.plugins.module_utils._words import amount
from ansible_collections.onprem.llamacpp.plugins.plugin_utils._following import follow


def progress_line(host: str, quant: str, result: dict[str, Any]) -> str:
    done, total = result.get("bytes_done", 0), result.get("bytes_total", 0)
    share = f"{100 * done // total} %" if total else "0 %"
    line = f"{host}: {quant} {amount(done)} of {amount(total)} ({share}) by the swarm, {result.get('peers', 0)} peers"
    return f"{line} - {result['note']}" if result.get("note") else line


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
            lambda host, result: progress_line(host, str(args.get("quant")), result),
        )
