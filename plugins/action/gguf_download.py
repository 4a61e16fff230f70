# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the module until the transfer on the host has ended, and shows how far it is."""

from __future__ import annotations

import contextlib
import uuid
from typing import Any, Optional

from ansible.plugins.action import ActionBase

from ansible_collections.onprem.llamacpp.plugins.module_utils._words import amount
from ansible_collections.onprem.llamacpp.plugins.plugin_utils._following import follow
from ansible_collections.onprem.llamacpp.plugins.plugin_utils._tunnel import offered


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
        root = args.pop("controller_directory", None)
        if root:
            # What is offered is on the host's own loopback, which no proxy can reach.
            self._task.environment = [*(self._task.environment or []), {"no_proxy": "*", "NO_PROXY": "*"}]
        with offered(self._connection, str(root)) if root and not self._task.check_mode else contextlib.nullcontext() as tunnel:

            def arguments(_begun: bool) -> dict[str, Any]:
                # A tunnel that broke is made anew.
                return {**args, "sources": [{"transport": "mirror", "url": tunnel.open()}]} if tunnel else args

            def line(host: str, result: dict[str, Any]) -> str:
                return progress_line(host, str(args.get("quant")), result, len(args.get("sources") or []) > 1)

            return follow(self, "gguf_download", task_vars, arguments, line)
