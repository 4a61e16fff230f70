# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Headers of models in their real sizes, without their weights.

Each shape is a family by its attention and feed-forward layers: Kimi K2 (MLA, experts), Kimi-Linear (recurrent and MLA),
a mixture of experts with grouped queries, a sliding window, a dense model. Tensor types are mixed as publishers of
dynamic quants mix them. The file has its full size with a hole where the weights would be, which is enough to size it.

    python tests/models/shapes.py kimi-k2 /tmp/kimi-k2.gguf          (needs gguf and numpy)
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

ALIGNMENT = 32

Tensor = tuple[str, tuple[int, ...]]  # name without its block, shape with the columns last
Tensors = Callable[[int], Iterator[Tensor]]


class Shape(NamedTuple):
    """A model's architecture, hyper-parameters, tensors of each layer, and whether its output is its input embedding."""

    architecture: str
    parameters: dict[str, Any]
    layer: Tensors
    tied: bool = False


def _experts(count: int, width: int, embedding: int, shared: bool) -> Iterator[Tensor]:
    yield "ffn_gate_inp.weight", (count, embedding)
    for suffix, lead in (("exps", (count,)), *((("shexp", ()),) if shared else ())):
        yield f"ffn_gate_{suffix}.weight", (*lead, width, embedding)
        yield f"ffn_up_{suffix}.weight", (*lead, width, embedding)
        yield f"ffn_down_{suffix}.weight", (*lead, embedding, width)


def _dense(width: int, embedding: int) -> Iterator[Tensor]:
    yield "ffn_gate.weight", (width, embedding)
    yield "ffn_up.weight", (width, embedding)
    yield "ffn_down.weight", (embedding, width)


def _grouped(heads: int, kv_heads: int, size: int, embedding: int) -> Iterator[Tensor]:
    yield "attn_q.weight", (heads * size, embedding)
    yield "attn_k.weight", (kv_heads * size, embedding)
    yield "attn_v.weight", (kv_heads * size, embedding)
    yield "attn_output.weight", (embedding, heads * size)


def _latent(heads: int, embedding: int, q_rank: int) -> Iterator[Tensor]:
    """MLA with 512 + 64 latent values and heads of 128 + 64."""
    if q_rank:
        yield "attn_q_a.weight", (q_rank, embedding)
        yield "attn_q_a_norm.weight", (q_rank,)
        yield "attn_q_b.weight", (heads * 192, q_rank)
    else:
        yield "attn_q.weight", (heads * 192, embedding)
    yield "attn_kv_a_mqa.weight", (576, embedding)
    yield "attn_kv_a_norm.weight", (512,)
    yield "attn_k_b.weight", (heads, 512, 128)
    yield "attn_v_b.weight", (heads, 128, 512)
    yield "attn_output.weight", (embedding, heads * 128)


def _norms(embedding: int, *more: str) -> Iterator[Tensor]:
    for name in ("attn_norm", "ffn_norm", *more):
        yield f"{name}.weight", (embedding,)


MLA = {
    "attention.key_length": 576,
    "attention.value_length": 512,
    "attention.key_length_mla": 192,
    "attention.value_length_mla": 128,
    "attention.kv_lora_rank": 512,
    "rope.dimension_count": 64,
}
ROUTING = {"expert_shared_count": 1, "expert_gating_func": 2, "expert_weights_scale": 2.5, "expert_weights_norm": True}


def kimi_k2(layers: int, embedding: int, heads: int, experts: int, vocabulary: int) -> Shape:
    """The family of Kimi K2; 61 layers of 7168 with 64 heads and 384 experts are the real one."""
    q_rank, width, dense = embedding * 3 // 14, embedding * 2 // 7, embedding * 18 // 7

    def layer(number: int) -> Iterator[Tensor]:
        yield from _norms(embedding)
        yield from _latent(heads, embedding, q_rank)
        if number < 1:
            yield from _dense(dense, embedding)
        else:
            yield "exp_probs_b.bias", (experts,)
            yield from _experts(experts, width, embedding, shared=True)

    counts = {"expert_count": experts, "expert_used_count": 8, "expert_feed_forward_length": width, "leading_dense_block_count": 1}
    parameters = _parameters(layers, 131072, embedding, dense, heads, 1, vocabulary, attention__q_lora_rank=q_rank, **counts)
    return Shape("deepseek2", {**parameters, **MLA, **ROUTING}, layer)


def kimi_linear(embedding: int, heads: int, experts: int, vocabulary: int) -> Shape:
    """The family of Kimi-Linear, 20 recurrent layers and 7 with MLA; 2304 with 32 heads and 256 experts are the real one."""
    size, width, dense = 128, embedding * 4 // 9, embedding * 4

    def layer(number: int) -> Iterator[Tensor]:
        yield from _norms(embedding)
        if number in KIMI_LINEAR_ATTENTION:
            yield from _latent(heads, embedding, 0)
        else:
            yield from _recurrent(heads, size, embedding)
        if number < 1:
            yield from _dense(dense, embedding)
        else:
            yield "exp_probs_b.bias", (experts,)
            yield from _experts(experts, width, embedding, shared=True)

    counts = {"expert_count": experts, "expert_used_count": 8, "expert_feed_forward_length": width, "leading_dense_block_count": 1}
    kv_heads = [1 if number in KIMI_LINEAR_ATTENTION else 0 for number in range(27)]
    own = {"ssm__conv_kernel": 4, "kda__head_dim": size}
    parameters = _parameters(27, 1048576, embedding, dense, heads, kv_heads, vocabulary, **own, **counts)
    return Shape("kimi-linear", {**parameters, **MLA, **ROUTING}, layer)


KIMI_LINEAR_ATTENTION = (3, 7, 11, 15, 19, 23, 26)


def _recurrent(heads: int, size: int, embedding: int) -> Iterator[Tensor]:
    for part in "qkv":
        yield f"ssm_conv1d_{part}.weight", (heads * size, 1, 4)
        yield f"attn_{part}.weight", (heads * size, embedding)
    for part in "fg":
        yield f"ssm_{part}_a.weight", (size, embedding)
        yield f"ssm_{part}_b.weight", (heads * size, size)
    yield "ssm_beta.weight", (heads, embedding)
    yield "ssm_a", (heads, 1)
    yield "ssm_dt.bias", (heads * size,)
    yield "ssm_norm.weight", (size,)
    yield "attn_output.weight", (embedding, heads * size)


def _qwen3_moe(_layer: int) -> Iterator[Tensor]:
    yield from _norms(4096)
    yield "attn_q_norm.weight", (128,)
    yield "attn_k_norm.weight", (128,)
    yield from _grouped(64, 4, 128, 4096)
    yield from _experts(128, 1536, 4096, shared=False)


def _gemma3(_layer: int) -> Iterator[Tensor]:
    yield from _norms(5376, "post_attention_norm", "post_ffw_norm")
    yield "attn_q_norm.weight", (128,)
    yield "attn_k_norm.weight", (128,)
    yield from _grouped(32, 16, 128, 5376)
    yield from _dense(21504, 5376)


def llama(layers: int, embedding: int, heads: int, vocabulary: int) -> Shape:
    """A dense model with eight heads for keys and values; 80 layers of 8192 with 64 heads are the one with 70 billion weights."""
    width = embedding * 7 // 2

    def layer(_number: int) -> Iterator[Tensor]:
        yield from _norms(embedding)
        yield from _grouped(heads, 8, 128, embedding)
        yield from _dense(width, embedding)

    return Shape("llama", _parameters(layers, 131072, embedding, width, heads, 8, vocabulary, rope__dimension_count=128), layer)


def _parameters(
    layers: int, context: int, embedding: int, width: int, heads: int, kv_heads: Any, vocabulary: int, **more: Any
) -> dict[str, Any]:
    names = {name.replace("__", "."): value for name, value in more.items()}
    return {
        "block_count": layers,
        "context_length": context,
        "embedding_length": embedding,
        "feed_forward_length": width,
        "attention.head_count": heads,
        "attention.head_count_kv": kv_heads,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "vocab_size": vocabulary,
        **names,
    }


# The small ones are for devices that take no large tensors, such as a Vulkan device in software.
SHAPES = {
    "kimi-k2": kimi_k2(layers=61, embedding=7168, heads=64, experts=384, vocabulary=163840),
    "kimi-k2-small": kimi_k2(layers=24, embedding=1792, heads=16, experts=32, vocabulary=32768),
    "kimi-linear": kimi_linear(embedding=2304, heads=32, experts=256, vocabulary=163840),
    "kimi-linear-small": kimi_linear(embedding=2304, heads=16, experts=32, vocabulary=32768),
    "qwen3-moe": Shape(
        "qwen3moe",
        _parameters(
            *(94, 262144, 4096, 12288, 64, 4, 151936),
            expert_count=128,
            expert_used_count=8,
            expert_feed_forward_length=1536,
            attention__key_length=128,
            attention__value_length=128,
        ),
        _qwen3_moe,
    ),
    "gemma3": Shape(
        "gemma3",
        _parameters(
            *(62, 131072, 5376, 21504, 32, 16, 262144),
            attention__key_length=128,
            attention__value_length=128,
            attention__sliding_window=1024,
        ),
        _gemma3,
        tied=True,
    ),
    "llama": llama(layers=80, embedding=8192, heads=64, vocabulary=128256),
    "llama-small": llama(layers=32, embedding=2048, heads=16, vocabulary=32768),
}


def kind_of(name: str, shape: tuple[int, ...], layer: int) -> Type:
    """A tensor's type, mixed over the layers as dynamic quants do it; what a type cannot hold falls back."""
    if len(shape) == 1 or "gate_inp" in name or name.startswith(("ssm_a", "ssm_conv")) or min(shape) == 1:
        return Type.F32
    if "_exps" in name:
        wanted = Type.Q3_K if "down" in name and layer % 4 == 0 else Type.IQ2_XXS if layer % 3 == 0 else Type.Q2_K
    elif name.startswith(("token_embd", "output")):
        wanted = Type.Q4_K if name.startswith("token_embd") else Type.Q6_K
    else:
        wanted = Type.Q5_K if layer % 2 else Type.Q8_0
    return wanted if shape[-1] % gguf.GGML_QUANT_SIZES[wanted][0] == 0 else Type.Q8_0


def tensors(shape: Shape) -> Iterator[tuple[str, tuple[int, ...], Type]]:
    """Name, shape and type of every tensor."""
    embedding, vocabulary = shape.parameters["embedding_length"], shape.parameters["vocab_size"]
    outer: list[Tensor] = [("token_embd.weight", (vocabulary, embedding)), ("output_norm.weight", (embedding,))]
    if not shape.tied:
        outer.append(("output.weight", (vocabulary, embedding)))
    for name, size in outer:
        yield name, size, kind_of(name, size, 0)
    for layer in range(shape.parameters["block_count"]):
        for name, size in shape.layer(layer):
            yield f"blk.{layer}.{name}", size, kind_of(name, size, layer)


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, list):
        writer.add_array(key, value)
    elif isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    else:
        writer.add_uint32(key, value)


def words(count: int) -> list[str]:
    """Made-up words, all different, five to nine letters long like those of a real vocabulary."""
    return [np.base_repr(number * 7919 + 10**6, 36).lower() + "s" * (number % 5) for number in range(count)]


def _add_vocabulary(writer: gguf.GGUFWriter, count: int) -> None:
    tokens = words(count)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.NORMAL] * count)
    writer.add_token_merges([f"{token[:3]} {token[3:]}" for token in tokens])


def header_bytes(shape: Shape, tokens: int = 0) -> bytes:
    """Everything that comes before the weights, with a vocabulary of so many tokens and merges.

    Without one it is sized all the same: a vocabulary takes no memory on a device, and its size is a parameter.
    """
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "header.gguf"
        writer = gguf.GGUFWriter(path, shape.architecture)
        writer.add_name(shape.architecture)
        for key, value in shape.parameters.items():
            _add(writer, f"{shape.architecture}.{key}", value)
        if tokens:
            _add_vocabulary(writer, tokens)
        else:
            writer.add_tokenizer_model("no_vocab")
        for name, dimensions, kind in tensors(shape):
            writer.add_tensor_info(name, dimensions, np.dtype(np.float32), _bytes(dimensions, kind), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        writer.close()
        header = path.read_bytes()
    return header.ljust(gguf.GGUFWriter.ggml_pad(len(header), ALIGNMENT), b"\0")


def _bytes(dimensions: tuple[int, ...], kind: Type) -> int:
    width, block = gguf.GGML_QUANT_SIZES[kind]
    return math.prod(dimensions) // width * block


def full_size(shape: Shape, header: bytes = b"") -> int:
    """Bytes of the file with its weights behind a header, the one without a vocabulary unless another is given."""
    weights = sum(gguf.GGUFWriter.ggml_pad(_bytes(size, kind), ALIGNMENT) for _name, size, kind in tensors(shape))
    return len(header or header_bytes(shape)) + weights


def write_file(shape: Shape, path: Path, tokens: int = 0) -> None:
    """Writes a header, and as much nothing behind it as the weights would take, none of it on the disk."""
    header = header_bytes(shape, tokens)
    path.write_bytes(header)
    os.truncate(path, full_size(shape, header))


if __name__ == "__main__":
    write_file(SHAPES[sys.argv[1]], Path(sys.argv[2]))
