# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the numbers of a wish make sense. Their types are the role's argument validation's business."""

from __future__ import annotations

from typing import Any, NamedTuple


class SettingsError(ValueError):
    """Numbers that cannot be planned with, in one sentence for the user."""


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


def check(settings: dict[str, Any]) -> dict[str, Any]:
    """The same settings, when every number in them can be planned with.

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
                f"{number.variable} is {value!r}, wanted is a whole number from {number.least} to {number.largest} ({number.meaning})"
            )
    if wrong:
        raise SettingsError("; ".join(wrong))
    return settings
