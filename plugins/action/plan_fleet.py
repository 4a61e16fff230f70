# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans every host of a play in one process, and shows the plans."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any, Optional

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _plan_report

display = Display()


class ActionModule(ActionBase):
    """Runs on the controller, once for all hosts."""

    _requires_connection = False
    _supports_check_mode = True
    TRANSFERS_FILES = False

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _spec, arguments = self.validate_argument_spec(
            argument_spec={
                "listings": {"type": "list", "elements": "dict", "default": []},
                "unread": {"type": "list", "elements": "str", "default": []},
                "document": {"type": "bool", "default": False},
            }
        )
        variables = task_vars or {}
        # Raw, because these are results of earlier tasks, which hold no templates; looking for some costs seconds.
        known = {host: variables["hostvars"].raw_get(host) for host in variables["ansible_play_hosts_all"]}
        inputs = {host: each.get("__llama_plan_inputs") for host, each in known.items()}
        now = datetime.now(timezone.utc)
        plans, refused = _plan_report.plan_all(inputs, arguments["listings"])
        report = _plan_report.document(inputs, plans, arguments["unread"], now)
        display.display("\n".join(_plan_report.lines(report, now)))
        result = {"changed": False, "plans": plans, "refused": refused}
        # As text, because a structure of this size would be walked again by every task that sees it.
        return {**result, **({"json": json.dumps(report, indent=1, ensure_ascii=False) + "\n"} if arguments["document"] else {})}
