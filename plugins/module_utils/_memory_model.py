# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How much memory a model takes on each device and on the host, from its header. Pure; sizes are bytes.

Weights and context follow llama.cpp's own rules and are exact; scratch memory ("compute") is modelled on what the
engine's allocator was seen to take, within some tens of MiB. Everything is driven by the header's keys; the only table
of architectures is the one of the sliding-window patterns that llama.cpp knows by heart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional, Union

CACHE_PAD = 256
# Bytes that a block of 32 cached values takes.
CACHE_BLOCKS = {"f32": 128, "f16": 64, "bf16": 64, "q8_0": 34, "q5_1": 24, "q5_0": 22, "q4_1": 20, "q4_0": 18, "iq4_nl": 18}
# Every how many layers attention is full where the header does not say it, and whether the first one of a period is.
SWA_PERIODS = {
    "gemma2": (2, False),
    "gemma3": (6, False),
    "gemma3n": (5, False),
    "gpt-oss": (2, False),
    "cohere2": (4, False),
    "exaone4": (4, False),
    "exaone-moe": (4, False),
    "olmo2": (4, False),
    "llama4": (4, False),
    "afmoe": (4, False),
    "smallthinker": (4, True),
}
PIPELINE_COPIES = 4
F32 = 4
HOST = -1
ALL_EXPERTS = "all"


class Setup(NamedTuple):
    """How a model is run: the flags of the server that decide memory."""

    ctx_size: int
    parallel: int = 1
    unified: bool = False
    cache_type_k: str = "f16"
    cache_type_v: str = "f16"
    ubatch_size: int = 512
    flash_attention: bool = True
    n_gpu_layers: int = 0
    n_cpu_moe: Union[int, str, None] = None
    tensor_split: Optional[Sequence[float]] = None
    latent_values: bool = False  # builds before the latent cache lost its values keep both


class Model:
    """A header summary with its per-layer numbers at hand.

    Raises:
        ValueError: the header lacks what its architecture must have.
    """

    def __init__(self, header: dict[str, Any]) -> None:
        self.header = header
        self.keys: dict[str, Any] = header["parameters"]
        self.layers: list[dict[str, Any]] = header["layers"]
        self.count = len(self.layers)
        self.embedding = self.number("embedding_length")
        self.heads = self._per_layer("attention.head_count")
        self.kv_heads = self._per_layer("attention.head_count_kv", self.heads)
        if not self.embedding or not any(self.heads):
            raise ValueError(f"{self._who} has no embedding or no attention head")
        self.vocabulary = int(header.get("vocabulary") or self.number("vocab_size", 0))
        head = self.embedding // max(1, *self.heads)
        self.key_length = self.number("attention.key_length", head)
        self.value_length = self.number("attention.value_length", head)
        self.latent = bool(self.number("attention.key_length_mla", 0) and self.number("attention.value_length_mla", 0))
        self.experts = self.number("expert_count", 0)
        self.experts_used = self.number("expert_used_count", 0)
        self.window = self.number("attention.sliding_window", 0)
        self.width = max(self._per_layer("feed_forward_length", [0] * self.count), default=0)
        self.total = int(header["bytes"])
        # Without an output of its own the token embedding is loaded a second time, on the output's device.
        self.doubled = header.get("token_embd", header["input"]) if header.get("tied") else 0
        self.output = header["output"] + self.doubled

    @property
    def _who(self) -> str:
        return f"the header of {self.header.get('name') or 'the model'}"

    def number(self, key: str, default: Optional[int] = None) -> int:
        """A whole number of the header.

        Raises:
            ValueError: it is missing without a default, or is no whole number from zero on.
        """
        value = self.keys.get(key, default)
        if value is None:
            raise ValueError(f"{self._who} does not say {key}")
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise ValueError(f"{self._who} has {str(value)[:40]} for {key}")
        return value

    def _per_layer(self, key: str, default: Optional[list[int]] = None) -> list[int]:
        value = self.keys.get(key, default)
        if not isinstance(value, list):
            return [self.number(key)] * self.count
        if len(value) < self.count or not all(isinstance(number, int) and number >= 0 for number in value):
            raise ValueError(f"{self._who} does not say {key} for all of its {self.count} layers")
        return [int(number) for number in value[: self.count]]

    def is_recurrent(self, layer: int) -> bool:
        """Whether a layer keeps a state for each sequence instead of a cache that grows."""
        if not any(self.keys.get(key) for key in ("kda.head_dim", "ssm.state_size", "ssm.conv_kernel")):
            return False
        interval = self.number("full_attention_interval", 0)
        return (layer + 1) % interval != 0 if interval else self.kv_heads[layer] == 0

    def is_windowed(self, layer: int) -> bool:
        """Whether a layer looks back over a sliding window only."""
        if not self.window:
            return False
        pattern = self.keys.get("attention.sliding_window_pattern")
        if isinstance(pattern, list):
            return bool(pattern[layer]) if layer < len(pattern) else False
        period, first_full = SWA_PERIODS.get(self.header["architecture"], (0, False))
        period = self.number("attention.sliding_window_pattern", period)
        if not period:
            return False  # an architecture that is not known to use its window: sized as if it did not
        return layer % period != 0 if first_full else layer % period < period - 1

    def state(self, layer: int) -> int:
        """Bytes of a recurrent layer's state for one sequence; always in 32 bits."""
        conv = self.number("ssm.conv_kernel", 0)
        size = self.number("kda.head_dim", 0)
        if size:
            inner = self.heads[layer] * size
            return (3 * (conv - 1 if conv else 3) * inner + size * inner) * F32
        inner, state = self.number("ssm.inner_size", 0), self.number("ssm.state_size", 0)
        groups = self.number("ssm.group_count", 0)
        return (max(0, conv - 1) * (inner + 2 * groups * state) + state * inner) * F32

    def states(self) -> int:
        """Bytes of all recurrent state for one sequence."""
        return sum(self.state(layer) for layer in range(self.count) if self.is_recurrent(layer))


def sequence_cells(setup: Setup) -> tuple[int, int]:
    """Cells of the cache for one stream, and the number of streams."""
    padded = _pad(setup.ctx_size)
    if setup.unified or setup.parallel <= 1:
        return padded, 1
    return _pad(padded // setup.parallel), setup.parallel


def _pad(cells: int) -> int:
    return math.ceil(cells / CACHE_PAD) * CACHE_PAD


def _row(values: int, kind: str) -> int:
    """Bytes of one cell's keys or values in one layer."""
    return values * CACHE_BLOCKS[kind] // 32


def context_by_layer(model: Model, setup: Setup) -> list[int]:
    """Bytes of cache and state that each layer takes."""
    cells, streams = sequence_cells(setup)
    window_cells = _pad(min(cells, model.window * (setup.parallel if setup.unified else 1) + setup.ubatch_size))
    found = []
    for layer in range(model.count):
        if model.is_recurrent(layer):
            found.append(model.state(layer) * setup.parallel)
            continue
        row = _row(model.key_length * model.kv_heads[layer], setup.cache_type_k)
        if not model.latent or setup.latent_values:
            row += _row(model.value_length * model.kv_heads[layer], setup.cache_type_v)
        found.append(row * streams * (window_cells if model.is_windowed(layer) else cells))
    return found


def checkpoint(model: Model, setup: Setup) -> int:
    """Bytes of a copy of one slot's recurrent state and windows, which servers keep in host memory to go back to."""
    row = _row(model.key_length, setup.cache_type_k) + (0 if model.latent else _row(model.value_length, setup.cache_type_v))
    windowed = sum(model.kv_heads[layer] for layer in range(model.count) if model.is_windowed(layer))
    return model.states() + row * windowed * min(model.window, sequence_cells(setup)[0])


def assign(count: int, n_gpu_layers: int, tensor_split: Optional[Sequence[float]], devices: int) -> list[int]:
    """The device of each layer and, last, of the output; HOST for what stays in host memory.

    The last ``n_gpu_layers`` of the ``count`` layers and the output go to the devices, in runs as long as the split says.
    """
    offloaded = min(max(0, n_gpu_layers), count + 1) if devices else 0
    first = count + 1 - offloaded
    shares = list(tensor_split or [1.0] * devices)[:devices] + [0.0] * (devices - len(tensor_split or [1.0] * devices))
    total, reached, bounds = sum(shares) or 1.0, 0.0, []
    for share in shares:
        reached += share
        bounds.append(reached / total)
    found = [HOST] * first
    for position in range(offloaded):
        found.append(next((device for device, bound in enumerate(bounds) if bound > position / offloaded), devices - 1))
    return found


def experts_on_host(model: Model, n_cpu_moe: Union[int, str, None]) -> int:
    """In how many layers, counted from the first, the experts stay in host memory."""
    return model.count if n_cpu_moe == ALL_EXPERTS else min(model.count, int(n_cpu_moe or 0))


def memory(model: Model, setup: Setup, devices: int) -> dict[str, Any]:
    """Bytes of ``{weights, context, compute}`` on each device and on the host.

    Host weights are all that no device holds; with a mapped file they need not be in memory at once.
    """
    places = assign(model.count, setup.n_gpu_layers, setup.tensor_split, devices)
    spared = experts_on_host(model, setup.n_cpu_moe)
    contexts = context_by_layer(model, setup)
    found = [{"weights": 0, "context": 0, "compute": 0} for _device in range(devices)]
    host = {"weights": 0, "context": 0, "compute": 0}
    for layer, sizes in enumerate(model.layers):
        place = found[places[layer]] if places[layer] != HOST else host
        place["weights"] += sizes["rest"] + (sizes["experts"] if layer >= spared else 0)
        place["context"] += contexts[layer]
    if places[-1] != HOST:
        found[places[-1]]["weights"] += model.output
    host["weights"] = model.total - sum(share["weights"] for share in found)
    if places[-1] != HOST:
        host["weights"] += model.doubled
    for device, bytes_ in enumerate(compute(model, setup, places, devices)):
        found[device]["compute"] = bytes_
    host["compute"] = host_compute(model, setup, places)
    return {"devices": found, "host": host}


def _scratch(model: Model, setup: Setup, with_experts: bool) -> tuple[int, int, int]:
    """Bytes of one layer's activations, of the logits, and of the attention mask, for one micro batch.

    ``with_experts`` says whether routed experts are computed in the same place.
    """
    cells, _streams = sequence_cells(setup)
    heads = max(model.heads)
    attention = 3 * heads * model.key_length if model.latent else 12 * model.embedding
    feed_forward = 0
    if not model.experts_used:
        feed_forward = 3 * model.width + 4 * model.embedding
    elif with_experts:
        feed_forward = (2 * model.experts_used + 5) * model.embedding
    layer = max(attention, feed_forward) * F32 * setup.ubatch_size
    mask = cells * setup.ubatch_size * (2 if setup.flash_attention else 4)
    if not setup.flash_attention:
        # Every head's scores for the whole context at once: what makes long contexts impossible without it.
        layer += heads * cells * setup.ubatch_size * F32
    return layer, model.vocabulary * setup.ubatch_size * F32, mask


def compute(model: Model, setup: Setup, places: Sequence[int], devices: int) -> list[int]:
    """Scratch bytes on each device; none where it holds no layer."""
    spared = experts_on_host(model, setup.n_cpu_moe)
    row = model.embedding * F32 * setup.ubatch_size
    used = sorted({place for place in places if place != HOST})
    # Several devices work on several micro batches at once, unless tensors are overridden or layers stay on the host.
    pipelined = len(used) > 1 and HOST not in places and not spared
    # A single device keeps the mask to the end, but not where recurrent layers and the host take turns.
    keeps_mask = len(used) == 1 and setup.flash_attention and not (spared and model.states())
    found = [0] * devices
    for device in used:
        with_experts = any(place == device for place in places[spared:-1])
        layer, logits, mask = _scratch(model, setup, with_experts)
        if all(model.is_recurrent(number) for number, place in enumerate(places[:-1]) if place == device) and device != places[-1]:
            mask, layer = 0, min(layer, 12 * row)
        last = device == places[-1]
        if pipelined:
            found[device] = PIPELINE_COPIES * mask + max(layer + 12 * row, logits + 11 * row if last else 0)
        else:
            rows = 11 if model.latent and not with_experts and not keeps_mask else 4
            found[device] = max(mask + layer, (mask if keeps_mask else 0) + logits + rows * row if last else 0)
    return found


def host_compute(model: Model, setup: Setup, places: Sequence[int]) -> int:
    """Scratch bytes in host memory: masks and embeddings on their way, and a layer's own where layers run there."""
    layer, logits, mask = _scratch(model, setup, with_experts=True)
    row = model.embedding * F32 * setup.ubatch_size
    found = mask + 4 * row
    if HOST in places[:-1] or experts_on_host(model, setup.n_cpu_moe):
        found += layer
    return found + (logits if places[-1] == HOST else 0)
