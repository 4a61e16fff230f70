# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The task that tells a firewall, run as Ansible runs it; in check mode, which must change nothing on this machine."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("sources", "let_in"),
    [
        pytest.param([], [{"port": 8443, "source": ""}], id="everybody"),
        pytest.param(
            ["10.1.0.0/16", "localhost", "fd00::/8"],
            [{"port": 8443, "source": "10.1.0.0/16"}, {"port": 8443, "source": "fd00::/8"}],
            id="who-is-named",
        ),
    ],
)
def test_checking_says_who_would_be_let_in(run_module, sources, let_in):
    wish = {"instance": "nobody", "kind": "nftables", "ports": [8443], "sources": sources}
    status, result = run_module("llama_firewall", _ansible_check_mode=True, **wish)
    assert (status, result["changed"], result["rules"]) == (0, True, let_in)


def test_nothing_is_left_to_take_back_where_nothing_was_let_in(run_module):
    status, result = run_module("llama_firewall", instance="nobody", kind="none", _ansible_check_mode=True)
    assert (status, result["changed"], result["rules"]) == (0, False, [])


def test_a_name_is_no_address(run_module):
    status, result = run_module("llama_firewall", kind="ufw", ports=[8443], sources=["gateway"], _ansible_check_mode=True)
    assert status == 1
    assert "gateway" in result["msg"] and "is no address and no network" in result["msg"]
