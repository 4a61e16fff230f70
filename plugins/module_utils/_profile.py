# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a plan needs to know of a quant, from the headers of its shards. Pure; sizes are bytes."""

from __future__ import annotations

import math
import re
from typing import Any

from ansible_collections.onprem.llamacpp.plugins.module_utils._gguf import GgufError, Header, Tensor

SCHEMA_VERSION = 1
MOST_LAYERS = 512  # the engine's limit
ARCHITECTURE = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
LAYER = re.compile(r"^blk\.(0|[1-9]\d{0,8})\.(.+)$")
# What the engine's own --cpu-moe takes for experts.
EXPERT = re.compile(r"\.ffn_(up|down|gate|gate_up)_(ch)?exps")
# Tables that the engine looks rows up in and therefore keeps in host memory.
INPUT = {"token_embd", "position_embd", "token_types", "per_layer_token_embd", "masked_embd_centroids", "masked_embd_ordering"}


def profile(files: list[dict[str, Any]], headers: list[Header]) -> dict[str, Any]:
    """The summary of one quant.

    ``files`` are its shards in order, ``{path, size, header_bytes, header}``, and ``headers`` what was read from them.
    Raises GgufError when the shards do not belong together, or are no model.
    """
    tensors = _one_set(files, headers)
    first, path = headers[0], files[0]["path"]
    architecture = first.keys.get("general.architecture")
    if not isinstance(architecture, str) or not ARCHITECTURE.match(architecture):
        raise GgufError(f"{path} is not a model: its header names no architecture.")
    parameters = _parameters(first, architecture + ".", path)
    layer_count = parameters.get("block_count")
    if not isinstance(layer_count, int) or isinstance(layer_count, bool) or not 0 < layer_count <= MOST_LAYERS:
        raise GgufError(f"{path} is not a model: {architecture}.block_count is {repr(layer_count)[:40]}, allowed are 1 to {MOST_LAYERS}.")
    layers, rest = _by_layer(tensors, layer_count, path)
    input_bytes = sum(tensor.bytes for tensor in rest if _short(tensor.name) in INPUT)
    name = first.keys.get("general.name")
    return {
        "schema_version": SCHEMA_VERSION,
        "architecture": architecture,
        "parameters": parameters,
        "name": "".join(filter(str.isprintable, name))[:200] if isinstance(name, str) else "",
        "vocabulary": first.lengths.get("tokenizer.ggml.tokens", 0),
        "tensors": len(tensors),
        "bytes": sum(tensor.bytes for tensor in tensors),
        "types": _by_type(tensors),
        "layers": layers,
        "input": input_bytes,
        "token_embd": sum(tensor.bytes for tensor in rest if tensor.name == "token_embd.weight"),
        "output": sum(tensor.bytes for tensor in rest) - input_bytes,
        "tied": all(tensor.name != "output.weight" for tensor in rest),
        "files": files,
    }


def _one_set(files: list[dict[str, Any]], headers: list[Header]) -> list[Tensor]:
    """All tensors of a set of shards, after proof that each shard stands in its place."""
    for number, (record, header) in enumerate(zip(files, headers)):
        count, index = header.keys.get("split.count", 1), header.keys.get("split.no", 0)
        if count != len(headers) or index != number:
            raise GgufError(
                f"{record['path']} should be shard {number + 1} of {len(headers)}, but its header says "
                f"split.no {repr(index)[:40]} (from 0) and split.count {repr(count)[:40]}."
            )
    tensors = [tensor for header in headers for tensor in header.tensors]
    for record, header in zip(files, headers):
        announced = header.keys.get("split.tensors.count", len(tensors))
        if announced != len(tensors):
            raise GgufError(
                f"{record['path']} announces {repr(announced)[:40]} tensors for the whole set of {len(headers)} files, "
                f"but {len(tensors)} are there."
            )
    seen: dict[str, str] = {}
    for record, header in zip(files, headers):
        for tensor in header.tensors:
            if tensor.name in seen:
                raise GgufError(f"{record['path']} holds the tensor {tensor.name}, which {seen[tensor.name]} holds too.")
            seen[tensor.name] = record["path"]
    return tensors


def _parameters(header: Header, prefix: str, path: str) -> dict[str, Any]:
    """The settings of the model's architecture without its prefix; what was not kept is left out."""
    found = {key[len(prefix) :]: value for key, value in header.keys.items() if key.startswith(prefix) and value is not None}
    for key, value in found.items():
        if any(isinstance(number, float) and not math.isfinite(number) for number in (value if isinstance(value, list) else [value])):
            raise GgufError(f"{path} is not a usable model: {prefix}{key} is not a finite number.")
    return dict(sorted(found.items()))


def _short(name: str) -> str:
    """A tensor's name without what tells weights from biases."""
    stem, _dot, suffix = name.rpartition(".")
    return stem if suffix in ("weight", "bias") and stem else name


def _by_type(tensors: list[Tensor]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for tensor in tensors:
        sums[tensor.type] = sums.get(tensor.type, 0) + tensor.bytes
    return dict(sorted(sums.items(), key=lambda item: (-item[1], item[0])))


def _by_layer(tensors: list[Tensor], count: int, path: str) -> tuple[list[dict[str, Any]], list[Tensor]]:
    """Sums for each layer, and the tensors that belong to none."""
    experts, others = [0] * count, [0] * count
    names: list[set[str]] = [set() for _layer in range(count)]
    rest = []
    for tensor in tensors:
        match = LAYER.match(tensor.name)
        if not match:
            rest.append(tensor)
            continue
        layer = int(match.group(1))
        if layer >= count:
            raise GgufError(f"{path} announces {count} layers, but the set holds the tensor {tensor.name}.")
        if EXPERT.search(tensor.name):
            experts[layer] += tensor.bytes
        else:
            others[layer] += tensor.bytes
            names[layer].add(_short(match.group(2)))
    return [{"experts": experts[layer], "rest": others[layer], "names": sorted(names[layer])} for layer in range(count)], rest
