# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Has the last word of a run: what a rollout came to when it was aborted, and the exit status of a look at the fleet."""

from __future__ import annotations

DOCUMENTATION = r"""
name: summary
type: aggregate
short_description: Tell what a rollout came to, and end a look at the fleet with its exit status
version_added: 0.1.0
description:
  - The playbook C(onprem.llamacpp.rollout) ends with a report of every host. A run that ends earlier, by an error or because no
    host is left, would say nothing; this callback prints the same lines then, and writes C(llama_rollout_output). So does a run that
    is interrupted with Ctrl-C.
  - The playbook C(onprem.llamacpp.status) finds instances that serve and still need a look. Ansible has no exit status for that;
    with this callback it is 1.
  - Other playbooks are left alone.
requirements:
  - enable it with C(callbacks_enabled = onprem.llamacpp.summary) in C(ansible.cfg)
author:
  - onprem.llamacpp contributors (@onprem)
"""

import atexit
import json
import os
from typing import Any

from ansible.plugins.callback import CallbackBase

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _rollout

WISH_FACT = "__llama_rollout_wish"
ROLLOUT_FACT = "llama_rollout_result"
STATUS_FACT = "llama_server_status"
REPORT = "Tell what came of it"
DEGRADED = 1


class CallbackModule(CallbackBase):
    """Watches two facts and one play."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "onprem.llamacpp.summary"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self.wish: dict[str, Any] = {"hosts": [], "output": ""}
        self.results: dict[str, Any] = {}
        self.failures: dict[str, str] = {}
        self.reported = False
        self.exit_code = 0
        self.process = 0  # the one that has to report when it ends; Ansible's workers are copies of it

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self.reported = self.reported or play.get_name() == REPORT

    def v2_runner_on_ok(self, result: Any) -> None:
        facts = result._result.get("ansible_facts")
        if not isinstance(facts, dict):
            return
        if isinstance(facts.get(WISH_FACT), dict):
            self.wish = facts[WISH_FACT]
            if not self.process:
                self.process = os.getpid()
                atexit.register(self._interrupted)
        if isinstance(facts.get(ROLLOUT_FACT), dict):
            self.results[result._host.get_name()] = facts[ROLLOUT_FACT]
        if isinstance(facts.get(STATUS_FACT), dict):
            self.exit_code = int(facts[STATUS_FACT].get("exit_code", 0))

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        if not ignore_errors:
            self.failures[result._host.get_name()] = str(result._result.get("msg", ""))

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self.failures[result._host.get_name()] = str(result._result.get("msg", ""))

    def v2_playbook_on_stats(self, stats: Any) -> None:
        if (self.results or self.wish["hosts"]) and not self.reported:
            # One that a rescue has dealt with is no reason.
            self._report({name: reason for name, reason in self.failures.items() if name in stats.failures or name in stats.dark})
        self.process = 0
        if self.exit_code == DEGRADED and not stats.failures and not stats.dark:
            # Nothing else can give a run this exit status: Ansible itself knows failed, unreachable and well.
            raise SystemExit(DEGRADED)

    def _interrupted(self) -> None:
        """A run that is interrupted ends without its statistics."""
        if self.process == os.getpid() and not self.reported:
            self.process = 0
            self._report(self.failures)

    def _report(self, failures: dict[str, str]) -> None:
        """What the report would have said and written."""
        names = [*self.wish["hosts"], *sorted(set(self.results) - set(self.wish["hosts"]))]
        document = _rollout.document({name: self.results.get(name) for name in names}, failures)
        self._display.banner("ROLLOUT ENDED BEFORE ITS REPORT")
        for line in _rollout.text(document):
            self._display.display(line)
        if self.wish["output"]:
            try:
                with open(self.wish["output"], "w", encoding="utf-8") as handle:
                    handle.write(json.dumps(document, indent=4, sort_keys=True) + "\n")
            except OSError as error:
                self._display.warning(f"The results could not be written: {error}")
