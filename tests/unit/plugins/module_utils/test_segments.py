# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who fetches what, and when."""

from __future__ import annotations

import random

import pytest

from ansible_collections.onprem.llamacpp.plugins.module_utils._ranges import Ranges
from ansible_collections.onprem.llamacpp.plugins.module_utils._segments import LARGEST, SMALLEST, WINDOW, Segments

MIB = 2**20
GIB = 2**30


@pytest.mark.parametrize(
    ("size", "connections", "step"),
    [
        pytest.param(5, 4, SMALLEST, id="tiny file"),
        pytest.param(400 * MIB, 4, 24 * MIB, id="small file"),
        pytest.param(47 * GIB, 4, LARGEST, id="shard"),
        pytest.param(47 * GIB, 16, 16 * MIB, id="so many connections that they would not fit into the window"),
    ],
)
def test_size_of_a_segment(size, connections, step):
    assert Segments(size, [(0, size)], connections).step == step


def test_segments_come_in_order_and_stop_at_the_window():
    segments = Segments(GIB, [(0, GIB)], 4)
    taken = []
    while found := segments.take(WINDOW, 0.0):
        taken.append((found.begin, found.end))
    assert taken == [(begin, begin + LARGEST) for begin in range(0, WINDOW, LARGEST)]
    assert segments.take(WINDOW + LARGEST - 1, 0.0) is None
    assert segments.take(WINDOW + LARGEST, 0.0).begin == WINDOW


def test_only_what_is_missing_is_handed_out():
    segments = Segments(100 * MIB, [(10 * MIB, 11 * MIB), (50 * MIB, 100 * MIB)], 8)
    assert [(found.begin // MIB, found.end // MIB) for found in (segments.take(GIB, 0.0) for _ in range(3))] == [
        (10, 11),
        (50, 52),
        (52, 56),
    ]


def test_what_a_broken_connection_has_not_fetched_waits_again():
    segments = Segments(GIB, [(0, GIB)], 4)
    first = segments.take(GIB, 0.0)
    first.position = 10 * MIB
    segments.give_back(first)
    again = segments.take(GIB, 1.0)
    assert (again.begin, again.end) == (10 * MIB, LARGEST)


@pytest.mark.parametrize(
    ("fetched", "seconds", "shared"),
    [
        pytest.param(32, 10.0, True, id="ten seconds to go"),
        pytest.param(32, 1.0, False, id="nearly done"),
        pytest.param(60, 600.0, False, id="too little is left"),
        pytest.param(0, 30.0, True, id="nothing has come"),
    ],
)
def test_a_slow_segment_is_shared_when_nothing_else_is_left(fetched, seconds, shared):
    segments = Segments(GIB, [(0, LARGEST)], 4)
    slow = segments.take(GIB, 0.0)
    slow.position = fetched * MIB
    found = segments.take(GIB, seconds)
    assert (found is not None) == shared
    if found:
        assert (slow.end, found.end) == (found.begin, LARGEST)
        assert found.begin == (slow.position + LARGEST) // 2


def test_bytes_that_were_lost_stop_who_fetches_them_and_wait():
    segments = Segments(GIB, [(0, GIB)], 4)
    first = segments.take(GIB, 0.0)
    first.position = MIB
    segments.lost(0, GIB)
    assert first.end == first.position
    assert segments.waiting.pairs() == [(0, GIB)]


@pytest.mark.parametrize("seed", range(20))
def test_connections_that_come_and_go_fetch_every_byte(seed):
    chance = random.Random(seed)
    size = chance.randrange(1, 300 * MIB)
    segments, got, running, now = Segments(size, [(0, size)], 4), Ranges(), [], 0.0
    while got.total() < size:
        now += chance.uniform(0, 3)
        found = segments.take(got.end_from(0) + WINDOW, now) if len(running) < 4 else None
        if found:
            running.append(found)
        for segment in list(running):
            end = min(segment.position + chance.randrange(1, 16 * MIB), segment.end)
            got.add(segment.position, end)
            segment.position = end
            if segment.position >= segment.end or chance.random() < 0.1:
                segments.give_back(segment)
                running.remove(segment)
    assert got.pairs() == [(0, size)]
    assert segments.waiting.total() == 0


@pytest.mark.parametrize("seed", range(20))
def test_ranges_behave_like_a_set(seed):
    chance = random.Random(seed)
    ranges, known = Ranges(), set()
    for _ in range(60):
        begin = chance.randrange(60)
        end = begin + chance.randrange(12)
        if chance.random() < 0.6:
            ranges.add(begin, end)
            known |= set(range(begin, end))
        else:
            ranges.remove(begin, end)
            known -= set(range(begin, end))
        assert {position for pair in ranges.pairs() for position in range(*pair)} == known
        assert ranges.total() == len(known)
        assert {position for pair in ranges.missing(5, 50) for position in range(*pair)} == set(range(5, 50)) - known
        assert all(first[1] < second[0] for first, second in zip(ranges.pairs(), ranges.pairs()[1:]))
        stop = begin
        while stop in known:
            stop += 1
        assert ranges.end_from(begin) == stop
