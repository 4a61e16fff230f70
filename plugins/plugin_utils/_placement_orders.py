# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user may order about a placement: which values there are, and what each may be."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ansible_collections.onprem.llamacpp.plugins.module_utils._memory_model import ALL_EXPERTS, CACHE_BLOCKS
from ansible_collections.onprem.llamacpp.plugins.module_utils._placement import EVERY_LAYER

VARIABLE = "llama_plan_placement"
LOAD_MODES = ("auto", "none", "mmap", "mlock", "mmap+mlock", "dio")
ATTENTION = ("on", "off", "auto")


class Order(NamedTuple):
    """Reads one value; what it returns is planned with. It raises ValueError for anything that is not ``wanted``."""

    read: Callable[[Any], Any]
    wanted: str


def _taken(taken: bool, value: Any) -> Any:
    if not taken:
        raise ValueError
    return value


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _whole(least: int, largest: int, meaning: str) -> Order:
    return Order(
        lambda value: _taken(_is_whole(value) and least <= value <= largest, value),
        f"a whole number from {least} to {largest} ({meaning})",
    )


def _one_of(values: Sequence[str], hint: str = "") -> Order:
    return Order(lambda value: _taken(isinstance(value, str) and value in values, value), f"one of {', '.join(values)}{hint}")


def _of_type(kind: type, wanted: str) -> Order:
    return Order(lambda value: _taken(isinstance(value, kind), value), wanted)


def _or_none(order: Order) -> Order:
    return Order(lambda value: None if value is None else order.read(value), f"{order.wanted}, or null")


def _layers(value: Any) -> int:
    """Any negative number and the engine's words for every layer come to the number that the planner has for it."""
    if value in ("all", "auto"):
        return EVERY_LAYER
    number: int = _taken(_is_whole(value), value)
    return number if number >= 0 else EVERY_LAYER


def _experts(value: Any) -> Any:
    return _taken(value == ALL_EXPERTS or (_is_whole(value) and value >= 0), value)


def _shares(value: Any) -> list[float]:
    """Shares as a list, or as the engine's own flag has them: V(3,1)."""
    parts = [float(part) for part in value.split(",")] if isinstance(value, str) else value
    numbers = isinstance(parts, list) and all(_is_whole(part) or isinstance(part, float) for part in parts)
    parts = _taken(numbers, parts)
    return list(_taken(all(math.isfinite(part) and part >= 0 for part in parts) and any(parts), parts))


def _servers(value: Any) -> Any:
    return _taken(isinstance(value, list) and all(isinstance(server, str) for server in value), value)


CACHE_TYPE = _one_of(list(CACHE_BLOCKS))
ORDERS = {
    "n_gpu_layers": Order(_layers, "a whole number, negative for every layer, or one of all, auto"),
    "n_cpu_moe": _or_none(Order(_experts, f"a whole number from 0 on, or {ALL_EXPERTS}")),
    "override_tensors": _or_none(_of_type(str, "text as in PATTERN=BUFFER")),
    "tensor_split": _or_none(Order(_shares, "a list of numbers from 0 on, not all 0, or text such as '3,1'")),
    "ctx_size": _whole(1, 2**31 - 1, "tokens"),
    "parallel": _whole(1, 1024, "slots"),
    "ubatch_size": _whole(1, 2**20, "tokens"),
    "cache_type_k": CACHE_TYPE,
    "cache_type_v": CACHE_TYPE,
    "flash_attn": _one_of(ATTENTION, ", in quotes"),  # without them YAML has booleans
    "load_mode": _one_of(LOAD_MODES),
    "repack": _of_type(bool, "true or false"),
    "warmup": _of_type(bool, "true or false"),
    "cache_ram_mib": _whole(0, 2**40, "MiB, 0 for none"),
    "ctx_checkpoints": _whole(0, 1024, "copies of a slot's state, 0 for none"),
    "threads": _or_none(_whole(0, 4096, "threads, 0 leaves it to the engine")),
    "numa": _or_none(_of_type(str, "text, a strategy of the engine")),
    "rpc_servers": Order(_servers, "a list of addresses as host:port"),
}


def read(orders: Any) -> tuple[dict[str, Any], list[str]]:
    """The orders as they can be planned with, and what is wrong with the others, a sentence each."""
    if orders is None:
        return {}, []
    if not isinstance(orders, Mapping):
        return {}, [f"{VARIABLE} is {reprlib.repr(orders)}, expected a mapping"]
    taken: dict[str, Any] = {}
    wrong = []
    for key, value in orders.items():
        if key not in ORDERS:
            wrong.append(f"{VARIABLE} has {key}, which is not known: it may have {', '.join(ORDERS)}")
            continue
        try:
            taken[key] = ORDERS[key].read(value)
        except ValueError:
            wrong.append(f"{key} of {VARIABLE} is {reprlib.repr(value)}, expected {ORDERS[key].wanted}")
    return taken, wrong
