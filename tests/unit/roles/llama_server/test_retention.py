# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What many switches leave on disk."""

from __future__ import annotations

import os

import pytest
from switch_host import NEW, OLD, OLDER, retention


def identity(number):
    return f"{number:012x}"


def kept(host):
    """Deployments under /etc and under /var/lib."""
    declared = {path.name for path in (host.layout.declared / "deployments").iterdir()}
    return declared, {path.name for path in host.layout.recorded.iterdir() if path.is_dir()}


def aged(host, number):
    """A deployment that was laid so many seconds after the epoch."""
    host.deploy(identity(number))
    for path in (host.layout.deployment(identity(number)), host.layout.recorded / identity(number) / "request.json"):
        os.utime(path, (number, number))


KEEPS = {"none": (0, 0), "two": (2, 2), "more-than-there-are": (99, 6)}


@pytest.mark.parametrize(("keep", "others"), KEEPS.values(), ids=KEEPS)
def test_switch_removes_the_oldest(serving, keep, others):
    for number in range(1, 6):
        aged(serving, number)
    serving.deploy(NEW, keep=keep)
    assert serving.run(NEW)["state"] == "committed"
    declared, recorded = kept(serving)
    # OLDER was asked by a gate a moment ago, so it is younger than those of 1970.
    wanted = {NEW, OLD, *[OLDER, *(identity(number) for number in range(5, 0, -1))][:others]}
    assert declared == recorded == wanted


def test_many_switches_leave_as_much_as_a_few(host):
    for number in range(1, 31):
        host.deploy(identity(number), keep=2)
        assert host.run(identity(number))["state"] == "committed"
    declared, recorded = kept(host)
    assert declared == recorded == {identity(number) for number in range(27, 31)}


def test_deployments_that_fail_go_too(serving):
    for number in range(1, 9):
        serving.deploy(identity(number), "crash", keep=2)
        assert serving.run(identity(number))["state"] == "undone"
    declared, recorded = kept(serving)
    assert declared == recorded == {OLD, OLDER, identity(7), identity(8)}


def test_interrupted_removal_is_finished_and_strangers_stay(serving):
    half = serving.layout.declared / "deployments" / f".gone-{identity(2)}"
    (half / "engine").mkdir(parents=True)
    aged(serving, 2)
    stranger = serving.layout.recorded / "notes"
    stranger.mkdir()
    orphan = serving.layout.recorded / identity(1)
    orphan.mkdir()
    retention.prune(serving.layout, 0)
    assert not half.exists() and not orphan.exists() and stranger.is_dir()
    assert not serving.layout.deployment(identity(2)).exists()
    assert serving.links() == (OLD, OLDER)


def test_what_cannot_be_removed_fails_no_switch(serving, monkeypatch):
    def refuse(_folder):
        raise PermissionError

    serving.deploy(NEW, keep=0)
    monkeypatch.setattr(retention, "_names", refuse)
    assert serving.run(NEW)["state"] == "committed"
