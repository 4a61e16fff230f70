# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bytes between a socket and a file, through a pipe of the kernel and through memory."""

from __future__ import annotations

import errno
import os
import random
import socket

import pytest

from ansible_collections.onprem.llamacpp.plugins.module_utils._buffer import Buffer

SIZE = 2**18
DATA = random.Random(1).randbytes(SIZE)
MARK = b"what stood there"


class Source:
    """A socket that is read: first what came along with the headers, then the rest."""

    def __init__(self, first=DATA[:5000], rest=DATA[5000:]):
        self.near, self.far = socket.socketpair()
        self.near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * SIZE)
        self.first, self.spliced = first, 0
        self.near.sendall(rest)

    def spliceable(self):
        return not self.first

    def splice_into(self, pipe, most):
        try:
            count = os.splice(self.far.fileno(), pipe, most, flags=os.SPLICE_F_NONBLOCK)
        except BlockingIOError:
            return None
        self.spliced += count
        return count

    def read_into(self, view):
        if not self.first:
            return self.far.recv_into(view)
        count = min(len(self.first), len(view))
        view[:count], self.first = self.first[:count], self.first[count:]
        return count


@pytest.fixture
def handle(tmp_path):
    opened = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield opened
    os.close(opened)


@pytest.fixture
def buffer():
    made = Buffer(SIZE)
    yield made
    made.close()


def fill(buffer, source, most):
    filled = 0
    while filled < most:
        count = buffer.take(source, most - filled)
        if not count:
            break
        filled += count
    return filled


def drain(buffer, source, handle, size=SIZE):
    position = 0
    while position < size:
        count = fill(buffer, source, min(2**16, size - position))
        buffer.write(handle, position, count)
        position += count


needs_splice = pytest.mark.skipif(not hasattr(os, "splice"), reason="Python 3.9 reads into memory")


@needs_splice
def test_all_but_the_first_read_goes_through_the_pipe(buffer, handle):
    source = Source()
    drain(buffer, source, handle)
    assert os.pread(handle, SIZE + 1, 0) == DATA
    assert source.spliced == SIZE - 5000


def test_without_splice_it_goes_through_memory(monkeypatch, handle):
    monkeypatch.delattr(os, "splice", raising=False)
    buffer, source = Buffer(SIZE), Source()
    drain(buffer, source, handle)
    assert os.pread(handle, SIZE + 1, 0) == DATA
    assert (source.spliced, buffer.ends) == (0, None)


@needs_splice
def test_a_file_system_that_cannot_splice_is_written_to_nevertheless(buffer, handle, monkeypatch):
    splice = os.splice

    def refusing(source, target, count, **more):
        if target == handle:
            raise OSError(errno.EINVAL, "Invalid argument")
        return splice(source, target, count, **more)

    monkeypatch.setattr(os, "splice", refusing)
    source = Source()
    drain(buffer, source, handle)
    assert os.pread(handle, SIZE + 1, 0) == DATA
    assert 0 < source.spliced < 2**17  # it was tried once


@needs_splice
def test_a_full_disk_is_told(buffer):
    source, full = Source(b""), os.open("/dev/full", os.O_WRONLY)
    count = fill(buffer, source, SIZE)
    with pytest.raises(OSError, match="No space left"):
        buffer.write(full, 0, count)
    os.close(full)


@needs_splice
def test_a_pipe_that_is_full_of_small_pieces_is_handed_on(buffer, handle):
    source = Source(b"", b"")
    pieces = [DATA[start : start + 100] for start in range(0, 60_000, 100)]  # each takes a place of its own in a pipe
    for piece in pieces:
        source.near.sendall(piece)
    drain(buffer, source, handle, 60_000)
    assert os.pread(handle, SIZE, 0) == DATA[:60_000]


@needs_splice
@pytest.mark.parametrize("first", [b"", DATA[:5000]])
def test_only_what_is_wanted_is_written_and_the_rest_forgotten(buffer, handle, first):
    source = Source(first, DATA[len(first) :])
    os.pwrite(handle, MARK, 7000)
    assert fill(buffer, source, 10_000) == 10_000
    buffer.write(handle, 0, 7000)
    buffer.clear()
    assert os.pread(handle, SIZE, 0) == DATA[:7000] + MARK
    assert fill(buffer, source, 3000) == 3000
    buffer.write(handle, 7000, 3000)
    assert os.pread(handle, SIZE, 0) == DATA[:7000] + DATA[10_000:13_000]
