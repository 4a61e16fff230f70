# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who builds for whom."""

from __future__ import annotations

import pytest

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _engine_origin


def peer(build_id="id", platform="debian-12", host_platform="debian-12", has=False):
    return {"build_id": build_id, "platform": platform, "host_platform": host_platform, "release": {"path": "/x"} if has else {}}


@pytest.mark.parametrize(
    ("peers", "host", "leader"),
    [
        pytest.param({"a": peer()}, "a", "a", id="alone"),
        pytest.param({"a": peer(), "b": peer()}, "a", "a", id="first-of-two"),
        pytest.param({"a": peer(host_platform="debian-13"), "b": peer()}, "b", "a", id="only-the-right-platform-builds"),
        pytest.param({"a": peer(), "b": peer(has=True, host_platform="debian-13")}, "b", "a", id="one-that-has-it-is-asked-first"),
        pytest.param({"a": peer(host_platform="debian-13")}, "", "a", id="nobody-can"),
        pytest.param({"a": peer("other"), "b": peer()}, "b", "b", id="other-builds-do-not-count"),
        pytest.param({"a": peer(has=True)}, "a", "", id="nobody-lacks-it"),
        pytest.param({"a": {}, "b": peer()}, "b", "b", id="unresolved-host"),
    ],
)
def test_origin(peers, host, leader):
    assert _engine_origin.origin(peers, "id", {}) == {"host": host, "leader": leader}


@pytest.mark.parametrize(
    ("peers", "builders", "host"),
    [
        pytest.param({"a": peer()}, {"x": peer()}, "x", id="before-a-host-that-serves"),
        pytest.param({"a": peer()}, {"x": peer("other")}, "a", id="of-another-kind"),
        pytest.param({"a": peer()}, {"x": peer(host_platform="debian-13")}, "a", id="of-another-platform"),
        pytest.param({"a": peer(host_platform="debian-13")}, {"x": peer()}, "x", id="the-only-one-of-the-platform"),
        pytest.param({"a": peer()}, {"x": {**peer(), "short": "It is full."}, "y": peer()}, "y", id="with-room-before-a-full-one"),
        pytest.param({"a": peer()}, {"x": {**peer(), "short": "It is full."}}, "x", id="full-and-the-only-one"),
        pytest.param({"a": peer()}, {"x": {**peer(), "problems": ["It has no compiler."]}}, "a", id="that-cannot"),
        pytest.param({"a": peer(), "b": peer(has=True)}, {"x": peer()}, "b", id="a-host-that-has-it-is-asked-first"),
        pytest.param({"a": peer()}, {"x": peer(), "y": peer(has=True)}, "y", id="a-builder-that-has-it-is-asked-first"),
    ],
)
def test_hosts_that_are_there_to_build(peers, builders, host):
    assert _engine_origin.origin(peers, "id", builders) == {"host": host, "leader": "a"}


def test_builders_share_the_builds_of_a_run():
    peers = {"a": peer("one"), "b": peer("two"), "c": peer("three"), "d": peer("has", has=True)}
    chosen = [
        _engine_origin.origin(peers, build_id, {"x": peer(build_id), "y": peer(build_id)})["host"] for build_id in ("one", "two", "three")
    ]
    assert sorted(chosen) in (["x", "x", "y"], ["x", "y", "y"])
