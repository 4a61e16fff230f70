# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the module until the transfer on the host has ended, and shows how far it is."""

from __future__ import annotations

import time
import uuid
from typing import Any, Optional

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.onprem.llamacpp.plugins.module_utils._words import amount

display = Display()

SECONDS_BETWEEN_LINES = 5.0
RECONNECT_SECONDS = 120.0
RECONNECT_PAUSE = 5.0


def duration(seconds: Optional[int]) -> str:
    """Seconds as h:mm:ss."""
    if seconds is None:
        return "time left unknown"
    return f"{seconds // 3600}:{seconds % 3600 // 60:02d}:{seconds % 60:02d} left"


def progress_line(host: str, quant: str, result: dict[str, Any], several_sources: bool = False) -> str:
    done, total = result.get("bytes_done", 0), result.get("bytes_total", 0)
    share = f"{100 * done // total} %" if total else "0 %"
    rate = f"{result.get('rate', 0) / 1e6:.1f} MB/s"
    source = f" from {result['source']}" if several_sources and result.get("source") else ""
    line = f"{host}: {quant} {amount(done)} of {amount(total)} ({share}){source}, {rate}, {duration(result.get('eta_seconds'))}"
    return f"{line} - {result['note']}" if result.get("note") else line


class ActionModule(ActionBase):
    """The task behind the module's name."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: Any = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        args = dict(self._task.args, run_id=uuid.uuid4().hex)
        host = str((task_vars or {}).get("inventory_hostname", ""))
        changed, begun, shown, lost_at = False, False, 0.0, 0.0
        while True:
            try:
                result = self._execute_module(module_name="onprem.llamacpp.gguf_download", module_args=args, task_vars=task_vars)
            except AnsibleConnectionFailure as error:
                # The transfer is not ours to lose: it goes on without us, so a short break is ridden out.
                now = time.monotonic()
                lost_at = lost_at or now
                if not begun or now - lost_at > RECONNECT_SECONDS:
                    raise
                display.display(f"{host}: connection lost ({error.message}); the transfer goes on there, trying to reach it again")
                time.sleep(RECONNECT_PAUSE)
                self._connection.reset()
                continue
            lost_at = 0.0
            changed = changed or bool(result.get("changed"))
            if self._task.check_mode and result.get("msg") and not result.get("failed"):
                display.display(f"{host}: {result['msg']}")
            if result.get("failed") or result.get("unreachable") or result.get("finished") or self._task.check_mode:
                result["changed"] = changed
                return result
            begun = True
            if time.monotonic() - shown >= SECONDS_BETWEEN_LINES:
                display.display(progress_line(host, str(args.get("quant")), result, len(args.get("sources") or []) > 1))
                shown = time.monotonic()
