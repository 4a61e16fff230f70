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
    host is left, would say nothing; this callback prints the same lines then.
  - The playbook C(onprem.llamacpp.status) finds instances that serve and still need a look. Ansible has no exit status for that;
    with this callback it is 1.
  - Other playbooks are left alone.
requirements:
  - enable it with C(callbacks_enabled = onprem.llamacpp.summary) in C(ansible.cfg)
author:
  - onprem.llamacpp contributors (@onprem)
"""

from typing import Any

from ansible.plugins.callback import CallbackBase

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _rollout

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
        self.results: dict[str, Any] = {}
        self.reported = False
        self.exit_code = 0

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self.reported = self.reported or play.get_name() == REPORT

    def v2_runner_on_ok(self, result: Any) -> None:
        facts = result._result.get("ansible_facts")
        if not isinstance(facts, dict):
            return
        if isinstance(facts.get(ROLLOUT_FACT), dict):
            self.results[result._host.get_name()] = facts[ROLLOUT_FACT]
        if isinstance(facts.get(STATUS_FACT), dict):
            self.exit_code = int(facts[STATUS_FACT].get("exit_code", 0))

    def v2_playbook_on_stats(self, stats: Any) -> None:
        if self.results and not self.reported:
            hosts = {name: self.results.get(name) for name in sorted(set(stats.processed) | set(self.results)) if name != "localhost"}
            self._display.banner("ROLLOUT ENDED BEFORE ITS REPORT")
            for line in _rollout.text(_rollout.document(hosts)):
                self._display.display(line)
        if self.exit_code == DEGRADED and not stats.failures and not stats.dark:
            # Nothing else can give a run this exit status: Ansible itself knows failed, unreachable and well.
            raise SystemExit(DEGRADED)
