# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may connect to a server, as its unit says it, and which address clients are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

ROLE = Path(__file__).resolve().parents[4] / "roles/llama_server"
PLANNED = {
    "llama_engine_result": {"path": "/opt/llamacpp/releases/b1", "build": {"backend": "cpu"}},
    "llama_model_result": {"path": "/var/lib/llamacpp/models/x", "first_shard": "x.gguf"},
    "llama_plan_result": {"alias": "x", "devices": [], "placement": {"load_mode": "mmap"}},
}
EVERYWHERE = {"llama_server_host": "0.0.0.0", "ansible_host": "10.1.0.5"}
LISTED: dict[str, Any] = {"llama_server_allowed_addresses": ["10.20.0.0/16", "10.9.0.1"]}
RPC = {"llama_plan_result": {**PLANNED["llama_plan_result"], "placement": {"load_mode": "mmap", "rpc_servers": ["10.3.0.7:50052"]}}}
# What is set, and IPAddressAllow= of the unit; None where everybody may connect.
HOSTS: dict[str, tuple[dict[str, Any], str | None]] = {
    "loopback": ({}, "localhost"),
    "loopback-lists-nobody-else": ({**LISTED, "llama_server_front": "nginx", "ansible_host": "10.1.0.5"}, "localhost"),
    "everybody": (EVERYWHERE, None),
    "everywhere": ({**EVERYWHERE, **LISTED}, "localhost 10.1.0.5 10.20.0.0/16 10.9.0.1"),
    "everywhere-advertised": (
        {**EVERYWHERE, **LISTED, "llama_server_advertised_address": "10.1.0.6"},
        "localhost 10.1.0.6 10.20.0.0/16 10.9.0.1",
    ),
    "everywhere-six": ({"llama_server_host": "::", "ansible_host": "2001:db8::5", **LISTED}, "localhost 2001:db8::5 10.20.0.0/16 10.9.0.1"),
    "everywhere-by-name": ({**EVERYWHERE, **LISTED, "ansible_host": "gpu-a.example.com"}, "localhost 10.20.0.0/16 10.9.0.1"),
    "everywhere-listed": ({**EVERYWHERE, "llama_server_allowed_addresses": ["10.1.0.5"]}, "localhost 10.1.0.5"),
    "one-address": ({**LISTED, "llama_server_host": "10.1.0.7"}, "localhost 10.1.0.7 10.20.0.0/16 10.9.0.1"),
    "one-address-advertised": (
        {"llama_server_host": "10.1.0.7", "llama_server_advertised_address": "10.1.0.6", "llama_server_allowed_addresses": ["10.9.0.1"]},
        "localhost 10.1.0.7 10.1.0.6 10.9.0.1",
    ),
    "rpc": (RPC, "localhost 10.3.0.7"),
}


def test_the_host_itself_may_always_connect(run_role_tasks: Any, tmp_path: Any) -> None:
    hosts = {name: {**wish, "llama_server_render_folder": str(tmp_path / name)} for name, (wish, _allowed) in HOSTS.items()}
    planned = {name: {**PLANNED, **variables} for name, variables in hosts.items()}
    done = run_role_tasks("llama_server", "render", planned, {}, {})
    assert done.returncode == 0, done.stdout
    found: dict[str, str | None] = {}
    for name in HOSTS:
        lines = (tmp_path / name / "llamacpp@.service").read_text().splitlines()
        allowed = [line.partition("=")[2] for line in lines if line.startswith("IPAddressAllow=")]
        assert ("IPAddressDeny=any" in lines) is bool(allowed)
        found[name] = allowed[0] if allowed else None
    assert found == {name: allowed for name, (_wish, allowed) in HOSTS.items()}


FRONT = {"llama_server_front": "nginx", "ansible_host": "10.1.0.5"}


@pytest.mark.parametrize(
    ("variables", "url"),
    [
        pytest.param({}, "http://127.0.0.1:8080", id="loopback"),
        pytest.param(EVERYWHERE, "http://10.1.0.5:8080", id="everywhere"),
        pytest.param({**EVERYWHERE, "llama_server_advertised_address": "gpu-a.example.com"}, "http://gpu-a.example.com:8080", id="by name"),
        pytest.param({"llama_server_host": "::", "ansible_host": "2001:db8::5"}, "http://[2001:db8::5]:8080", id="IPv6"),
        pytest.param(FRONT, "https://10.1.0.5:8443", id="front"),
        pytest.param({**FRONT, "llama_server_front_address": "10.1.0.7"}, "https://10.1.0.7:8443", id="front on one address"),
        pytest.param(
            {**FRONT, "llama_server_advertised_address": "gpu-a.example.com"}, "https://gpu-a.example.com:8443", id="front by name"
        ),
    ],
)
def test_clients_are_told_where_they_reach_the_server(variables: dict[str, Any], url: str) -> None:
    assert said("_llama_server_url", variables) == url


def test_who_may_come_to_the_front_is_written_in_the_order_given() -> None:
    """Another order each time would change the host in every run."""
    given = [f"10.{number}.0.0/16" for number in range(9, 1, -1)]
    assert said("_llama_server_front_peers", {"llama_server_allowed_addresses": [*given, "localhost", given[0]]}) == ["127.0.0.0/8", *given]


def said(name: str, variables: dict[str, Any]) -> Any:
    """What a variable of the role comes to on a host with these variables."""
    loader = DataLoader()
    known = [loader.load_from_file(str(ROLE / folder / "main.yml"), trusted_as_template=True) for folder in ("defaults", "vars")]
    own = {**known[0], **known[1], "inventory_hostname": "one", **variables}
    return Templar(loader=loader, variables=own).template(own[name])
