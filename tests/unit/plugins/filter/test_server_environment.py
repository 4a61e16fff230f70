# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors of the filter reach a user as one sentence."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.onprem.llamacpp.plugins.filter.server_environment import FilterModule

FILTERS = FilterModule().filters()
server_environment = FILTERS["server_environment"]
BUILD = {
    "tag": "b1",
    "capabilities": {
        "options": [
            {"names": [name], "env": env, "value": "X", "values": []}
            for name, env in [("--host", "H"), ("--port", "P"), ("--model", "M"), ("--ctx-size", "C"), ("--parallel", "N")]
        ]
    },
}
SETTINGS = {"model": "/m", "host": "::1", "port": 1, "metrics": False}


def test_renders():
    assert server_environment({"placement": {"ctx_size": 8}}, BUILD, SETTINGS) == {"C": "8", "H": "::1", "M": "/m", "N": "1", "P": "1"}


def test_notes():
    assert FILTERS["server_notes"]({"placement": {"ctx_size": 8}}, BUILD, {**SETTINGS, "offline": False, "ui": True}) == [
        "b1 has no flag for 'web interface': its page shows nothing without the API key",
        "b1 has no flag for 'log level 4': where its log names no buffers, the gate asks it for its devices and records no memory",
    ]


@pytest.mark.parametrize(
    ("plan", "build", "settings", "words"),
    [
        pytest.param([], BUILD, SETTINGS, "the plan is not a dictionary", id="plan"),
        pytest.param({}, None, SETTINGS, "the build is not a dictionary", id="build"),
        pytest.param({}, BUILD, "x", "the settings is not a dictionary", id="settings"),
        pytest.param({"placement": {"ctx_size": 8, "n_cpu_moe": 2}}, BUILD, SETTINGS, "b1 cannot be told", id="flag"),
    ],
)
@pytest.mark.parametrize("name", FILTERS)
def test_errors(name, plan, build, settings, words):
    with pytest.raises(AnsibleFilterError, match=words):
        FILTERS[name](plan, build, settings)
