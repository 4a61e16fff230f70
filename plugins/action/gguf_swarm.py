# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the module until the exchange on the host has ended, and shows how far it is."""

from __future__ import annotations

import time
from typing import Any, Optional

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.onprem.llamacpp.plugins.module_utils._words import amount

display = Display()

SECONDS_BETWEEN_LINES = 5.0


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
        host = str((task_vars or {}).get("inventory_hostname", ""))
        changed, shown = False, 0.0
        while True:
            result = self._execute_module(module_name="onprem.llamacpp.gguf_swarm", module_args=args, task_vars=task_vars)
            changed = changed or bool(result.get("changed"))
            if self._task.check_mode and result.get("msg") and not result.get("failed"):
                display.display(f"{host}: {result['msg']}")
            if result.get("failed") or result.get("unreachable") or result.get("finished") or self._task.check_mode:
                result["changed"] = changed
                return result
            args["started"] = True
            if time.monotonic() - shown >= SECONDS_BETWEEN_LINES:
                display.display(progress_line(host, str(args.get("quant")), result))
                shown = time.monotonic()
