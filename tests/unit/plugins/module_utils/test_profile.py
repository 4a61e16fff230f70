# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A quant's summary: every byte in its place, and only of shards that belong together."""

from __future__ import annotations

import pytest

from ansible_collections.onprem.llamacpp.plugins.module_utils._gguf import GgufError, Header, Tensor
from ansible_collections.onprem.llamacpp.plugins.module_utils._profile import profile

MODEL = {"general.architecture": "llama", "general.name": "A\x1bB", "llama.block_count": 2, "llama.rope.freq_base": 1e4, "llama.long": None}


def shard(*names, size=100, kind="Q8_0", **keys):
    return Header(
        3, {key.replace("__", "."): value for key, value in keys.items()}, {}, [Tensor(name, kind, (1,), 0, size) for name in names], 0, 0
    )


def one(*names, **keys):
    header = shard(*names)
    header.keys.update({**MODEL, **keys})
    return header


def made(*headers):
    return profile([{"path": f"m-{number}.gguf"} for number in range(1, len(headers) + 1)], list(headers))


def test_every_tensor_counts_once():
    header = one(
        *"token_embd.weight per_layer_token_embd.weight token_embd_norm.weight output_norm.weight output.weight".split(),
        *"blk.0.attn_q.weight blk.0.attn_q.bias blk.0.ffn_up.weight blk.0.ffn_gate_inp.weight blk.0.ffn_up_shexp.weight".split(),
        *"blk.1.ffn_up_exps.weight blk.1.ffn_gate_up_exps.weight blk.1.ffn_down_chexps.weight blk.1.ffn_down_exps.bias".split(),
        *"blk.1.exp_probs_b.bias blk.1.ssm_a".split(),
    )
    header.tensors.append(Tensor("rope_freqs.weight", "F32", (1,), 0, 7))
    header.lengths["tokenizer.ggml.tokens"] = 163_840
    assert made(header) == {
        "schema_version": 1,
        "architecture": "llama",
        "parameters": {"block_count": 2, "rope.freq_base": 1e4},
        "name": "AB",
        "vocabulary": 163_840,
        "tensors": 17,
        "bytes": 1607,
        "types": {"Q8_0": 1600, "F32": 7},
        "layers": [
            {"experts": 0, "rest": 500, "names": ["attn_q", "ffn_gate_inp", "ffn_up", "ffn_up_shexp"]},
            {"experts": 400, "rest": 200, "names": ["exp_probs_b", "ssm_a"]},
        ],
        "input": 200,
        "token_embd": 100,
        "output": 307,
        "tied": False,
        "files": [{"path": "m-1.gguf"}],
    }


def test_without_an_output_of_its_own_the_embedding_serves_as_one():
    assert made(one("token_embd.weight"))["tied"] is True


def split(number, count, total, *names):
    return shard(*names, split__no=number, split__count=count, split__tensors__count=total)


def first(count, total, *names):
    header = split(0, count, total, *names)
    header.keys.update(MODEL)
    return header


def test_shards_are_one_model_and_the_first_has_its_settings():
    found = made(first(3, 3), split(1, 3, 3, "token_embd.weight", "blk.0.attn_q.weight"), split(2, 3, 3, "output.weight"))
    assert (found["tensors"], found["bytes"], found["input"], found["output"]) == (3, 300, 100, 100)
    assert [item["path"] for item in found["files"]] == ["m-1.gguf", "m-2.gguf", "m-3.gguf"]


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        pytest.param([shard()], "m-1.gguf is not a model: its header names no architecture", id="no settings"),
        pytest.param([one(**{"general.architecture": 3})], "names no architecture", id="architecture that is no text"),
        pytest.param([one(**{"general.architecture": "a\nb"})], "names no architecture", id="architecture that is no name"),
        pytest.param([one(**{"general.architecture": "clip"})], "clip.block_count is None, allowed are 1 to 512", id="a projector"),
        pytest.param([one(**{"llama.block_count": 2**32})], "block_count is 4294967296", id="absurd number of layers"),
        pytest.param([one(**{"llama.block_count": True})], "block_count is True", id="layers that are no number"),
        pytest.param([one(**{"llama.rope.freq_base": float("nan")})], "llama.rope.freq_base is not a finite number", id="no number"),
        pytest.param([one(**{"llama.swiglu": [1.0, float("inf")]})], "llama.swiglu is not a finite number", id="no number in an array"),
        pytest.param(
            [one("blk.2.attn_q.weight")], "announces 2 layers, but the set holds the tensor blk.2.attn_q.weight", id="one layer too many"
        ),
        pytest.param(
            [first(2, 0)], "m-1.gguf should be shard 1 of 1, but its header says split.no 0 (from 0) and split.count 2", id="alone"
        ),
        pytest.param([one(), shard()], "m-1.gguf should be shard 1 of 2", id="shards that know of no set"),
        pytest.param(
            [first(2, 0), split(0, 2, 0)], "m-2.gguf should be shard 2 of 2, but its header says split.no 0", id="same shard twice"
        ),
        pytest.param([first(3, 0), split(1, 2, 0)], "m-1.gguf should be shard 1 of 2", id="shards of sets of different length"),
        pytest.param(
            [first(2, 2, "a"), split(1, 2, 2)], "announces 2 tensors for the whole set of 2 files, but 1 are there", id="too few tensors"
        ),
        pytest.param(
            [first(2, 2, "a"), split(1, 2, 2, "a")], "m-2.gguf holds the tensor a, which m-1.gguf holds too", id="tensor in two shards"
        ),
        pytest.param([one(**{"split.tensors.count": "x\ny"})], r"announces 'x\ny' tensors", id="a count that is no number"),
    ],
)
def test_what_is_no_model_is_refused(headers, told):
    with pytest.raises(GgufError) as caught:
        made(*headers)
    assert told in str(caught.value)
    assert str(caught.value).isprintable()
