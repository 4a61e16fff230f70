# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stays with work that goes on on a host by itself: a module is run again and again until it says that it has finished."""

from __future__ import annotations

import time
from typing import Any, Callable, Optional

from ansible.errors import AnsibleConnectionFailure
from ansible.utils.display import Display

display = Display()

SECONDS_BETWEEN_LINES = 5.0
RECONNECT_SECONDS = 120.0
RECONNECT_PAUSE = 5.0


def follow(
    action: Any,
    module: str,
    task_vars: Optional[dict[str, Any]],
    arguments: Callable[[bool], dict[str, Any]],
    line: Callable[[str, dict[str, Any]], str],
) -> dict[str, Any]:
    """The module's last result; ``changed`` when any of its runs has changed something.

    Args:
        action: the action plugin whose task this is.
        module: name in this collection. It returns at once in check mode, otherwise after some seconds or when it has finished.
        task_vars: of the task.
        arguments: of the next run; told whether an earlier one has begun the work. It is called again after a break.
        line: what is shown of the host every few seconds, from a result.

    Raises:
        AnsibleConnectionFailure: before anything has begun, or when the host stays out of reach for two minutes.
    """
    host = str((task_vars or {}).get("inventory_hostname", ""))
    changed, begun, shown, lost_at = False, False, 0.0, 0.0
    while True:
        try:
            result: dict[str, Any] = action._execute_module(
                module_name=f"onprem.llamacpp.{module}", module_args=arguments(begun), task_vars=task_vars
            )
        except AnsibleConnectionFailure as error:
            # The work is not ours to lose: it goes on without us, so a short break is ridden out.
            now = time.monotonic()
            lost_at = lost_at or now
            if not begun or now - lost_at > RECONNECT_SECONDS:
                raise
            display.display(f"{host}: connection lost ({error.message}); the transfer goes on there, trying to reach it again")
            time.sleep(RECONNECT_PAUSE)
            action._connection.reset()
            continue
        lost_at = 0.0
        changed = changed or bool(result.get("changed"))
        if action._task.check_mode and result.get("msg") and not result.get("failed"):
            display.display(f"{host}: {result['msg']}")
        if result.get("failed") or result.get("unreachable") or result.get("finished") or action._task.check_mode:
            result["changed"] = changed
            return result
        begun = True
        if time.monotonic() - shown >= SECONDS_BETWEEN_LINES:
            display.display(line(host, result))
            shown = time.monotonic()
