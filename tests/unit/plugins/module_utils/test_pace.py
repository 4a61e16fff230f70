# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast, and at which hours; and what happens when clocks are set."""

from __future__ import annotations

import time

import pytest

from ansible_collections.onprem.llamacpp.plugins.module_utils._pace import Hours, PaceError, TokenBucket
from ansible_collections.onprem.llamacpp.plugins.module_utils._progress import Progress


def test_a_limit_holds_in_the_long_run():
    now = [0.0]
    bucket = TokenBucket(1000, lambda: now[0])
    for _ in range(100):
        now[0] += bucket.spend(100)
    assert now[0] == pytest.approx(10.0)


def test_a_rest_is_worth_a_quarter_of_a_second_and_no_more():
    now = [0.0]
    bucket = TokenBucket(1000, lambda: now[0])
    now[0] = 3600.0
    assert bucket.spend(250) == 0.0
    assert bucket.spend(100) == pytest.approx(0.1)


@pytest.mark.parametrize(("rate", "chunk"), [(0, 2**20), (10**9, 2**20), (800_000, 100_000), (1, 4096)])
def test_reads_are_smaller_below_a_low_limit(rate, chunk):
    assert TokenBucket(rate).chunk(2**20) == chunk


@pytest.mark.parametrize(
    ("window", "at", "left"),
    [
        ("", "12:00", 0),
        ("22:00-06:00", "21:59", 1),
        ("22:00-06:00", "22:00", 0),
        ("22:00-06:00", "00:00", 0),
        ("22:00-06:00", "05:59", 0),
        ("22:00-06:00", "06:00", 16 * 60),
        ("08:30-17:00", "08:29", 1),
        ("08:30-17:00", "16:59", 0),
        ("08:30-17:00", "17:00", 15 * 60 + 30),
    ],
)
def test_hours(window, at, left):
    hour, minute = at.split(":")
    assert Hours(window).closed_minutes(int(hour) * 60 + int(minute)) == left


@pytest.mark.parametrize("window", ["22-6", "22:00", "24:00-06:00", "22:00-22:00", "22:60-06:00", "now"])
def test_a_window_that_is_none(window):
    with pytest.raises(PaceError, match="written like 22:00-06:00"):
        Hours(window)


def test_the_window_goes_by_the_hosts_local_time(monkeypatch):
    monkeypatch.setenv("TZ", "UTC-5")  # five hours east
    time.tzset()
    try:
        assert Hours("22:00-06:00").opens_at(16.5 * 3600) == "22:00"
        assert Hours("22:00-06:00").opens_at(17 * 3600) == ""
    finally:
        monkeypatch.undo()
        time.tzset()


def test_rate_is_that_of_the_last_seconds(tmp_path):
    now = [0.0]
    progress = Progress(str(tmp_path), 1000, clock=lambda: now[0])
    for second in range(1, 31):
        now[0] = float(second)
        progress.add(10 if second <= 10 else 20, fetched=True)
        found = progress.document()
    assert 19 <= progress.rate() <= 20
    assert (found["bytes_done"], found["bytes_fetched"]) == (500, 500)
    assert found["eta_seconds"] in (25, 26)


def test_a_clock_that_is_set_back_breaks_nothing(tmp_path, monkeypatch):
    wall = [1_800_000_000.0]
    monkeypatch.setattr(time, "time", lambda: wall[0])
    progress, bucket = Progress(str(tmp_path), 10**9), TokenBucket(10**9)
    progress.add(1000, fetched=True)
    wall[0] -= 86_400 * 365
    progress.add(1000, fetched=True)
    assert progress.document()["rate"] >= 0
    assert 0 <= bucket.spend(1000) < 1
