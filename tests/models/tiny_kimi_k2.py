# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes a tiny model in the shape of Kimi K2, laid out like its publisher's repository.

Architecture deepseek2 with MLA, a dense first layer, routed experts and a shared one; three quants in three shards each,
and the files that a whole-name match must not fall for. The weights are random blocks of the real tensor types from a
fixed seed, so nothing has to be quantised and the files are the same on every machine. What it says is nonsense, but the
same nonsense every time at temperature 0, in printable syllables, and it never ends by itself.

    python tests/models/tiny_kimi_k2.py          prints the directory (needs gguf and numpy)
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from model_cache import print_made

REPO_ID = "onprem/Tiny-Kimi-K2-GGUF"
NAME = "Tiny-Kimi-K2"
FORMAT = 2  # counts changes of what is written, so that an older copy in a cache is not taken for this one
SEED = 20260711
SHARDS = 3

LAYERS, DENSE_LAYERS = 5, 1
EMBEDDING, DENSE_WIDTH, EXPERT_WIDTH = 512, 1024, 512
EXPERTS, EXPERTS_USED = 16, 4
HEADS, Q_RANK, KV_RANK, NOPE, ROPE, VALUE = 8, 256, 512, 128, 64, 128
VOCABULARY = 1024
CONTEXT = 32768


class Mix(NamedTuple):
    """The tensor types of a quant: routed experts, and everything else that is a matrix."""

    experts: Type
    rest: Type


SPLIT_QUANTS = {
    "UD-TQ1_0": Mix(Type.TQ1_0, Type.Q4_K),
    "UD-Q2_K_XL": Mix(Type.Q2_K, Type.Q4_K),
    "UD-Q4_K_XL": Mix(Type.Q4_K, Type.Q8_0),
}
SINGLE_QUANTS = {"Q2_K": Mix(Type.Q2_K, Type.Q2_K), "Q2_K_L": Mix(Type.Q2_K, Type.Q8_0)}

CONTROL = ["<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|invoke|>", "<|invoked|>"]
# Left alone it never calls a tool. A request that favours the token <|invoke|> makes it: the engine's grammar leaves no choice behind it.
CHAT_TEMPLATE = (
    "{% if tools %}<|system|>{{ tools | tojson }}<|end|>{% endif %}"
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] or '' }}"
    "{% for call in message['tool_calls'] or [] %}"
    '<|invoke|>{"name": {{ call.function.name | tojson }}, "arguments": {{ call.function.arguments | tojson }}}<|invoked|>'
    "{% endfor %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def byte_characters() -> list[str]:
    """The 256 characters by which GPT-2's tokenizer writes bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spare = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(spare)) for byte in range(256)]


def vocabulary() -> tuple[list[str], list[str], int]:
    """Tokens, merges, and the number of the first token that is a syllable or a word."""
    tokens = [*CONTROL, *byte_characters()]
    first, merges = len(tokens), []
    space = byte_characters()[ord(" ")]
    syllables = [consonant + vowel for consonant in "bdfghjklmnprstvwz" for vowel in "aeiou"]
    pairs = [(text[0], text[1]) for text in syllables] + [(space, text) for text in syllables]
    pairs += [(space + one, two) for one in syllables for two in syllables]
    for left, right in pairs[: VOCABULARY - first]:
        merges.append(f"{left} {right}")
        tokens.append(left + right)
    return tokens, merges, first


class Blocks:
    """Random tensors of real types, uniform between -a and a with a variance of 1/columns."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.Generator(np.random.PCG64(seed))

    def _bytes(self, *shape: int) -> np.ndarray:
        return np.frombuffer(self.random.bytes(math.prod(shape)), dtype=np.uint8).reshape(shape)

    def uniform(self, shape: tuple[int, ...]) -> np.ndarray:
        words = np.frombuffer(self.random.bytes(4 * math.prod(shape)), dtype="<u4").reshape(shape)
        return ((words / 2**31 - 1) * math.sqrt(3 / shape[-1])).astype(np.float32)

    def tensor(self, kind: Type, shape: tuple[int, ...]) -> np.ndarray:
        """The bytes of a tensor of ``shape`` (columns last) as ``gguf`` wants them."""
        columns = shape[-1]
        width, size = gguf.GGML_QUANT_SIZES[kind]
        if columns % width:
            raise ValueError(f"{columns} columns do not divide into blocks of {width}")
        blocks = math.prod(shape) // width
        reach = math.sqrt(3 / columns)

        def column(*values: int) -> np.ndarray:
            return np.tile(np.array(values, dtype=np.uint8), (blocks, 1))

        def half(value: float) -> np.ndarray:
            return column(*np.array([value], dtype="<f2").view(np.uint8))

        if kind == Type.Q8_0:
            parts = [half(reach / 127), self._bytes(blocks, 32)]
        elif kind == Type.TQ1_0:
            parts = [self._bytes(blocks, 52), half(reach)]
        elif kind == Type.Q2_K:  # sixteen scales of 8 and minima of 8, each in four bits
            parts = [column(*[8 | 8 << 4] * 16), self._bytes(blocks, 64), half(reach * 2 / (3 * 8)), half(reach / 8)]
        elif kind == Type.Q4_K:  # eight scales of 32 and minima of 32, each in six bits
            parts = [half(reach * 2 / (15 * 32)), half(reach / 32), column(*[32 | 2 << 6] * 8 + [0] * 4), self._bytes(blocks, 128)]
        else:
            raise ValueError(f"no recipe for {kind.name}")
        made = np.concatenate(parts, axis=1)
        if made.shape[1] != size:
            raise ValueError(f"{kind.name} blocks have {made.shape[1]} bytes instead of {size}")
        return made.reshape(*shape[:-1], columns // width * size)


def matrices(layer: int) -> Iterator[tuple[str, tuple[int, ...], bool]]:
    """Name, shape and whether it belongs to the routed experts, of every matrix of a layer."""
    key = NOPE + ROPE
    yield "attn_q_a", (Q_RANK, EMBEDDING), False
    yield "attn_q_b", (HEADS * key, Q_RANK), False
    yield "attn_kv_a_mqa", (KV_RANK + ROPE, EMBEDDING), False
    yield "attn_k_b", (HEADS, KV_RANK, NOPE), False
    yield "attn_v_b", (HEADS, VALUE, KV_RANK), False
    yield "attn_output", (EMBEDDING, HEADS * VALUE), False
    if layer < DENSE_LAYERS:
        yield "ffn_gate", (DENSE_WIDTH, EMBEDDING), False
        yield "ffn_up", (DENSE_WIDTH, EMBEDDING), False
        yield "ffn_down", (EMBEDDING, DENSE_WIDTH), False
        return
    for suffix, count in (("exps", EXPERTS), ("shexp", 0)):
        lead = (count,) if count else ()
        yield f"ffn_gate_{suffix}", (*lead, EXPERT_WIDTH, EMBEDDING), bool(count)
        yield f"ffn_up_{suffix}", (*lead, EXPERT_WIDTH, EMBEDDING), bool(count)
        yield f"ffn_down_{suffix}", (*lead, EMBEDDING, EXPERT_WIDTH), bool(count)


def add_metadata(writer: gguf.GGUFWriter, tokens: list[str], merges: list[str]) -> None:
    writer.add_name("Tiny Kimi K2")
    writer.add_block_count(LAYERS)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(EMBEDDING)
    writer.add_feed_forward_length(DENSE_WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(ROPE)
    writer.add_rope_freq_base(50000.0)
    writer.add_vocab_size(VOCABULARY)
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
    writer.add_expert_weights_scale(2.5)
    writer.add_expert_weights_norm(True)
    writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL if token in CONTROL else gguf.TokenType.NORMAL for token in tokens])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(CONTROL.index("<|begin|>"))
    writer.add_eos_token_id(CONTROL.index("<|end|>"))
    writer.add_add_bos_token(True)
    writer.add_chat_template(CHAT_TEMPLATE)


def add_tensors(writer: gguf.GGUFWriter, mix: Mix, first_word: int, padding: int = 0) -> int:
    """Add every tensor and return how many there are. ``padding`` are bytes of noise in each layer that nothing reads."""
    blocks = Blocks(SEED)
    count = 0

    def matrix(name: str, shape: tuple[int, ...], expert: bool = False) -> None:
        nonlocal count
        kind = mix.experts if expert else mix.rest
        if shape[-1] % gguf.GGML_QUANT_SIZES[kind][0]:
            kind = Type.Q8_0
        writer.add_tensor(f"{name}.weight", blocks.tensor(kind, shape), raw_dtype=kind)
        count += 1

    def vector(name: str, values: np.ndarray) -> None:
        nonlocal count
        writer.add_tensor(name, values.astype(np.float32))
        count += 1

    matrix("token_embd", (VOCABULARY, EMBEDDING))
    vector("output_norm.weight", np.ones(EMBEDDING))
    # Bytes and control tokens get no score: the text stays valid UTF-8 and goes on as long as it is asked to.
    words = blocks.tensor(Type.Q8_0, (VOCABULARY, EMBEDDING)).copy()
    words[:first_word] = 0
    writer.add_tensor("output.weight", words, raw_dtype=Type.Q8_0)
    count += 1
    for layer in range(LAYERS):
        for name, width in (("attn_norm", EMBEDDING), ("ffn_norm", EMBEDDING), ("attn_q_a_norm", Q_RANK), ("attn_kv_a_norm", KV_RANK)):
            vector(f"blk.{layer}.{name}.weight", np.ones(width))
        for name, shape, expert in matrices(layer):
            matrix(f"blk.{layer}.{name}", shape, expert)
        if layer >= DENSE_LAYERS:
            vector(f"blk.{layer}.ffn_gate_inp.weight", blocks.uniform((EXPERTS, EMBEDDING)))
            vector(f"blk.{layer}.exp_probs_b.bias", np.zeros(EXPERTS))
        if padding:
            writer.add_tensor(f"blk.{layer}.padding.weight", np.frombuffer(blocks.random.bytes(padding), dtype=np.int8))
            count += 1
    return count


def write_model(path: Path, mix: Mix, shards: int = 1, padding: int = 0) -> None:
    """Write one quant: ``path`` itself, or its ``-0000i-of-0000n`` shards."""
    tokens, merges, first_word = vocabulary()
    per_shard = 0
    if shards > 1:
        dry = gguf.GGUFWriter(None, "deepseek2")
        per_shard = math.ceil(add_tensors(dry, mix, first_word, padding) / shards)
    writer = gguf.GGUFWriter(path, "deepseek2", split_max_tensors=per_shard)
    add_metadata(writer, tokens, merges)
    add_tensors(writer, mix, first_word, padding)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_projector(path: Path) -> None:
    """A GGUF file that is no model to serve."""
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_name("Tiny Kimi K2 projector")
    writer.add_tensor("v.patch_embd.weight", np.zeros((16, 16), dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_repository(folder: Path) -> None:
    """Everything that the repository holds."""
    for quant, mix in SPLIT_QUANTS.items():
        (folder / quant).mkdir()
        write_model(folder / quant / f"{NAME}-{quant}.gguf", mix, SHARDS)
    for quant, mix in SINGLE_QUANTS.items():
        write_model(folder / f"{NAME}-{quant}.gguf", mix)
    write_projector(folder / "mmproj-F16.gguf")
    (folder / "README.md").write_text("# Tiny Kimi K2\n\nRandom weights in the shape of Kimi K2, for tests.\n", encoding="utf-8")
    (folder / "config.json").write_text(json.dumps({"model_type": "deepseek_v3", "format": FORMAT}) + "\n", encoding="utf-8")


def make(cache: Path) -> Path:
    """The repository's directory; written when it is not there in this form yet."""
    target = cache / REPO_ID
    config = target / "config.json"
    if config.is_file() and json.loads(config.read_text(encoding="utf-8")).get("format") == FORMAT:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".tiny-") as temporary:
        work = Path(temporary) / "repository"
        work.mkdir(mode=0o755)
        write_repository(work)
        shutil.rmtree(target, ignore_errors=True)
        work.rename(target)
    return target


if __name__ == "__main__":
    print_made(__doc__, make)
