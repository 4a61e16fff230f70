# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.onprem.llamacpp.plugins.module_utils._swarm_share import PATIENCE, STALLED, Place, next_run, share_of

SHARERS = ["a", "b", "c", "d"]


def place(number, others=""):
    return Place(number, ["" if index == number else name for index, name in enumerate(SHARERS)], frozenset(others))


def run(number=1, have=(), offered=(), connected="acd", age=60.0, idle=0.0, longest=2, others=""):
    """Of 16 pieces, four to a share."""
    return next_run(
        place(number, others),
        [piece in have for piece in range(16)],
        [int(piece in offered) for piece in range(16)],
        set(connected),
        age,
        idle,
        longest,
    )


def test_shares_are_runs_that_leave_nothing_out():
    shares = [share_of(piece, 10, 4) for piece in range(10)]
    assert shares == sorted(shares)
    assert set(shares) == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("wish", "wanted"),
    [
        pytest.param({"age": 0.0, "connected": ""}, [4, 5], id="its own share at once, though no peer is there yet"),
        pytest.param({"have": [4]}, [5, 6], id="goes on where it was"),
        pytest.param({"have": [5], "longest": 4}, [4], id="a run has no gap"),
        pytest.param({"offered": [4, 5]}, [6, 7], id="what a peer has is left to it"),
        pytest.param({"have": range(4, 8)}, [], id="the others' shares come from them"),
        pytest.param({"have": range(4, 8), "connected": "ad", "age": 1.0}, [], id="an absent peer is waited for"),
        pytest.param({"have": range(4, 8), "connected": "ad"}, [9, 10], id="the share of an absent peer is divided"),
        pytest.param({"have": range(4, 8), "connected": "ad", "offered": range(8, 12)}, [], id="unless another has it"),
        pytest.param({"have": range(4, 8), "idle": STALLED}, [3], id="when nobody brings anything, what is missing"),
        pytest.param({"have": range(16)}, [], id="nothing is missing"),
        pytest.param({"age": 1.0, "others": "xy"}, [], id="those who may have all of it are waited for"),
        pytest.param({"age": 1.0, "others": "xy", "connected": "x"}, [4, 5], id="until one is there"),
        pytest.param({"age": PATIENCE, "others": "xy"}, [4, 5], id="but not for ever"),
    ],
)
def test_next_run(wish, wanted):
    assert run(**wish) == wanted


def test_hosts_begin_an_orphaned_share_at_different_places():
    firsts = {run(number, have=range(number * 4, number * 4 + 4), connected="".join({"b", "c", "d"}))[0] for number in (1, 2, 3)}
    assert len(firsts) == 3


def test_a_host_alone_takes_everything():
    have = [False] * 5
    while not all(have):
        for piece in next_run(Place(0, [""]), have, [0] * 5, set(), 0.0, 0.0, 2):
            have[piece] = True
