# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From facts alone: whether a module has to run on a host, and what it would remove."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.onprem.llamacpp.plugins.filter.prunable_models import prunable_models

ROOT = "/m"
COMMIT = "0" * 40


def model(quant: str, *users: str) -> dict[str, Any]:
    named = {"repo_id": "org/repo", "commit": COMMIT, "quant": quant, "path": f"{ROOT}/{quant}", "bytes": 100, "manifest": {}}
    return {**named, "used_by": [dict(zip(("instance", "link"), user.split(":"))) for user in users]}


def facts(filesystem: str = "ext4") -> dict[str, Any]:
    begun = {"repo_id": "org/repo", "commit": COMMIT, "bytes": 1}
    return {
        "collected_at": "2026-11-22T00:00:00Z",
        "disks": [{"path": "/opt", "free": 0, "filesystem": "ext4"}, {"path": ROOT, "free": 50, "filesystem": filesystem}],
        "models": [
            model("IDLE"),
            model("BEFORE", "main:previous", "b:previous"),
            model("OLD", "main:previous"),
            model("NOW", "main:current"),
        ],
        "partial_models": [
            {**begun, "quant": "P", "path": "/m/.P.staging", "modified_at": "2026-11-14T23:59:59Z"},
            {**begun, "quant": "Q", "path": "/m/.Q.staging", "modified_at": "2026-11-15T00:00:00Z"},
        ],
    }


@pytest.mark.parametrize(
    ("settings", "paths"),
    [
        pytest.param({}, ["/m/IDLE", "/m/.P.staging"], id="what nothing uses and what was given up"),
        pytest.param({"free_bytes": 50}, ["/m/.P.staging"], id="room enough"),
        pytest.param({"staging_days": -1}, ["/m/IDLE"], id="transfers stay"),
        pytest.param({"keep": [{"repo_id": "org/repo"}]}, [], id="everything kept"),
        pytest.param({"switched": ["main"], "staging_days": -1}, ["/m/IDLE", "/m/OLD"], id="after a switch"),
        pytest.param({"switched": ["main", "b"], "staging_days": -1}, ["/m/BEFORE", "/m/IDLE", "/m/OLD"], id="after two"),
        pytest.param({"filesystem": "nfs4"}, [], id="a share"),
    ],
)
def test_what_would_be_removed(settings: dict[str, Any], paths: list[str]) -> None:
    hardware = facts(settings.pop("filesystem", "ext4"))
    known = {"root": ROOT, "keep": [], "free_bytes": None, "staging_days": 7, "switched": [], **settings}
    assert sorted(prunable_models(hardware, known)) == sorted(paths)
