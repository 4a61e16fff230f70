# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Room on disks, as facts tell it."""

from __future__ import annotations

import pytest

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _room

DISKS = [{"path": "/opt/llamacpp", "mount": "/", "free": 10 * 10**9}, {"path": "/opt/llamacpp/build", "mount": "/build", "free": 10**9}]


@pytest.mark.parametrize(
    ("path", "needed", "words"),
    [
        pytest.param("/opt/llamacpp/cuda", 9 * 10**9, "", id="enough"),
        pytest.param(
            "/opt/llamacpp/cuda", 11 * 10**9, "needs 11.0 GB at /opt/llamacpp/cuda, but the filesystem / has 10.0 GB free", id="short"
        ),
        pytest.param("/opt/llamacpp/build/x", 2 * 10**9, "the filesystem /build has 1.0 GB free", id="nearest-folder-counts"),
        pytest.param("/opt/llamacppp", 10**15, "", id="another-folder-of-like-name"),
        pytest.param("/srv", 10**15, "", id="nobody-knows"),
    ],
)
def test_problem(path, needed, words):
    problem = _room.problem({"disks": DISKS}, path, needed, "A build")
    assert (words in problem) if words else problem == ""
