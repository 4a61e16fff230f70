# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The memory model and the module llama_fit_info against a packaged engine, on RPC and Vulkan devices in software."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fit_combinations
import plays
import pytest
from conftest import INVENTORY

ENGINE = fit_combinations.Engine("10.78.0.16", str(plays.KEY), "/usr/bin/llama-fit-params", fit_combinations.PACKAGED_RPC_SERVER)
GIB = 2**30


def test_the_memory_model_agrees_with_the_engine() -> None:
    listed = fit_combinations.combinations(quick=os.environ.get("EVERY_COMBINATION") != "1")
    found = fit_combinations.compare(listed, fit_combinations.ask(ENGINE, listed))
    assert {difference.combination["device"] for difference in found} == {"rpc", "vulkan"}
    for difference in found:
        assert abs(difference.weights) <= 1 and abs(difference.context) <= 1, difference
        assert difference.percent <= 2, difference


@pytest.fixture(scope="module")
def rpc_devices(on_host: Any) -> Iterator[list[str]]:
    """Two RPC servers on the host's loopback, for as long as the tests run."""
    host, addresses = on_host("small"), []
    for number in range(2):
        unit, port = f"fit-rpc-{number}", 50200 + number
        host.check_output(f"systemd-run --unit {unit} {fit_combinations.PACKAGED_RPC_SERVER} --host 127.0.0.1 --port {port}")
        addresses.append(f"127.0.0.1:{port}")
    yield addresses
    host.run("systemctl stop fit-rpc-0 fit-rpc-1")


def test_a_model_of_330_gb_is_placed_on_two_devices_before_it_is_there(tmp_path: Path, rpc_devices: list[str], on_host: Any) -> None:
    before = on_host("small").check_output("ls -A /var/lib/llamacpp")
    answer = fit_combinations.exact_fit([INVENTORY], "small", tmp_path, "kimi-k2", rpc_devices, [79, 79], ctx_size=131072)
    assert answer["asked"] and answer["fits"], answer["reason"]
    assert answer["placement"]["n_cpu_moe"] == 34
    for device in answer["devices"]:
        used = device["weights"] + device["context"] + device["compute"]
        assert 70 * GIB < used <= 79 * GIB
    assert answer["seconds"] < 60
    assert on_host("small").check_output("ls -A /var/lib/llamacpp") == before


def test_an_engine_that_cannot_be_asked_is_told_in_a_sentence(tmp_path: Path, rpc_devices: list[str]) -> None:
    answer = fit_combinations.exact_fit([INVENTORY], "small", tmp_path, "llama", ["127.0.0.1:9"], [10], ctx_size=4096)
    assert not answer["asked"]
    assert "/usr/bin/llama-fit-params" in answer["reason"]
