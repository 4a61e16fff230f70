# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the module until the transfer on the host has ended, and shows how far it is."""

from __future__ import annotations

import contextlib
import uuid
from typing import Any, Optional

from ansible.plugins.action import ActionBase

from ansible_collections.onprem.llamacpp.plugins.plugin_utils._following import follow, transfer_line
from ansible_collections.onprem.llamacpp.plugins.plugin_utils._tunnel import offered


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
                return transfer_line(host, str(args.get("quant")), result, len(args.get("sources") or []) > 1)

            return follow(self, "gguf_download", task_vars, arguments, line)
