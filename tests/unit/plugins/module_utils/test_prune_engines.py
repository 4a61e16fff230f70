# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which releases go, from facts alone."""

from __future__ import annotations

import pytest

from ansible_collections.onprem.llamacpp.plugins.module_utils._prune_engines import choose


def engine(build_id, day, *users):
    used_by = [{"instance": "main", "link": user} for user in users]
    return {"build_id": build_id, "path": f"/r/{build_id}", "used_by": used_by, "build": {"built_at": f"2026-11-{day:02}T00:00:00Z"}}


RECORDED = {"build_id": "old-facts", "path": "/r/old-facts", "build": {}}


@pytest.mark.parametrize(
    ("engines", "keep", "wanted", "busy", "gone"),
    [
        pytest.param([engine("a", 2), engine("b", 1)], 0, [], {}, ["b", "a"], id="oldest-first"),
        pytest.param([engine("a", 2), engine("b", 1)], 1, [], {}, ["b"], id="newest-stays"),
        pytest.param([engine("a", 2), engine("b", 1)], 0, ["b"], {}, ["a"], id="wanted"),
        pytest.param([engine("a", 2, "current"), engine("b", 1, "previous")], 0, [], {}, [], id="deployed"),
        pytest.param([engine("a", 2), engine("b", 1)], 0, [], {"/r/a": "llama-bench (PID 1)"}, ["b"], id="running"),
        pytest.param([RECORDED], 0, [], {}, [], id="facts-that-do-not-tell-who-uses-it"),
        pytest.param([engine("a", 1)], -1, [], {}, [], id="never"),
        pytest.param([], 0, [], {}, [], id="nothing-there"),
    ],
)
def test_choice(engines, keep, wanted, busy, gone):
    assert [entry["build_id"] for entry in choose(engines, keep, wanted, busy)] == gone
