# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of CUDA architectures, and which devices they run on."""

from __future__ import annotations

import pytest

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _cuda_architectures


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        pytest.param(["9.0"], ["90-real"], id="one"),
        pytest.param(["12.0", "8.0", "8.0", "10.0"], ["80-real", "100-real", "120-real"], id="by-number-and-once"),
        pytest.param([], [], id="none"),
    ],
)
def test_needed(capabilities, expected):
    assert _cuda_architectures.needed(capabilities) == expected


@pytest.mark.parametrize(
    ("architecture", "capability", "covered"),
    [
        pytest.param("80-real", "8.0", True, id="the-same"),
        pytest.param("80-real", "8.6", True, id="later-minor"),
        pytest.param("86-real", "8.0", False, id="earlier-minor"),
        pytest.param("80-real", "9.0", False, id="machine-code-of-another-major"),
        pytest.param("80-virtual", "9.0", True, id="compiled-by-the-driver"),
        pytest.param("80", "9.0", True, id="both"),
        pytest.param("90", "8.0", False, id="never-backwards"),
        pytest.param("90a", "9.0", True, id="for-one-device"),
        pytest.param("90a-virtual", "10.0", False, id="for-one-device-only"),
        pytest.param("100f", "10.3", True, id="family"),
        pytest.param("100f", "11.0", False, id="not-of-the-family"),
        pytest.param("120-real", "12.0", True, id="blackwell"),
        pytest.param("120", "12.1", False, id="llama.cpp-makes-120a-of-it"),
        pytest.param("native", "9.0", False, id="not-a-name"),
    ],
)
def test_covers(architecture, capability, covered):
    assert _cuda_architectures.covers(architecture, capability) is covered


def test_uncovered():
    assert _cuda_architectures.uncovered(["80-real", "90-real"], ["9.0", "12.0", "7.5", "8.6"]) == ["7.5", "12.0"]


@pytest.mark.parametrize("name", ["75", "120a", "90-real", "100f-virtual"])
def test_valid(name):
    assert _cuda_architectures.valid(name)


@pytest.mark.parametrize("name", ["", "native", "all", "sm_90", "9.0", "90-fast", "9"])
def test_not_valid(name):
    assert not _cuda_architectures.valid(name)


def test_devices_of_leaves_out_what_is_not_known():
    devices = [
        {"kind": "cuda", "compute_capability": "12.0", "driver_version": "580.95.05"},
        {"kind": "cuda", "compute_capability": "8.0", "driver_version": "580.95.05"},
        {"kind": "cuda", "compute_capability": "", "driver_version": ""},
        {"kind": "vulkan", "compute_capability": "7.0"},
    ]
    assert _cuda_architectures.devices_of({"devices": devices}) == {
        "compute_capabilities": ["8.0", "12.0"],
        "driver_versions": ["580.95.05"],
    }
