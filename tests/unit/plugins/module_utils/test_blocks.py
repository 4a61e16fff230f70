# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The running hash: what is written down, what names a damaged block, and going back."""

from __future__ import annotations

import hashlib

import pytest

from ansible_collections.onprem.llamacpp.plugins.module_utils import _blocks

DATA = bytes(range(256)) * 10
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(_blocks, "BLOCK", 1000)


def run(data, found=None, step=77):
    found = found or _blocks.RunningHash(len(data))
    while found.room():
        found.update(data[found.position : found.position + min(step, found.room())])
    return found


@pytest.mark.parametrize("size", [1, 999, 1000, 1001, 2000, 2560])
def test_entries_are_the_digests_of_what_lies_before_each_end(size):
    data = DATA[:size]
    blocks = run(data).blocks
    assert blocks == [hashlib.sha256(data[: min(end, size)]).hexdigest() for end in range(1000, size + 1000, 1000)]
    assert len(blocks) == _blocks.count_of(size)
    assert _blocks.checked(blocks, size, hashlib.sha256(data).hexdigest()) == blocks


@pytest.mark.parametrize(("position", "block"), [(0, 0), (999, 0), (1000, 1), (2559, 2)])
def test_the_first_difference_names_the_damaged_block(position, block):
    damaged = bytearray(DATA)
    damaged[position] ^= 1
    ours, trusted = run(damaged), run(DATA).blocks
    assert _blocks.first_difference(ours.blocks, trusted) == block
    begin, end = _blocks.bounds(block, len(DATA))
    damaged[begin:end] = DATA[begin:end]
    ours.rewind(block)
    assert ours.position == begin
    assert run(damaged, ours).blocks == trusted


def test_an_update_stays_within_its_block():
    found = _blocks.RunningHash(len(DATA))
    with pytest.raises(ValueError, match="beyond its block"):
        found.update(DATA[:1001])


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"size": 2559}, id="another size"),
        pytest.param({"block_size": 4096}, id="another block size"),
        pytest.param({"blocks": ["0" * 64] * 3}, id="another file"),
        pytest.param({"blocks": [SHA256]}, id="too few"),
        pytest.param({"blocks": ["x", "y", SHA256]}, id="no digests"),
        pytest.param({"blocks": None}, id="none"),
    ],
)
def test_a_document_that_cannot_be_true(change):
    document = {"size": len(DATA), "block_size": 1000, "blocks": run(DATA).blocks}
    assert _blocks.checked_document(document, len(DATA), SHA256) == document["blocks"]
    assert _blocks.checked_document({**document, **change}, len(DATA), SHA256) is None
    assert _blocks.checked_document([], len(DATA), SHA256) is None
