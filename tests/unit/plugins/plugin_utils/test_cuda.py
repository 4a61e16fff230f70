# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which CUDA toolkit and compiler suit which hosts."""

from __future__ import annotations

import pytest

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _cuda

OFFERS = {"pypi": ["13.0"], "nvidia": ["13.0", "12.9", "11.8"], "distribution": ["11.8"]}


def host(name="a", capabilities=("9.0",), drivers=("580.95.05",)):
    return {"host": name, "compute_capabilities": list(capabilities), "driver_versions": list(drivers)}


def choose(*hosts, compilers=(12, 11), offers=None, platform="debian-12", **wish):
    return _cuda.choose(platform, hosts or [host()], wish, offers or OFFERS, list(compilers))


@pytest.mark.parametrize(
    ("hosts", "compilers", "wish", "expected"),
    [
        pytest.param([host()], (12, 11), {}, ("pypi", "13.0", 0), id="h100-of-today"),
        pytest.param([host(capabilities=["12.1"])], (12,), {}, ("pypi", "13.0", 0), id="gb10"),
        pytest.param([host(capabilities=["10.3"])], (12,), {}, ("pypi", "13.0", 0), id="b300"),
        pytest.param([host(capabilities=["7.5"])], (12,), {}, ("pypi", "13.0", 0), id="t4-is-the-oldest-of-cuda-13"),
        pytest.param([host(capabilities=["7.0"])], (12,), {}, ("nvidia", "12.9", 0), id="v100-needs-cuda-12"),
        pytest.param([host(capabilities=["6.0"])], (12,), {}, ("nvidia", "12.9", 0), id="p100-needs-cuda-12"),
        pytest.param([host(drivers=["570.195.03"])], (12,), {}, ("nvidia", "12.9", 0), id="driver-of-cuda-12"),
        pytest.param([host(drivers=["580"])], (12,), {}, ("pypi", "13.0", 0), id="first-driver-of-cuda-13"),
        pytest.param([host(capabilities=["7.0"], drivers=["470.57.02"])], (12, 11), {}, ("nvidia", "11.8", 11), id="v100-with-driver-470"),
        pytest.param([host(), host("b", ["7.0"])], (12,), {}, ("nvidia", "12.9", 0), id="oldest-device-of-the-fleet-decides"),
        pytest.param(
            [host(), host("b", drivers=["550.163.01"])], (12,), {}, ("nvidia", "12.9", 0), id="oldest-driver-of-the-fleet-decides"
        ),
        pytest.param([host(drivers=[])], (12,), {}, ("pypi", "13.0", 0), id="no-driver-yet"),
        pytest.param([host(capabilities=[])], (12,), {}, ("pypi", "13.0", 0), id="no-device-known"),
        pytest.param([host()], (16, 15, 14), {}, ("pypi", "13.0", 15), id="own-compiler-too-new"),
        pytest.param([host()], (), {}, ("pypi", "13.0", 0), id="compiler-not-known"),
        pytest.param([host()], (12,), {"source": "nvidia"}, ("nvidia", "13.0", 0), id="source-named"),
        pytest.param([host()], (12,), {"version": "12.9"}, ("nvidia", "12.9", 0), id="version-named"),
        pytest.param([host()], (12,), {"source": "nvidia", "version": "13.3"}, ("nvidia", "13.3", 0), id="newer-than-the-list-of-nvidia"),
        pytest.param([host()], (12, 11), {"source": "distribution"}, ("distribution", "11.8", 11), id="distribution"),
    ],
)
def test_choice(hosts, compilers, wish, expected):
    chosen = choose(*hosts, compilers=compilers, **wish)
    assert (chosen["source"], chosen["version"], chosen["compiler"]) == expected
    assert chosen["problems"] == []


@pytest.mark.parametrize(
    ("hosts", "compilers", "wish", "words"),
    [
        pytest.param(
            [host("old-gpu", ["7.0"])],
            (12,),
            {"source": "pypi"},
            "CUDA 13.0 (pypi) compiles for compute capability 7.5 and later, old-gpu has 7.0",
            id="cuda-13-dropped-the-v100",
        ),
        pytest.param(
            [host("behind", drivers=["535.261.03"])],
            (12,),
            {"source": "pypi"},
            "CUDA 13.0 (pypi) needs driver 580 or later, behind has 535.261.03",
            id="driver-too-old",
        ),
        pytest.param(
            [host(drivers=["390.157"])], (12,), {}, "CUDA 11.8 (nvidia) needs driver 450.80.02 or later", id="driver-too-old-for-all"
        ),
        pytest.param([host(capabilities=["3.0"])], (11,), {}, "capability 3.5 and later, a has 3.0", id="device-too-old-for-all"),
        pytest.param([host(capabilities=["13.0"])], (12,), {}, "capabilities up to 12.1, a has 13.0", id="device-too-new-for-all"),
        pytest.param(
            [host()],
            (16,),
            {"source": "pypi"},
            "CUDA 13.0 (pypi) accepts g++ 15 at most, this system has 16",
            id="compiler-too-new-for-nvcc",
        ),
        pytest.param(
            [host(drivers=["470.57.02"])],
            (14, 13, 12),
            {},
            "CUDA 11.8 (nvidia) accepts g++ 11 at most, this system has 12, 13, 14",
            id="driver-and-compilers-do-not-meet",
        ),
        pytest.param([host()], (12,), {"version": "12.6"}, "No CUDA toolkit 12.6 is known for debian-12", id="version-not-offered"),
        pytest.param([host()], (12,), {"version": "10.2"}, "cuda_toolkit_version is 10.2; its limits are known for", id="version-unknown"),
        pytest.param([host()], (12,), {"version": "thirteen"}, "written like 13.0", id="version-garbled"),
        pytest.param([host()], (12,), {"source": "conda"}, "cuda_toolkit_source is 'conda'", id="source-unknown"),
    ],
)
def test_refusal(hosts, compilers, wish, words):
    chosen = choose(*hosts, compilers=compilers, **wish)
    assert len(chosen["problems"]) == 1
    assert words in chosen["problems"][0]
    assert not chosen["version"]


def test_a_refusal_names_a_next_step():
    assert "Upgrade the drivers" in choose(host(drivers=["390.157"]))["problems"][0]


def test_a_platform_with_nothing_to_offer():
    problem = choose(offers={"pypi": [], "nvidia": [], "distribution": []})["problems"][0]
    assert "known are none" in problem


@pytest.mark.parametrize(
    ("version", "capability", "suits"),
    [
        pytest.param("12.8", "12.0", True, id="12.8-knows-rtx50"),
        pytest.param("12.8", "10.0", True, id="12.8-knows-b200"),
        pytest.param("12.8", "10.3", False, id="12.8-does-not-know-b300"),
        pytest.param("12.9", "10.3", True, id="12.9-knows-b300"),
        pytest.param("12.6", "10.0", False, id="12.6-does-not-know-blackwell"),
        pytest.param("11.8", "9.0", True, id="11.8-knows-hopper"),
        pytest.param("13.0", "7.0", False, id="13.0-dropped-volta"),
    ],
)
def test_devices_of_a_release(version, capability, suits):
    chosen = choose(host(capabilities=[capability], drivers=[]), compilers=(11,), source="nvidia", version=version)
    assert (chosen["version"] == version) is suits


@pytest.mark.parametrize(
    ("version", "compilers", "expected"),
    [
        pytest.param("13.0", [12, 11], 12, id="own"),
        pytest.param("13.0", [12, 15], 12, id="own-before-newer"),
        pytest.param("12.4", [14, 12, 13], 13, id="newest-that-is-accepted"),
        pytest.param("11.8", [12], None, id="none"),
    ],
)
def test_host_compiler(version, compilers, expected):
    assert _cuda.host_compiler(version, compilers) == expected
