# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps the results of a rollout as they come and prints them when the run ends before the rollout's own report."""

from __future__ import annotations

DOCUMENTATION = r"""
name: rollout_summary
type: aggregate
short_description: Tell what a rollout came to, even when it was aborted
version_added: 0.1.0
description:
  - The playbook C(onprem.llamacpp.rollout) ends with a report of every host. A run that ends earlier, by an error or because no
    host is left, would say nothing; this callback prints the same lines then.
  - Other playbooks are left alone.
requirements:
  - enable it with C(callbacks_enabled = onprem.llamacpp.rollout_summary) in C(ansible.cfg)
author:
  - onprem.llamacpp contributors (@onprem)
"""

from typing import Any

from ansible.plugins.callback import CallbackBase

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _rollout

FACT = "llama_rollout_result"
REPORT = "Tell what came of it"


class CallbackModule(CallbackBase):
    """Watches one fact and one play."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "onprem.llamacpp.rollout_summary"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self.results: dict[str, Any] = {}
        self.reported = False

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self.reported = self.reported or play.get_name() == REPORT

    def v2_runner_on_ok(self, result: Any) -> None:
        facts = result._result.get("ansible_facts")
        if isinstance(facts, dict) and isinstance(facts.get(FACT), dict):
            self.results[result._host.get_name()] = facts[FACT]

    def v2_playbook_on_stats(self, stats: Any) -> None:
        if not self.results or self.reported:
            return
        hosts = {name: self.results.get(name) for name in sorted(set(stats.processed) | set(self.results)) if name != "localhost"}
        self._display.banner("ROLLOUT ENDED BEFORE ITS REPORT")
        for line in _rollout.text(_rollout.document(hosts)):
            self._display.display(line)
