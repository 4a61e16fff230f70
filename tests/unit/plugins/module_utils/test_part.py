# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A part that several connections write to."""

from __future__ import annotations

import threading

from ansible_collections.onprem.llamacpp.plugins.module_utils import _buffer, _part

MIB = 2**20


def test_only_the_same_bytes_wait_for_each_other(tmp_path):
    part = _part.Part(str(tmp_path / "x"), {"size": 4 * MIB, "sha256": "0" * 64})
    begun, go_on = threading.Event(), threading.Event()

    class Slow(_buffer.Buffer):
        def write(self, handle, position, count):
            if self.memory[0] == 1:
                begun.set()
                assert go_on.wait(20)
            super().write(handle, position, count)

    def start(position, byte):
        buffer = Slow(MIB)
        buffer.memory[:], buffer.read = bytes([byte]) * MIB, MIB
        thread = threading.Thread(target=part.write, args=(position, buffer, MIB, lambda: True))
        thread.start()
        return thread

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
