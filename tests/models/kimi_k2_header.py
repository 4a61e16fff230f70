# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes a file with the header of the real Kimi K2, in one piece: shapes, tensor types and a vocabulary of its size.

There are no weights in it: behind the header the file is sparse. The words of the vocabulary are made up.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

LAYERS, DENSE_LAYERS = 61, 1
EMBEDDING, DENSE_WIDTH, EXPERT_WIDTH = 7168, 18432, 2048
EXPERTS, EXPERTS_USED = 384, 8
HEADS, Q_RANK, KV_RANK, NOPE, ROPE, VALUE = 64, 1536, 512, 128, 64, 128
VOCABULARY, MERGES = 163_840, 163_328
CONTEXT = 131_072


class Entry(NamedTuple):
    """One tensor, columns last."""

    name: str
    shape: tuple[int, ...]
    type: Type


def tensors(experts: Type, rest: Type) -> Iterator[Entry]:
    """Every tensor of the model; 128 columns do not divide into blocks of 256, so those are kept in eight bits."""
    yield Entry("token_embd.weight", (VOCABULARY, EMBEDDING), rest)
    yield Entry("output_norm.weight", (EMBEDDING,), Type.F32)
    yield Entry("output.weight", (VOCABULARY, EMBEDDING), rest)
    for layer in range(LAYERS):
        lead = f"blk.{layer}."
        for name, width in (("attn_norm", EMBEDDING), ("ffn_norm", EMBEDDING), ("attn_q_a_norm", Q_RANK), ("attn_kv_a_norm", KV_RANK)):
            yield Entry(f"{lead}{name}.weight", (width,), Type.F32)
        yield Entry(lead + "attn_q_a.weight", (Q_RANK, EMBEDDING), rest)
        yield Entry(lead + "attn_q_b.weight", (HEADS * (NOPE + ROPE), Q_RANK), rest)
        yield Entry(lead + "attn_kv_a_mqa.weight", (KV_RANK + ROPE, EMBEDDING), rest)
        yield Entry(lead + "attn_k_b.weight", (HEADS, KV_RANK, NOPE), Type.Q8_0)
        yield Entry(lead + "attn_v_b.weight", (HEADS, VALUE, KV_RANK), rest)
        yield Entry(lead + "attn_output.weight", (EMBEDDING, HEADS * VALUE), rest)
        if layer < DENSE_LAYERS:
            yield from _feed_forward(lead, "", (), DENSE_WIDTH, rest)
            continue
        yield Entry(lead + "ffn_gate_inp.weight", (EXPERTS, EMBEDDING), Type.F32)
        yield Entry(lead + "exp_probs_b.bias", (EXPERTS,), Type.F32)
        yield from _feed_forward(lead, "_exps", (EXPERTS,), EXPERT_WIDTH, experts)
        yield from _feed_forward(lead, "_shexp", (), EXPERT_WIDTH, rest)


def _feed_forward(lead: str, suffix: str, many: tuple[int, ...], width: int, kind: Type) -> Iterator[Entry]:
    for name, rows, columns in (("gate", width, EMBEDDING), ("up", width, EMBEDDING), ("down", EMBEDDING, width)):
        yield Entry(f"{lead}ffn_{name}{suffix}.weight", (*many, rows, columns), kind)


def words(count: int) -> list[str]:
    """Made-up words, all different, five to nine letters long like those of the real vocabulary."""
    return [np.base_repr(number * 7919 + 10**6, 36).lower() + "s" * (number % 5) for number in range(count)]


def write_header(path: Path, experts: Type = Type.Q2_K, rest: Type = Type.Q4_K, vocabulary: int = VOCABULARY, merges: int = MERGES) -> None:
    """Write the header, and as much nothing behind it as the weights would take (some 370 GB, none of it on the disk)."""
    writer = gguf.GGUFWriter(path, "deepseek2")
    writer.add_name("Kimi K2 Instruct")
    writer.add_block_count(LAYERS)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(EMBEDDING)
    writer.add_feed_forward_length(DENSE_WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(ROPE)
    writer.add_rope_freq_base(50000.0)
    writer.add_vocab_size(vocabulary)
    writer.add_leading_dense_block_count(DENSE_LAYERS)
    writer.add_q_lora_rank(Q_RANK)
    writer.add_kv_lora_rank(KV_RANK)
    writer.add_key_length(KV_RANK + ROPE)
    writer.add_value_length(KV_RANK)
    writer.add_key_length_mla(NOPE + ROPE)
    writer.add_value_length_mla(VALUE)
    writer.add_expert_count(EXPERTS)
    writer.add_expert_used_count(EXPERTS_USED)
    writer.add_expert_shared_count(1)
    writer.add_expert_feed_forward_length(EXPERT_WIDTH)
    writer.add_expert_weights_scale(2.827)
    writer.add_expert_weights_norm(True)
    writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("kimi-k2")
    tokens = words(vocabulary)
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.NORMAL] * vocabulary)
    writer.add_token_merges([f"{tokens[number][:3]} {tokens[number][3:]}" for number in range(merges)])
    size = 0
    for entry in tensors(experts, rest):
        columns, blocks = gguf.GGML_QUANT_SIZES[entry.type]
        nbytes = int(np.prod(entry.shape, dtype=np.int64)) // columns * blocks
        size += -(-nbytes // 32) * 32
        # For a type given by number the writer wants the shape in bytes.
        shape = entry.shape if entry.type == Type.F32 else (*entry.shape[:-1], entry.shape[-1] // columns * blocks)
        dtype = np.dtype(np.float32) if entry.type == Type.F32 else np.dtype(np.uint8)
        writer.add_tensor_info(entry.name, shape, dtype, nbytes, raw_dtype=entry.type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    end = path.stat().st_size
    with path.open("r+b") as stream:
        stream.truncate(-(-end // 32) * 32 + size)
