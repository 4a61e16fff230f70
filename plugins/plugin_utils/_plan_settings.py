# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a wish makes sense: its numbers, the types of its cache, and what it orders about the placement.

Ansible's argument validation comes before it where a role is run, but knows neither ranges nor the keys of a placement.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ansible_collections.onprem.llamacpp.plugins.module_utils._memory_model import CACHE_BLOCKS
from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _placement_orders


class SettingsError(ValueError):
    """Values that cannot be planned with, in one sentence for the user."""


class Number(NamedTuple):
    """What a number may be: the least and the largest value, and what it counts."""

    variable: str
    least: int
    largest: int
    meaning: str


BYTES = 2**60
NUMBERS = {
    "ctx_size": Number("llama_plan_ctx_size", 0, 2**31 - 1, "tokens, 0 for the model's default"),
    "parallel": Number("llama_plan_parallel", 1, 1024, "slots"),
    "ubatch_size": Number("llama_plan_ubatch_size", 1, 2**20, "tokens"),
    "threads": Number("llama_plan_threads", 0, 4096, "threads, 0 leaves it to the engine"),
    "ram_reserve": Number("llama_plan_ram_reserve", 0, BYTES, "bytes"),
    "vram_margin": Number("llama_plan_vram_margin", 0, BYTES, "bytes"),
    "disk_buffer": Number("llama_plan_disk_buffer", -1, BYTES, "bytes, -1 for the catalogue's figure"),
    "link_bits_per_second": Number("llama_plan_link_speed", 1, 10**15, "bits per second"),
    "port": Number("llama_plan_port", 1, 65535, "a TCP port"),
}
CACHE_TYPES = {"cache_type_k": "llama_plan_cache_type_k", "cache_type_v": "llama_plan_cache_type_v"}


def check(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings, when all of them can be planned with; a placement in the planner's own terms.

    Raises:
        SettingsError: names every variable that is wrong, with its value and what is wanted.
    """
    wrong = []
    for key, number in NUMBERS.items():
        value = settings.get(key)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not number.least <= value <= number.largest:
            wrong.append(
                f"{number.variable} is {value!r}, expected a whole number from {number.least} to {number.largest} ({number.meaning})"
            )
    for key, variable in CACHE_TYPES.items():
        value = settings.get(key)
        if value is not None and not (isinstance(value, str) and value in CACHE_BLOCKS):
            wrong.append(f"{variable} is {value!r}, expected one of {', '.join(CACHE_BLOCKS)}")
    placement, refused = _placement_orders.read(settings.get("placement"))
    wrong += refused
    if wrong:
        raise SettingsError("; ".join(wrong))
    return {**settings, "placement": placement} if "placement" in settings else settings
