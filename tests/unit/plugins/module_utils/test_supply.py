# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which source is asked, and when: outages, busy servers, sources that are given up."""

from __future__ import annotations

import pytest

from ansible_collections.onprem.llamacpp.plugins.module_utils._supply import Supply, jitter, no_jitter


@pytest.fixture
def now():
    return [100.0]


@pytest.fixture
def supply(now):
    return Supply(["mirror", "hub"], 3, lambda: now[0], no_jitter)


def test_pauses_grow_and_the_source_is_given_up(supply, now):
    pauses = []
    for _ in range(3):
        assert supply.failed(0, "down", 0.0, now[0]) is False
        pauses.append(supply.wait(0))
        now[0] += pauses[-1]
    assert pauses == [1.0, 2.0, 4.0]
    assert supply.pick() == 0
    assert supply.failed(0, "down", 0.0, now[0]) is True
    assert supply.pick() == 1
    assert supply.wait(1) == 0.0


def test_pauses_end_somewhere(supply, now):
    supply.retries = 20
    for _ in range(12):
        now[0] += 1000
        supply.failed(0, "down", 0.0, now[0])
    assert supply.wait(0) == 60.0


def test_an_outage_that_breaks_all_connections_counts_once(supply, now):
    now[0] = 105.0
    for began in (101.0, 102.0, 103.0, 104.0):
        supply.failed(0, "down", 0.0, began)
    assert supply.failures[0] == 1


def test_an_attempt_that_brought_something_does_not_count(supply, now):
    for _ in range(10):
        now[0] += 10
        began = now[0]
        now[0] += 1
        supply.arrived(0)
        supply.failed(0, "broken", 0.0, began)
    assert supply.pick() == 0
    assert supply.wait(0) == 1.0


def test_what_the_source_asks_for_is_respected(supply, now):
    supply.failed(0, "busy", 30.0, now[0])
    assert supply.wait(0) == 30.0
    supply.failed(0, "busy", 50.0, now[0] - 1)  # another connection, told later
    assert supply.wait(0) == 50.0


@pytest.mark.parametrize(("refused", "picked"), [((), 0), ((0,), 1), ((1,), 0), ((0, 1), None)])
def test_a_file_may_refuse_sources_of_its_own(supply, refused, picked):
    assert supply.pick(refused) == picked


def test_hosts_do_not_come_back_together():
    assert len({jitter() for _ in range(10)}) > 1
    assert all(0.8 <= jitter() <= 1.2 for _ in range(100))
