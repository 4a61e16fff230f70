# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What apt would install, judged before it does."""

from __future__ import annotations

import subprocess

import pytest

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _packages

# apt-cache policy on forky; the last package is in no repository.
POLICY = """llama.cpp-tools:
  Installed: (none)
  Candidate: 1:0.7.0+dfsg-2
  Version table:
     1:0.7.0+dfsg-2 500
        500 http://deb.debian.org/debian forky/main amd64 Packages
libggml0:
  Installed: 0.27.0-1
  Candidate: 0.28.0-1
  Version table:
     0.28.0-1 500
        500 http://deb.debian.org/debian forky/main amd64 Packages
 *** 0.27.0-1 100
        100 /var/lib/dpkg/status
libggml0-backend-cuda:
  Installed: (none)
  Candidate: (none)
  Version table:
"""
NAMES = ["llama.cpp-tools", "libggml0"]
GOOD = {"llama.cpp-tools": "1:0.7.0+dfsg-2", "libggml0": "0.27.0-1"}


def test_policy():
    assert _packages.parse_policy(POLICY) == {**GOOD, "libggml0-backend-cuda": ""}


@pytest.mark.parametrize(
    ("version", "number"),
    [
        pytest.param("9721+dfsg-1", 9721, id="numbered-by-builds"),
        pytest.param("1:0.7.0+dfsg-2", 11669, id="a-known-release"),
        pytest.param("1:0.7.0+dfsg-2~bpo13+1", 11669, id="a-backport"),
        pytest.param("1:0.7.1+dfsg-1", 11669, id="at-least-the-release-before"),
        pytest.param("1:1.0.0-1", 12110, id="newer-than-all-known"),
        pytest.param("1:0.5.0+dfsg-1", 11063, id="between-two"),
        pytest.param("1:0.1.0-1", 2, id="older-than-all-known"),
        pytest.param("unknown", 0, id="no-version"),
    ],
)
def test_least_build(version, number):
    assert _packages.least_build(version) == number


PAIRS = [
    ("1.0-1", "1.0-1", 0),
    ("9721+dfsg-1", "1:0.7.0+dfsg-2", -1),
    ("1:0.7.0+dfsg-2", "1:0.7.0+dfsg-10", -1),
    ("1:0.10.0-1", "1:0.9.0-1", 1),
    ("1:0.7.0+dfsg-2~bpo13+1", "1:0.7.0+dfsg-2", -1),
    ("1:0.7.0~rc1-1", "1:0.7.0-1", -1),
    ("1.0+b", "1.0a", 1),
    ("0.27.0-1+b1", "0.27.0-1", 1),
    ("1.0", "1.0-0", 0),
    ("1.01", "1.1", 0),
    ("1.0-1-2", "1.0-2", 1),
]


@pytest.mark.parametrize(("left", "right", "expected"), PAIRS)
def test_compare(left, right, expected):
    for sign, pair in ((1, (left, right)), (-1, (right, left))):
        difference = _packages.compare(*pair)
        assert ((difference > 0) - (difference < 0)) * sign == expected


@pytest.mark.parametrize(("left", "right", "expected"), PAIRS)
def test_dpkg_compares_alike(left, right, expected):
    relation = {-1: "lt", 0: "eq", 1: "gt"}[expected]
    assert subprocess.run(["dpkg", "--compare-versions", left, relation, right], check=False).returncode == 0


def made_of(**packages):
    return {
        "build": {"packages": {name.replace("_", "-").replace("llama-cpp", "llama.cpp"): version for name, version in packages.items()}}
    }


@pytest.mark.parametrize(
    ("policy", "rpc", "force", "engines", "words"),
    [
        pytest.param(GOOD, False, [], [], [], id="good"),
        pytest.param({**GOOD, "libggml0": ""}, False, [], [], ["No repository of this host has the packages libggml0"], id="missing"),
        pytest.param({}, False, [], [], ["the packages llama.cpp-tools, libggml0"], id="no-package-at-all"),
        pytest.param({**GOOD, "llama.cpp-tools": "9721+dfsg-1"}, False, [], [], ["llama.cpp-tools 9721+dfsg-1 is refused"], id="below"),
        pytest.param({**GOOD, "llama.cpp-tools": "9721+dfsg-1"}, False, ["floor"], [], [], id="below-forced"),
        pytest.param({**GOOD, "llama.cpp-tools": "1:0.5.0-1"}, False, [], [], ["0.5.0-1 is refused"], id="not-known-to-be-above"),
        pytest.param(GOOD, True, [], [], ["1:0.7.0+dfsg-2 is refused (advisory rpc-floor)"], id="rpc"),
        pytest.param(GOOD, True, ["rpc"], [], [], id="rpc-forced"),
        pytest.param({**GOOD, "llama.cpp-tools": "strange"}, False, [], [], [], id="judged-when-it-is-installed"),
        pytest.param(GOOD, False, [], [made_of(llama_cpp_tools="1:0.7.0+dfsg-2", libggml0="0.27.0-1")], [], id="the-same-again"),
        pytest.param(GOOD, False, [], [made_of(llama_cpp_tools="9721+dfsg-1")], [], id="forward"),
        pytest.param(
            GOOD,
            False,
            [],
            [made_of(llama_cpp_tools="1:0.6.0-1"), made_of(llama_cpp_tools="1:0.9.0-1"), {"build": {}}],
            ["llama.cpp-tools is 1:0.7.0+dfsg-2, but an engine of this host was made of 1:0.9.0-1. Packages do not go back"],
            id="back",
        ),
        pytest.param(GOOD, False, [], [made_of(libggml0="0.28.0-1")], ["libggml0 is 0.27.0-1"], id="a-library-goes-back"),
    ],
)
def test_problems(policy, rpc, force, engines, words):
    told = _packages.problems(policy, NAMES, rpc, force, engines)
    assert len(told) == len(words), told
    assert all(word in problem for word, problem in zip(words, told)), told
