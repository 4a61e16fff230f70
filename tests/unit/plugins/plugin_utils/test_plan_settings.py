# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _plan_settings

GOOD = {
    **{"ctx_size": 0, "parallel": 1, "ubatch_size": 512, "threads": None, "ram_reserve": 4 * 2**30, "vram_margin": 0},
    **{"disk_buffer": None, "link_bits_per_second": 10**9, "port": 8080, "quant": "auto"},
}


def test_good_numbers_pass_as_they_are() -> None:
    assert _plan_settings.check(GOOD) == GOOD


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("ctx_size", -5, "llama_plan_ctx_size is -5, wanted is a whole number from 0 to 2147483647 (tokens, 0 for the model's default)"),
        ("ram_reserve", "lots", "llama_plan_ram_reserve is 'lots', wanted is a whole number from 0 to"),
        ("disk_buffer", -7, "llama_plan_disk_buffer is -7, wanted is a whole number from -1 to"),
        ("link_bits_per_second", 0, "llama_plan_link_speed is 0, wanted is a whole number from 1 to"),
        ("parallel", 0, "llama_plan_parallel is 0"),
        ("threads", -1, "llama_plan_threads is -1"),
        ("vram_margin", True, "llama_plan_vram_margin is True"),
        ("port", 70000, "llama_plan_port is 70000"),
    ],
)
def test_a_number_that_makes_no_sense_is_named(key: str, value: Any, told: str) -> None:
    with pytest.raises(_plan_settings.SettingsError) as error:
        _plan_settings.check({**GOOD, key: value})
    assert told in str(error.value)


def test_all_wrong_numbers_are_told_at_once() -> None:
    with pytest.raises(_plan_settings.SettingsError, match=r"llama_plan_ctx_size is -1.*; llama_plan_port is 0"):
        _plan_settings.check({**GOOD, "ctx_size": -1, "port": 0})
