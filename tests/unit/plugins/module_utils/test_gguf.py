# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Headers are read as the gguf package reads them; everything else ends in one sentence, for little time and memory."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import gguf
import gguf_bytes as b
import pytest
import shapes
from limits import limits

from ansible_collections.onprem.llamacpp.plugins.module_utils import _gguf
from ansible_collections.onprem.llamacpp.plugins.module_utils._stub import write_stub

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "models"))
import tiny_kimi_k2

MIB = 2**20


def read(data, size=None, step=None, budget=None):
    """The header of ``data``, and the ranges that were asked for; ``step`` makes the source deliver in small blocks."""
    asked = []

    def fetch(begin, end):
        asked.append((begin, end))
        held = data[begin:end]
        return [held[start : start + step] for start in range(0, len(held), step)] if step else [held]

    header, held = _gguf.read_header(fetch, len(data) if size is None else size, "m.gguf", budget or _gguf.Budget())
    assert bytes(held) == data[: header.end]
    return header, asked


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny") / "tiny.gguf"
    tiny_kimi_k2.write_model(path, tiny_kimi_k2.SPLIT_QUANTS["UD-Q2_K_XL"])
    return path


@pytest.fixture(scope="module")
def kimi(tmp_path_factory):
    """A vocabulary of a tenth keeps the tests quick."""
    path = tmp_path_factory.mktemp("kimi") / "kimi.gguf"
    shapes.write_file(shapes.SHAPES["kimi-k2"], path, tokens=16_384)
    return path


def test_tensors_and_settings_are_those_that_the_gguf_package_reads(tiny):
    header, _asked = read(tiny.read_bytes())
    theirs = gguf.GGUFReader(tiny)
    assert [(item.name, item.type, list(item.shape), item.bytes) for item in header.tensors] == [
        (item.name, item.tensor_type.name, item.shape.tolist(), item.n_bytes) for item in theirs.tensors
    ]
    assert [header.data_start + item.offset for item in header.tensors] == [item.data_offset for item in theirs.tensors]
    assert header.data_start == theirs.data_offset
    for key, field in theirs.fields.items():
        value = field.contents()
        if key.startswith("GGUF."):
            continue
        if isinstance(value, list):
            assert header.lengths[key] == len(value)
            assert header.keys.get(key, value) == value
            assert (key in header.keys) == (not isinstance(value[0], str))
        else:
            assert header.keys[key] == value


def test_types_are_those_of_the_gguf_package():
    known = {kind.value: (kind.name, *sizes) for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    known[gguf.GGMLQuantizationType.Q8_1] = ("Q8_1", 32, 36)  # two halves and 32 bytes in the engine; the package has an older size
    assert {number: entry for number, entry in _gguf.TYPES.items() if number in known} == {
        number: entry for number, entry in known.items() if number in _gguf.TYPES
    }
    assert set(known) <= set(_gguf.TYPES)


@pytest.mark.parametrize("step", [None, 1, 7, 4096])
def test_blocks_may_have_any_size(tiny, step):
    header, _asked = read(tiny.read_bytes(), step=step)
    assert len(header.tensors) == 88


def test_little_more_than_the_header_is_asked_for(kimi):
    size = kimi.stat().st_size
    with kimi.open("rb") as stream:
        held = stream.read(2 * MIB)
    header, asked = read(held, size)
    assert header.end > 5 * _gguf.FIRST
    assert len(header.tensors) == 1096
    assert header.lengths["tokenizer.ggml.tokens"] == 16_384
    assert asked[0] == (0, _gguf.FIRST)
    assert [begin for begin, _end in asked[1:]] == [end for _begin, end in asked[:-1]]
    assert asked[-1][1] <= 1.25 * header.end
    assert len(asked) <= 8


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(b.header(b.MODEL, b.ONE, version=2), {}, id="version 2"),
        pytest.param(b.header([*b.MODEL, b.text("general.name", b"K\xff2")], b.ONE), {"general.name": "K\ufffd2"}, id="not UTF-8"),
        pytest.param(b.header([*b.MODEL, b.text("t", "x" * 70_000)], b.ONE), {"t": None}, id="a long string is not kept"),
        pytest.param(b.header([*b.MODEL, b.text("t", "")], b.ONE), {"t": ""}, id="an empty string"),
        pytest.param(b.header([*b.MODEL, b.array("a", b.STRING, ["", "é", ""])], b.ONE), {}, id="strings"),
        pytest.param(b.header([*b.MODEL, b.array("a", b.STRING, [])], b.ONE), {}, id="no strings"),
        pytest.param(b.header([*b.MODEL, b.array("a", b.BOOL, [True, False])], b.ONE), {"a": [True, False]}, id="bools"),
        pytest.param(b.header([*b.MODEL, b.array("a", b.U8, [1] * 4096)], b.ONE), {"a": [1] * 4096}, id="a long array"),
        pytest.param(b.header([*b.MODEL, b.array("a", b.U8, [1] * 4097)], b.ONE), {}, id="an array that is not kept"),
        pytest.param(b.header([*b.MODEL, b.scalar("n", b.U64, 2**64 - 1)], b.ONE), {"n": 2**64 - 1}, id="a large number"),
    ],
)
def test_headers_that_are_fine(data, expected):
    header, _asked = read(b.whole(data, 128))
    assert header.keys == {"general.architecture": "llama", "llama.block_count": 1, **expected}


@pytest.mark.parametrize(
    ("alignment", "padding"),
    [pytest.param(8, 0, id="8"), pytest.param(4096, 0, id="4096"), pytest.param(64, 40, id="the last tensor is padded")],
)
def test_alignment(alignment, padding):
    keys = [*b.MODEL, b.scalar("general.alignment", b.U32, alignment)]
    two = [b.tensor("a", (6,)), b.tensor("b", (6,), offset=max(24, alignment))]
    header, _asked = read(b.whole(b.header(keys, two), max(24, alignment) + 24 + padding, alignment))
    assert header.data_start % alignment == 0


def test_a_shard_without_tensors_ends_with_its_header_or_the_padding():
    head = b.header(b.MODEL)
    for data in (head, b.whole(head, 0)):
        assert read(data)[0].tensors == []
    with pytest.raises(_gguf.GgufError, match="does not belong to a file of this size"):
        read(b.whole(head, 1))


HUGE = 2**63
ONE_KEY = b.MODEL[:1]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        pytest.param(b"", "it ends too early, for what is announced here takes at least 8 bytes", id="empty"),
        pytest.param(b"GGUF\3\0\0\0\1", "it ends too early", id="cut off in the counts"),
        pytest.param(b"<!DOCTYPE html><html>", "it begins with b'<!DO' instead of b'GGUF' (byte 0 of 21)", id="wrong magic"),
        pytest.param(b.whole(b.header(version=1), 64), "its format is version 1, and only 2 and 3 can be read", id="version 1"),
        pytest.param(b.whole(b.header(version=4), 64), "its format is version 4", id="version 4"),
        pytest.param(b.whole(b.header(version=0), 64), "its format is version 0", id="version 0"),
        pytest.param(b.whole(b.header(version=3 << 24), 64), "written for big-endian machines", id="big-endian"),
        pytest.param(b.whole(b.header(tensor_count=2**64 - 1), 64), "it ends too early", id="absurd number of tensors"),
        pytest.param(b.whole(b.header(key_count=2**40), 64), "it ends too early", id="absurd number of settings"),
        pytest.param(b.header([b.string("k", HUGE)]) + bytes(64), "has 9223372036854775808 bytes, allowed are 1 to 256", id="key of 2^63"),
        pytest.param(b.header([b.string("")], (), key_count=1) + bytes(64), "has 0 bytes", id="key without a name"),
        pytest.param(b.whole(b.header([b.string(b"\xff") + bytes(8)]), 64), "is not UTF-8", id="key that is no text"),
        pytest.param(b.whole(b.header([b.scalar("a\x1b[2J", b.U8, 1)]), 64), "cannot be printed", id="key with control characters"),
        pytest.param(b.whole(b.header([*ONE_KEY, *ONE_KEY]), 64), "general.architecture stands there twice", id="setting twice"),
        pytest.param(b.whole(b.header([b.text("t", "x", HUGE)]), 64), "it ends too early", id="string of 2^63"),
        pytest.param(b.whole(b.header([b.text("t", "x", 2**64 - 1)]), 64), "it ends too early", id="string of 2^64-1"),
        pytest.param(b.whole(b.header([b.array("a", b.STRING, ["x"], HUGE)]), 64), "it ends too early", id="2^63 strings"),
        pytest.param(b.whole(b.header([b.array("a", b.U64, [1], 2**61)]), 64), "it ends too early", id="2^61 numbers"),
        pytest.param(
            b.whole(b.header([b.array("a", b.STRING, [])[:-8] + struct.pack("<QQQ", 2, HUGE, 1)]), 64),
            "it ends too early",
            id="strings of 2^63",
        ),
        pytest.param(
            b.whole(b.header([b.string("a") + struct.pack("<IIQ", b.ARRAY, b.ARRAY, 1)]), 64),
            "an array of the type 9, which arrays cannot hold",
            id="nested arrays",
        ),
        pytest.param(b.whole(b.header([b.string("a") + struct.pack("<II", 13, 0)]), 64), "type 13, which does not exist", id="type 13"),
        pytest.param(b.header(ONE_KEY, [b.tensor("t", (1,) * 5)]) + bytes(64), "has 5 dimensions, allowed are 1 to 4", id="n_dims 5"),
        pytest.param(b.header(ONE_KEY, [b.tensor("t", ())]) + bytes(64), "has 0 dimensions", id="n_dims 0"),
        pytest.param(b.header(ONE_KEY, [b.tensor("t", (), dimensions=2**32 - 1)]) + bytes(64), "4294967295 dimensions", id="n_dims 2^32"),
        pytest.param(b.whole(b.header(ONE_KEY, [b.tensor("t", (8, 0))]), 0), "has the shape [8, 0]", id="a dimension of 0"),
        pytest.param(b.whole(b.header(ONE_KEY, [b.tensor("t", (100,), 12)]), 64), "which Q4_K in blocks of 256 cannot have", id="no block"),
        pytest.param(b.whole(b.header(ONE_KEY, [b.tensor("t", (2**62, 2**62))]), 64), "the file does not hold them", id="2^124 elements"),
        pytest.param(b.whole(b.header(ONE_KEY, [b.tensor("t", (8,), 4)]), 64), "has the type 4, which does not exist", id="removed type"),
        pytest.param(b.whole(b.header(ONE_KEY, [b.tensor("t", (8,), 2**31)]), 64), "has the type 2147483648", id="type 2^31"),
        pytest.param(b.whole(b.header(ONE_KEY, [b.tensor("t" * 64, (8,))]), 64), "64 bytes, allowed are 1 to 63", id="long tensor name"),
        pytest.param(b.whole(b.header(ONE_KEY, [*b.ONE, *b.ONE]), 256), "output.weight stands there twice", id="tensor twice"),
        pytest.param(
            b.whole(b.header(ONE_KEY, [b.tensor("a", (8,)), b.tensor("b", (8,))]), 64),
            "b lies at byte 0 of the data instead of 32",
            id="overlap",
        ),
        pytest.param(b.whole(b.header(ONE_KEY, [b.tensor("a", (8,), offset=8)]), 64), "at byte 8 of the data instead of 0", id="unaligned"),
        pytest.param(b.whole(b.header(ONE_KEY, [b.tensor("a", (8,), offset=HUGE)]), 64), "instead of 0", id="offset of 2^63"),
        pytest.param(
            b.whole(b.header(b.MODEL, b.ONE), 127), "its tensors end at byte 288, so the header does not belong", id="file too short"
        ),
        pytest.param(
            b.whole(b.header(b.MODEL, b.ONE), 129), "its tensors end at byte 288, so the header does not belong", id="file too long"
        ),
        *(
            pytest.param(
                b.whole(b.header([b.scalar("general.alignment", kind, value)]), 64),
                "no power of two up to 1048576",
                id=f"alignment {value}",
            )
            for kind, value in [(b.U32, 0), (b.U32, 24), (b.U32, 2**31), (b.I32, -32), (b.F32, 32.0), (b.BOOL, True)]
        ),
        pytest.param(b.whole(b.header([b.array("general.alignment", b.U32, [32])]), 64), "alignment is [32]", id="alignment in an array"),
        pytest.param(b.whole(b.header([b.text("general.alignment", "x" * 70_000)]), 64), "alignment is None", id="alignment as long text"),
    ],
)
def test_headers_that_are_refused(data, told):
    with pytest.raises(_gguf.GgufError) as caught:
        read(data)
    message = str(caught.value)
    assert told in message
    assert message.startswith("m.gguf is not a usable GGUF file: ")
    assert f" of {len(data)})." in message
    assert "\n" not in message


def test_cut_off_anywhere_it_says_so(tiny):
    data = tiny.read_bytes()
    end = read(data)[0].end
    for length in [*range(0, 200), *range(200, end, 997), end - 1]:
        with pytest.raises(_gguf.GgufError, match=r"ends too early|does not hold them"):
            read(data[:length])
        with pytest.raises(_gguf.GgufError, match=rf"cut off after {length} bytes"):
            read(data[:length], len(data))


GB = 10**9


@pytest.mark.parametrize(
    "start",
    [
        pytest.param(b.header(key_count=10**8), id="settings"),
        pytest.param(b.header(tensor_count=10**8), id="tensors"),
        pytest.param(b.header([b.text("t", "", 2**33)]), id="a string"),
        pytest.param(b.header([b.array("a", b.U64, [], 2**33)]), id="an array of numbers"),
        pytest.param(b.header([b.array("a", b.STRING, [], 2**33)]), id="strings"),
    ],
)
def test_what_takes_too_much_memory_is_refused_before_it_is_fetched(start):
    asked = []

    def fetch(begin, end):
        asked.append(end)
        return [start.ljust(end, b"\0")[begin:end]]

    with pytest.raises(_gguf.GgufError, match="more than 128 MiB of memory"):
        _gguf.read_header(fetch, 500 * GB, "m.gguf", _gguf.Budget())
    assert asked == [_gguf.FIRST]


def many_settings(count):
    return b.header([b.scalar(f"{number:x}", b.U8, 1) for number in range(count)])


def many_arrays(count):
    return b.header([b.array(f"{number:x}", b.I32, range(1000, 5096)) for number in range(count)])


def many_tensors(count):
    entries = [b.tensor(f"{number:x}", (1000, 1000, 1000, 1000), 24, number * 10**12) for number in range(count)]
    return b.header(ONE_KEY, entries, tensor_count=count)


def wide_texts(count):
    return b.header([b.text(f"{number:x}", "😀" + "a" * 65_000) for number in range(count)])


@pytest.mark.parametrize(
    ("make", "count"),
    [
        pytest.param(many_settings, 220_000, id="settings"),
        pytest.param(many_arrays, 680, id="arrays"),
        pytest.param(many_tensors, 150_000, id="tensors"),
        pytest.param(wide_texts, 360, id="texts"),
        pytest.param(lambda count: b.header([b.array("a", b.STRING, [], count)]) + bytes(8 * count), 12_000_000, id="empty strings"),
    ],
)
def test_the_worst_headers_take_seconds_and_less_than_256_mib(make, count):
    """Just within the budget, so that they are read to their end."""
    data = make(count)

    def fetch(begin, end):
        return (data[at : min(at + 65536, end)] for at in range(begin, end, 65536))

    with limits(memory=256 * MIB, seconds=20), pytest.raises(_gguf.GgufError, match="does not belong to a file of this size"):
        _gguf.read_header(fetch, 10**18, "m.gguf", _gguf.Budget())


def test_a_stub_is_what_the_file_would_be_to_whoever_reads_its_header(kimi, tmp_path):
    size = kimi.stat().st_size
    with kimi.open("rb") as stream:
        held = stream.read(2 * MIB)
    header, _asked = read(held, size)
    saved = tmp_path / "kimi.header"
    saved.write_bytes(held[: header.end])
    for number, given in enumerate((str(saved), held[: header.end])):
        target = tmp_path / f"{number}.gguf"
        write_stub(given, size, str(target))
        assert target.stat().st_size == size
        assert target.stat().st_blocks * 512 < 2 * MIB
        assert gguf.GGUFReader(target).tensors[-1].name == header.tensors[-1].name
        with pytest.raises(FileExistsError):
            write_stub(given, size, str(target))
    with pytest.raises(ValueError, match="does not fit"):
        write_stub(b"GGUF", 3, str(tmp_path / "small.gguf"))
