# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.onprem.llamacpp.plugins.plugin_utils._swarm_peers import swarm_peers

PLAN = {"repo_id": "org/repo", "commit": "c" * 40, "quant": "Q8_0"}


def host(name, **more):
    known = {
        "inventory_hostname": name,
        "ansible_host": f"192.0.2.{ord(name)}",
        "llama_plan_result": PLAN,
        "llama_model_transport": "swarm",
    }
    return {**known, **more}


@pytest.mark.parametrize(
    ("other", "peer", "shares"),
    [
        pytest.param({}, True, True, id="fetches the same now"),
        pytest.param({"llama_model_result": {**PLAN, "path": "/models"}}, True, False, id="has it already"),
        pytest.param({"llama_model_result": {**PLAN, "quant": "Q2_K"}}, True, True, id="has another quant"),
        pytest.param({"llama_plan_result": {**PLAN, "commit": "d" * 40}}, True, False, id="wants another commit"),
        pytest.param({"llama_plan_result": None}, True, False, id="was not planned"),
        pytest.param({"llama_model_transport": "hub"}, True, False, id="does not swarm"),
        pytest.param({"llama_site": "elsewhere"}, False, False, id="is of another site"),
    ],
)
def test_another_host(other, peer, shares):
    found = swarm_peers("a", [host("a"), host("b", **other)], ["a", "b"])
    assert (found["peers"] == ["192.0.2.98"], found["sharers"] == ["", "192.0.2.98"]) == (peer, shares)


def test_a_host_of_a_later_batch_is_a_peer_without_a_share():
    assert swarm_peers("a", [host("a"), host("b")], ["a"]) == {"peers": ["192.0.2.98"], "sharers": [""]}


def test_all_hosts_agree_on_the_order():
    hosts = [host("c"), host("a"), host("b")]
    orders = [swarm_peers(name, hosts, "abc")["sharers"] for name in "abc"]
    assert orders == [["", "192.0.2.98", "192.0.2.99"], ["192.0.2.97", "", "192.0.2.99"], ["192.0.2.97", "192.0.2.98", ""]]


@pytest.mark.parametrize(
    ("more", "address"),
    [
        pytest.param({"llama_model_swarm_address": "198.51.100.7"}, "198.51.100.7", id="that of the swarm"),
        pytest.param({}, "192.0.2.98", id="that of Ansible"),
        pytest.param({"ansible_host": ""}, "b", id="its name"),
    ],
)
def test_address(more, address):
    assert swarm_peers("a", [host("a"), host("b", **more)], [])["peers"] == [address]
