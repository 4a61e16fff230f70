# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A part that several connections write to."""

from __future__ import annotations

import threading

from ansible_collections.onprem.llamacpp.plugins.module_utils import _part

MIB = 2**20


def test_only_the_same_bytes_wait_for_each_other(tmp_path, monkeypatch):
    part = _part.Part(str(tmp_path / "x"), {"size": 4 * MIB, "sha256": "0" * 64})
    begun, go_on, write = threading.Event(), threading.Event(), part._write

    def slow(position, view):
        if view[0] == 1:
            begun.set()
            assert go_on.wait(20)
        write(position, view)

    def start(position, byte):
        thread = threading.Thread(target=part.write, args=(position, memoryview(bytes([byte]) * MIB), lambda: True))
        thread.start()
        return thread

    monkeypatch.setattr(part, "_write", slow)
    late = start(0, 1)
    assert begun.wait(20)
    elsewhere, same = start(2 * MIB, 2), start(MIB // 2, 3)
    elsewhere.join(20)
    assert not elsewhere.is_alive()
    same.join(0.2)
    assert same.is_alive()
    go_on.set()
    for thread in (late, same):
        thread.join(20)
    found = bytearray(4 * MIB)
    part.read(0, memoryview(found))
    assert [found[position] for position in (0, MIB // 2, MIB, 2 * MIB)] == [1, 3, 3, 2]
    part.close()
