# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever bytes come: a header and its summary, or one sentence; soon, and in little memory.

FUZZ_EXAMPLES says how many headers are tried in all.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from pathlib import Path

import gguf_bytes as b
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as some
from limits import limits

from ansible_collections.onprem.llamacpp.plugins.module_utils._gguf import Budget, GgufError, read_header
from ansible_collections.onprem.llamacpp.plugins.module_utils._profile import profile

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "models"))
import tiny_kimi_k2

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "5000"))
MEMORY = 256 * 2**20
SECONDS = 5.0
ROUND = 2500


def fuzz(share, check, *strategies):
    """Call ``check`` with ``share`` of all examples: the same ones every time, so that a failure is never luck.

    In rounds, because hypothesis remembers all examples of one.
    """
    count = max(1, int(EXAMPLES * share))
    for number, done in enumerate(range(0, count, ROUND)):
        chosen = settings(max_examples=min(ROUND, count - done), deadline=None, database=None, suppress_health_check=list(HealthCheck))
        seed(number)(chosen(given(*strategies)(check)))()


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Real headers of a set of two shards and of one file, each with the size of its file."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny_kimi_k2.write_model(folder / "a.gguf", tiny_kimi_k2.SPLIT_QUANTS["UD-Q2_K_XL"], shards=2)
    tiny_kimi_k2.write_model(folder / "b.gguf", tiny_kimi_k2.SINGLE_QUANTS["Q2_K"])
    found = []
    for path in sorted(folder.glob("*.gguf")):
        data = path.read_bytes()
        header, _held = read_header(lambda begin, end, data=data: [data[begin:end]], len(data), path.name, Budget())
        found.append((data[: header.end], len(data)))
    return found


def survive(data, size):
    """Read a header as if its file had ``size`` bytes, and summarise it. Only GgufError may come out."""
    try:
        with limits(MEMORY, SECONDS):
            header, held = read_header(lambda begin, end: [data[begin:end]], size, "m.gguf", Budget())
            made = profile([{"path": "m.gguf", "size": size, "header_bytes": header.end, "header": "/x"}], [header])
    except GgufError as error:
        message = str(error)
        assert message.isprintable()
        assert len(message) < 1000
        return
    assert bytes(held) == data[: header.end]
    json.loads(json.dumps(made, allow_nan=False))
    assert sum(layer["experts"] + layer["rest"] for layer in made["layers"]) + made["input"] + made["output"] == made["bytes"] <= size


NUMBERS = some.one_of(
    some.sampled_from([0, 1, 2, 31, 32, 33, 255, 256, 512, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1]),
    some.integers(0, 2**64 - 1),
)


def damaged(draw, head):
    held = bytearray(head)
    for _ in range(draw(some.integers(1, 6))):
        at = draw(some.integers(0, len(held) - 1))
        kind = draw(some.sampled_from(["byte", "u32", "u64", "cut", "insert", "repeat"]))
        if kind == "byte":
            held[at] = draw(some.integers(0, 255))
        elif kind == "u32":
            held[at : at + 4] = struct.pack("<I", draw(NUMBERS) & 0xFFFFFFFF)
        elif kind == "u64":
            held[at : at + 8] = struct.pack("<Q", draw(NUMBERS))
        elif kind == "cut":
            del held[at : at + draw(some.integers(1, 64))]
        elif kind == "insert":
            held[at:at] = draw(some.binary(max_size=32))
        else:
            held[at:at] = held[at : at + draw(some.integers(1, 256))]
        if not held:
            break
    return bytes(held)


def test_real_headers_with_damage(real):
    def check(data):
        head, size = data.draw(some.sampled_from(real))
        held = damaged(data.draw, head)
        survive(held, data.draw(some.sampled_from([size, len(held), 2**40])))

    fuzz(0.4, check, some.data())


KNOWN = some.sampled_from(
    """general.architecture general.alignment general.name llama.block_count llama.x split.no split.count split.tensors.count
    tokenizer.ggml.tokens token_embd.weight output.weight blk.0.ffn_up_exps.weight blk.0.attn_q.weight blk.1.attn_q.bias
    blk.99999999999.a blk.-1.a blk.01.a .""".split()
)
ANY_NAME = some.one_of(some.text(max_size=70).map(lambda text: text.encode("utf-8", "surrogatepass")), some.binary(max_size=70))
# Mostly such that reading goes on behind them.
PLAIN = some.integers(0, 10**6).map(lambda number: f"llama.k{number}")
NAMES = some.integers(0, 19).flatmap(lambda dice: ANY_NAME if dice == 0 else KNOWN if dice < 5 else PLAIN)
KINDS = some.one_of(some.sampled_from([*b.FORMS, b.STRING, b.ARRAY, 12, 13]), some.integers(0, 2**32 - 1))
COUNTS = some.integers(0, 24).flatmap(lambda dice: some.none() if dice else NUMBERS)
FLOATS = some.floats(width=32)

KEYS = some.one_of(
    some.builds(lambda name, value: b.scalar(name, b.U32, value), NAMES, NUMBERS.map(lambda number: number & 0xFFFFFFFF)),
    some.builds(lambda name, value: b.scalar(name, b.U64, value), NAMES, NUMBERS),
    some.builds(lambda name, value: b.scalar(name, b.F32, value), NAMES, FLOATS),
    some.builds(
        b.text, NAMES, some.one_of(some.text(max_size=40).map(lambda text: text.encode("utf-8", "replace")), some.binary()), COUNTS
    ),
    some.builds(lambda name, values, count: b.array(name, b.STRING, values, count), NAMES, some.lists(some.binary(max_size=9)), COUNTS),
    some.builds(lambda name, values, count: b.array(name, b.F32, values, count), NAMES, some.lists(FLOATS, max_size=20), COUNTS),
    some.builds(lambda name, kind, rest: b.string(name) + struct.pack("<I", kind) + rest, NAMES, KINDS, some.binary(max_size=40)),
)
SHAPES = some.lists(some.one_of(some.sampled_from([1, 2, 32, 256, 512]), NUMBERS), max_size=6)
TYPES = some.one_of(some.integers(0, 45), some.integers(0, 2**32 - 1))


@some.composite
def tables(draw):
    """A tensor table; mostly of the kind that a file could have, so that what comes behind it is reached too."""
    entries, offset = [], 0
    for number in range(draw(some.integers(0, 6))):
        if draw(some.integers(0, 24)):
            shape = draw(some.lists(some.sampled_from([1, 8, 32]), min_size=1, max_size=4))
            name = draw(some.sampled_from([f"blk.{number % 3}.ffn_up_exps.weight", f"blk.{number % 3}.n{number}.bias", f"rest.{number}"]))
            entries.append(b.tensor(name, shape, 0, offset))
            length = 4
            for extent in shape:
                length *= extent
            offset += -(-length // 32) * 32
        else:
            entries.append(b.tensor(draw(NAMES), draw(SHAPES), draw(TYPES), draw(NUMBERS)))
    return entries, offset


def test_headers_made_to_harm():
    def check(model, keys, table, key_count, tensor_count, version, slack):
        entries, data_bytes = table
        head = b.header([*(b.MODEL if model else []), *keys], entries, version, key_count=key_count, tensor_count=tensor_count)
        survive(head + bytes(64), len(b.whole(head, data_bytes)) if slack else len(head) + 2**34)

    versions = some.sampled_from([2, 3, 3, 3])
    fuzz(0.5, check, some.booleans(), some.lists(KEYS, max_size=6), tables(), COUNTS, COUNTS, versions, some.integers(0, 4))


def test_any_bytes():
    def check(data, start, size):
        survive(start + data, size or len(start + data))

    starts = some.sampled_from([b"", b"GGUF", b"GGUF\3\0\0\0"])
    fuzz(0.1, check, some.binary(max_size=400), starts, some.sampled_from([None, 2**45]))
