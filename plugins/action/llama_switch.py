# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts the switch program on a host and follows its journal."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from typing import Any, Optional

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

display = Display()

LONG_POLL_SECONDS = 5
SHOW_SECONDS = 5
UNDO_POLLS, UNDO_POLL_SECONDS = 10, 1.0
PREVIOUS = "previous"
UNFINISHED = ("prepared", "beside", "switched", "gating", "undoing")


def verdict(journal: Mapping[str, Any]) -> str:
    """Why a switch did not commit and what the host serves now; empty when it committed."""
    state, reason = journal.get("state"), str(journal.get("reason") or "")
    if state == "committed":
        return ""
    parts = [f"Deployment {journal.get('to')} of instance {journal.get('instance')} was not put into service: {reason.rstrip('.')}."]
    if state in UNFINISHED:
        return f"The switch to {journal.get('to')} was interrupted in state {state}; the host undoes it, now or at its next boot."
    if journal.get("undo_reason"):
        parts.append(f"Going back failed too: {str(journal['undo_reason']).rstrip('.')}.")
    serving = journal.get("serving")
    parts.append(f"Deployment {serving} is serving." if serving else "Nothing is serving now.")
    tail = journal.get("log_tail") or []
    if tail:
        parts.append("Last lines of the server's log:\n  " + "\n  ".join(tail))
    return " ".join(parts)


class Lost(Exception):
    """The host was out of reach for longer than the patience."""

    def __init__(self, started: bool) -> None:
        super().__init__()
        self.started = started


def cut_off(name: str, to: str, started: bool) -> str:
    """What is known of a switch whose host is out of reach."""
    if started:
        return f"{name} was cut off while it switched to {to}; it ends that by itself."
    return f"{name} was cut off when it was to switch to {to}; if the switch began, it ends by itself."


class ActionModule(ActionBase):
    """Start, poll, judge."""

    _requires_connection = True
    _supports_check_mode = True
    TRANSFERS_FILES = False

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _spec, arguments = self.validate_argument_spec(
            argument_spec={
                "instance": {"type": "str", "default": "main"},
                "to": {"type": "str", "required": True},
                "restart": {"type": "bool", "default": False},
                "at_once": {"type": "bool", "default": False},
                "program": {"type": "path", "default": "/usr/local/libexec/llamacpp/llamacpp-switch"},
                "patience": {"type": "int", "default": 300},
            }
        )
        self._task_vars = task_vars or {}
        self._program = [arguments["program"]]
        instance = ["--instance", arguments["instance"]]
        if self._task.check_mode:
            to = self._before(arguments["instance"]) if arguments["to"] == PREVIOUS else arguments["to"]
            return {"changed": True, "msg": f"would switch {arguments['instance']} to {to}"}
        flags = [f"--{name.replace('_', '-')}" for name in ("restart", "at_once") if arguments[name]]
        run = uuid.uuid4().hex[:12]
        try:
            journal = self._start(instance, ["--to", arguments["to"], *flags, "--run", run], arguments["patience"])
            journal = self._follow(instance, journal, arguments["patience"])
        except Lost as lost:
            said = cut_off(str(self._task_vars.get("inventory_hostname", "")), arguments["to"], lost.started)
            following = " When it is back, run the playbook again, or look at status.yml."
            return {"failed": True, "changed": True, "lost": True, "started": lost.started, "msg": said + following}
        if journal.get("run") != run:
            raise AnsibleActionFail(f"Another switch of {arguments['instance']} took over, to {journal.get('to')}.")
        problem = verdict(journal)
        changed = bool(journal.get("restarted"))
        if problem:
            # The message holds the log already; Ansible prints both.
            short = {key: value for key, value in journal.items() if key not in ("log_tail", "gate", "states")}
            return {"failed": True, "changed": changed, "msg": problem, "journal": short}
        display.display(f"  {self._task_vars.get('inventory_hostname', '')}: {journal.get('progress', '')}")
        for note in (journal.get("gate") or {}).get("notes") or []:
            display.display(f"  {self._task_vars.get('inventory_hostname', '')}: {note}")
        for warning in (journal.get("gate") or {}).get("warnings") or []:
            display.warning(f"{self._task_vars.get('inventory_hostname', '')}: {warning}")
        return {"changed": changed, "journal": journal}

    def _before(self, instance: str) -> str:
        """The deployment that a run would go back to; asking changes nothing.

        :raises AnsibleActionFail: the run would fail.
        """
        self._task.check_mode = False
        try:
            journal = self._call(["status", "--instance", instance], begun=False)
        finally:
            self._task.check_mode = True
        if journal.get("running"):
            raise AnsibleActionFail(f"The switch could not be started: a switch of {instance} is already running, to {journal.get('to')}.")
        if not journal.get("previous"):
            there = journal.get("current") or "the first one"
            raise AnsibleActionFail(f"The switch could not be started: instance {instance} has no deployment before {there}.")
        return str(journal["previous"])

    def _start(self, instance: list[str], wish: list[str], patience: int) -> dict[str, Any]:
        """Start the switch; when the link breaks meanwhile, ask again: the program starts nothing twice under one run id."""
        lost = 0.0
        while True:
            try:
                return self._call(["switch", *instance, *wish])
            except AnsibleConnectionFailure:
                lost = lost or time.monotonic()
                if time.monotonic() - lost > patience:
                    raise Lost(started=False) from None
                time.sleep(LONG_POLL_SECONDS)
            except AnsibleActionFail:
                # What was asked before the link broke may have got through at this very moment.
                journal = self._status(instance) if lost else None
                if not journal or journal.get("run") != wish[-1]:
                    raise
                return journal

    def _status(self, instance: list[str]) -> Optional[dict[str, Any]]:
        """The journal a moment later; None where the link is broken again."""
        time.sleep(UNDO_POLL_SECONDS)
        try:
            return self._call(["status", *instance])
        except (AnsibleConnectionFailure, AnsibleActionFail):
            return None

    def _follow(self, instance: list[str], journal: dict[str, Any], patience: int) -> dict[str, Any]:
        """Poll until the switch is done; the host may be out of reach for a while."""
        shown, shown_at, lost, orphaned = "", 0.0, 0.0, 0
        # Whatever ends the program, the host begins to undo its switch a moment later; that is worth a wait for what comes of it.
        while journal.get("running") or (journal.get("state") in UNFINISHED and orphaned < UNDO_POLLS):
            if not journal.get("running"):
                orphaned += 1
                time.sleep(UNDO_POLL_SECONDS)
            progress = str(journal.get("progress", ""))
            state_changed = progress.partition(",")[0] != shown.partition(",")[0]
            if progress != shown and (state_changed or time.monotonic() - shown_at >= SHOW_SECONDS):
                display.display(f"  {self._task_vars.get('inventory_hostname', '')}: {progress}")
                shown, shown_at = progress, time.monotonic()
            try:
                journal = self._call(["status", *instance, "--after", str(journal.get("seq", 0)), "--wait", str(LONG_POLL_SECONDS)])
                lost = 0.0
            except AnsibleConnectionFailure:
                lost = lost or time.monotonic()
                if time.monotonic() - lost > patience:
                    raise Lost(started=True) from None
                time.sleep(LONG_POLL_SECONDS)
        return journal

    def _call(self, arguments: list[str], begun: bool = True) -> dict[str, Any]:
        """Run the program on the host and return the journal that it prints."""
        result = self._execute_module(
            module_name="ansible.legacy.command",
            module_args={"argv": self._program + arguments},
            task_vars=self._task_vars,
        )
        if result.get("unreachable"):
            raise AnsibleConnectionFailure(str(result.get("msg", "unreachable")))
        if result.get("rc") != 0:
            lines = str(result.get("stderr") or result.get("msg") or "no message").strip().splitlines()
            if arguments[0] == "switch" or not begun:
                raise AnsibleActionFail(f"The switch could not be started: {lines[-1]}.")
            raise AnsibleActionFail(
                f"The switch goes on on the host, but cannot be followed: {lines[-1]}. How it ends is told by status.yml."
            )
        try:
            journal = json.loads(result["stdout"])
        except ValueError:
            raise AnsibleActionFail(f"{self._program[0]} did not print its journal.") from None
        return dict(journal)
