# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds the placement that uses the devices best: as few layers with their experts in host memory as there is room for.

Pure. What a placement takes is asked of an oracle: the memory model, or an engine. Sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Optional

from ansible_collections.onprem.llamacpp.plugins.module_utils import _memory_model
from ansible_collections.onprem.llamacpp.plugins.module_utils._memory_model import ALL_EXPERTS, Model, Setup

EVERY_LAYER = 999
ROUNDS = 6

Shares = list[dict[str, int]]
Oracle = Callable[[Setup], Shares]


class Found(NamedTuple):
    """A placement with what it takes on each device, and whether that is within the capacities."""

    setup: Setup
    devices: Shares
    fits: bool
    questions: int


def total(share: dict[str, int]) -> int:
    return share["weights"] + share["context"] + share["compute"]


def excess(devices: Shares, capacities: Sequence[int]) -> int:
    """Bytes by which the devices are overdrawn, all together."""
    return sum(max(0, total(share) - capacity) for share, capacity in zip(devices, capacities))


def search(model: Model, setup: Setup, capacities: Sequence[int]) -> Optional[Setup]:
    """The best placement by the memory model, or None where not one layer fits.

    Everything on the devices, else the experts of the first layers in host memory, else only the last layers offloaded.
    """
    everything = setup._replace(n_gpu_layers=EVERY_LAYER, n_cpu_moe=None)
    found = _split(model, everything, capacities)
    if found or not capacities:
        return found
    if model.experts:
        found = _first_that_fits(
            lambda layers: _split(model, everything._replace(n_cpu_moe=layers if layers < model.count else ALL_EXPERTS), capacities),
            1,
            model.count,
        )
        if found:
            return found
        everything = everything._replace(n_cpu_moe=ALL_EXPERTS)
    return _first_that_fits(
        lambda missing: _split(model, everything._replace(n_gpu_layers=model.count + 1 - missing), capacities), 1, model.count
    )


def _first_that_fits(attempt: Callable[[int], Optional[Setup]], low: int, high: int) -> Optional[Setup]:
    """The answer for the least number that has one; more never takes more memory."""
    best = None
    while low <= high:
        middle = (low + high) // 2
        found = attempt(middle)
        if found:
            best, high = found, middle - 1
        else:
            low = middle + 1
    return best


def _split(model: Model, setup: Setup, capacities: Sequence[int]) -> Optional[Setup]:
    """The setup with runs of layers dealt out to the devices in their order, or None where they do not fit."""
    count = len(capacities)
    if not count:
        return None
    places = _memory_model.assign(model.count, setup.n_gpu_layers, [1.0] * count, count)
    first = sum(place == _memory_model.HOST for place in places)
    sizes = _layer_sizes(model, setup)[first:]
    scratch = _memory_model.compute(model, setup, places, count)
    for _round in range(ROUNDS):
        runs = _deal(sizes, [capacity - need for capacity, need in zip(capacities, scratch)])
        if runs is None:
            return None
        dealt = setup._replace(tensor_split=runs if count > 1 else None)
        shares = _memory_model.memory(model, dealt, count)["devices"]
        if not excess(shares, capacities):
            return dealt
        # Scratch memory depends on who holds the output, which was only guessed.
        scratch = [max(need, share["compute"]) for need, share in zip(scratch, shares)]
    return None


def _layer_sizes(model: Model, setup: Setup) -> list[int]:
    """Bytes that each layer, and last the output, takes on a device."""
    spared = _memory_model.experts_on_host(model, setup.n_cpu_moe)
    contexts = _memory_model.context_by_layer(model, setup)
    sizes = [layer["rest"] + (layer["experts"] if number >= spared else 0) + contexts[number] for number, layer in enumerate(model.layers)]
    return [*sizes, model.output]


def _deal(sizes: Sequence[int], rooms: Sequence[int]) -> Optional[list[float]]:
    """How many of the sizes, in their order, each room takes; None where some are left over."""
    runs, position = [], 0
    for room in rooms:
        first, left = position, room
        while position < len(sizes) and sizes[position] <= left:
            left -= sizes[position]
            position += 1
        runs.append(float(position - first))
    return runs if position == len(sizes) else None


def settle(model: Model, setup: Setup, capacities: Sequence[int], oracle: Oracle) -> Optional[Found]:
    """The best placement as the oracle sees it: the model's proposals, corrected by what the oracle says they take.

    None where the model has no proposal. Asks a few times at most; ``fits`` tells whether the last answer is within the
    capacities.
    """
    rooms = list(capacities)
    proposal = search(model, setup, rooms)
    best: Optional[Found] = None
    asked: list[Setup] = []
    while proposal and proposal not in asked and len(asked) < ROUNDS:
        shares = oracle(proposal)
        asked.append(proposal)
        fits = not excess(shares, capacities)
        if best is None or (fits and (not best.fits or _on_devices(shares) > _on_devices(best.devices))):
            best = Found(proposal, shares, fits, len(asked))
        expected = _memory_model.memory(model, proposal, len(capacities))["devices"]
        rooms = [capacity - (total(share) - total(guess)) for capacity, share, guess in zip(capacities, shares, expected)]
        proposal = search(model, setup, rooms)
    return best._replace(questions=len(asked)) if best else None


def _on_devices(shares: Shares) -> int:
    return sum(share["weights"] for share in shares)


def as_placement(setup: Setup) -> dict[str, Any]:
    """The part of a plan's placement that a search decides."""
    return {
        "n_gpu_layers": setup.n_gpu_layers,
        "n_cpu_moe": setup.n_cpu_moe,
        "tensor_split": list(setup.tensor_split) if setup.tensor_split else None,
    }


def planned_setup(placement: dict[str, Any], flash_attention: bool = True) -> Setup:
    """How a plan's placement has the model run."""
    return Setup(
        ctx_size=int(placement["ctx_size"]),
        parallel=int(placement.get("parallel") or 1),
        cache_type_k=placement.get("cache_type_k") or "f16",
        cache_type_v=placement.get("cache_type_v") or "f16",
        ubatch_size=int(placement.get("ubatch_size") or 512),
        flash_attention=flash_attention,
        n_gpu_layers=int(placement.get("n_gpu_layers") or 0),
        n_cpu_moe=placement.get("n_cpu_moe"),
        tensor_split=placement.get("tensor_split"),
    )
