# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _rollout


def result(state, ring=0, reason=""):
    return {"state": state, "ring": ring, "from": "a" * 12, "to": "b" * 12, "reason": reason, "tokens_per_second": None}


FLEETS = {
    "all-well": (
        {"a": result("committed", 1), "b": result("committed", 2), "c": result("unchanged")},
        ["2 hosts on the new", "1 host on it already", "ring 1: a committed", "ring 2: b committed"],
    ),
    "canary-failed": (
        {"a": result("failed", 1, "the completion was\nempty"), "b": result("waiting"), "c": result("waiting")},
        ["2 hosts not touched", "1 host undid its switch", "ring 1: a failed", "a: the completion was empty"],
    ),
    "out-of-reach": ({"a": None, "b": result("committed", 1)}, ["1 host on the new", "1 host out of reach", "ring 1: b committed"]),
}


@pytest.mark.parametrize(("fleet", "lines"), FLEETS.values(), ids=FLEETS)
def test_text_tells_states_rings_and_reasons(fleet, lines):
    said = _rollout.text(_rollout.document(fleet))
    assert len(said) == len(lines)
    assert all(line.startswith(start) for line, start in zip(said, lines)), said


def test_document_has_every_host_and_counts_what_there_is():
    made = _rollout.document({"a": result("committed", 1), "b": None})
    assert made["counts"] == {"committed": 1, "left out": 1}
    assert set(made["hosts"]["b"]) == set(made["hosts"]["a"])


def test_host_that_was_left_out_over_a_failure_has_it_as_its_reason():
    made = _rollout.document({"a": result("failed", 1, "its gate"), "b": None, "c": None}, {"a": "other", "b": "the disk is full"})
    assert {name: host["reason"] for name, host in made["hosts"].items()} == {"a": "its gate", "b": "the disk is full", "c": ""}
