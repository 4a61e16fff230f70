# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stays with work that goes on on a host by itself: a module is run again and again until it says that it has finished."""

from __future__ import annotations

import time
from typing import Any, Callable, Optional

from ansible.errors import AnsibleConnectionFailure
from ansible.utils.display import Display

from ansible_collections.onprem.llamacpp.plugins.module_utils._words import amount

display = Display()

SECONDS_BETWEEN_LINES = 5.0
RECONNECT_SECONDS = 120.0
RECONNECT_PAUSE = 5.0


def progress(host: str, quant: str, result: dict[str, Any], *details: str) -> str:
    """How much of a quant is on a host, with details of how it gets there, and the note of the result."""
    done, total = result.get("bytes_done", 0), result.get("bytes_total", 0)
    share = f"{100 * done // total} %" if total else "0 %"
    line = f"{host}: {quant} {amount(done)} of {amount(total)} ({share}){''.join(details)}"
    return f"{line} - {result['note']}" if result.get("note") else line


def transfer_line(host: str, quant: str, result: dict[str, Any], several_sources: bool = False) -> str:
    """A transfer's progress; its source is named where there are several."""
    source = f" from {result['source']}" if several_sources and result.get("source") else ""
    rate = f", {result.get('rate', 0) / 1e6:.1f} MB/s"
    return progress(host, quant, result, source, rate, f", {duration(result.get('eta_seconds'))}")


def duration(seconds: Optional[int]) -> str:
    """Seconds as h:mm:ss."""
    if seconds is None:
        return "time left unknown"
    return f"{seconds // 3600}:{seconds % 3600 // 60:02d}:{seconds % 60:02d} left"


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
