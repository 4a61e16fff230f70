# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.onprem.llamacpp.plugins.module_utils import _swarm
from ansible_collections.onprem.llamacpp.plugins.module_utils._torrent import Torrent

TORRENT = Torrent("c" * 40, 10, [b""] * 3, [("a", 4), ("b", 3), ("c", 15)])


@pytest.mark.parametrize(
    ("have", "found"),
    [
        pytest.param([True, True, True], {"a": [[0, 4]], "b": [[0, 3]], "c": [[0, 15]]}, id="everything"),
        pytest.param([False, False, False], {"a": [], "b": [], "c": []}, id="nothing"),
        pytest.param([True, False, True], {"a": [[0, 4]], "b": [[0, 3]], "c": [[0, 3], [13, 15]]}, id="a gap"),
        pytest.param([False, True, True], {"a": [], "b": [], "c": [[3, 15]]}, id="pieces that touch are joined"),
    ],
)
def test_pieces_as_ranges_of_files(have, found):
    assert _swarm.ranges(TORRENT, have) == found


def test_names_without_an_address_are_left_out():
    assert _swarm.addresses(["127.0.0.1", "name.invalid"]) == {"127.0.0.1": "127.0.0.1"}


class SourceOf:
    """A mirror with one torrent."""

    mirror = type("Mirror", (), {"url": "http://mirror"})

    def torrent(self, *_what):
        return b""


@pytest.mark.parametrize(
    ("commit", "files"),
    [
        pytest.param("d" * 40, TORRENT.files, id="another commit"),
        pytest.param("c" * 40, [*TORRENT.files[:2], ("c", 16)], id="another size"),
        pytest.param("c" * 40, TORRENT.files[:2], id="fewer files"),
    ],
)
def test_a_torrent_of_other_files_is_refused(monkeypatch, commit, files):
    monkeypatch.setattr(_swarm, "read", lambda _data: TORRENT)
    job = {"repo_id": "org/repo", "commit": commit, "quant": "Q8_0", "files": [{"path": path, "size": size} for path, size in files]}
    with pytest.raises(_swarm.SwarmError, match="has other files than the repository"):
        _swarm.find_torrent(job, SourceOf())
