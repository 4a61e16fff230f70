# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is believed of a part on disk."""

from __future__ import annotations

import json

import pytest

from ansible_collections.onprem.llamacpp.plugins.module_utils import _journal

ITEM = {"path": "Q2_K/m.gguf", "size": 1000, "sha256": "a" * 64}


@pytest.fixture
def part(tmp_path, monkeypatch):
    monkeypatch.setattr(_journal, "boot_id", lambda: "this boot")
    path = tmp_path / "m.gguf.part"
    path.write_bytes(bytes(1000))
    return path


def leave(part, **change):
    known = {"size": 1000, "sha256": "a" * 64, "boot": "this boot", "received": [[0, 500], [600, 700]], "synced": [[0, 300]], "etags": {}}
    part.with_name("m.gguf.part.json").write_text(json.dumps({**known, **change}))


@pytest.mark.parametrize(
    ("change", "received", "synced"),
    [
        pytest.param({}, [(0, 500), (600, 700)], [(0, 300)], id="killed"),
        pytest.param({"boot": "another"}, [(0, 300)], [(0, 300)], id="power cut"),
        pytest.param({"boot": "another", "synced": [[0, 900]]}, [(0, 900)], [(0, 900)], id="power cut after a sync"),
        pytest.param({"received": "x", "synced": [[5]]}, [], [], id="garbled"),
        pytest.param({"received": [[0, 10**9], [-5, 3], [1.5, 2]]}, [(0, 1000)], [(0, 300)], id="beyond the file"),
        pytest.param({"sha256": "b" * 64}, [], [], id="another file"),
        pytest.param({"size": 999}, [], [], id="another size"),
    ],
)
def test_what_counts(part, change, received, synced):
    leave(part, **change)
    found = _journal.Journal(str(part), ITEM)
    assert (found.received.pairs(), found.synced.pairs()) == (received, synced)


def test_a_part_that_is_shorter_than_its_journal(part):
    leave(part)
    part.write_bytes(bytes(200))
    assert _journal.Journal(str(part), ITEM).received.pairs() == [(0, 200)]


def test_a_part_of_another_file_goes(part):
    leave(part, sha256="b" * 64)
    _journal.Journal(str(part), ITEM)
    assert not part.exists()


def test_a_part_without_a_journal_says_nothing(part):
    assert _journal.Journal(str(part), ITEM).received.pairs() == []
    assert not part.exists()


def test_what_came_by_another_way_is_there_but_not_synced(part, monkeypatch):
    _journal.give_journal(str(part), ITEM)
    found = _journal.Journal(str(part), ITEM)
    assert (found.received.pairs(), found.synced.pairs()) == ([(0, 1000)], [])


def test_bytes_present(part, tmp_path):
    leave(part)
    files = [ITEM, {"path": "whole.gguf", "size": 5, "sha256": "c" * 64}]
    (tmp_path / "whole.gguf").write_bytes(b"whole")
    assert _journal.bytes_present(str(tmp_path), files) == 605
    leave(part, sha256="b" * 64)
    assert _journal.bytes_present(str(tmp_path), files) == 5
