# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may reach the ports of an instance, said to the firewall that the host has.

firewalld and ufw get rules beside those that are there; a record tells which are ours. nftables gets a table of our own, which
closes the ports to everybody else and says nothing of others. No firewall is switched on: who is not let in could not say so.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
from collections.abc import Sequence
from typing import NamedTuple, Union

from ansible_collections.onprem.llamacpp.plugins.module_utils import _instance
from ansible_collections.onprem.llamacpp.plugins.module_utils._host import Run, read_json, run_command

ROOT = "/etc/llamacpp/firewall"
LOOPBACK = ("localhost",)
# Where nobody else is named, nobody else comes in: no name at all would be everybody.
ONLY_ITSELF = "127.0.0.1"

Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]


class FirewallError(Exception):
    """Why the firewall cannot be told, in words for the user."""


class Rule(NamedTuple):
    """Somebody may reach a port; an empty source is everybody."""

    port: int
    source: str = ""


def rules(ports: Sequence[int], sources: Sequence[str]) -> list[Rule]:
    """What is to be let in.

    :raises FirewallError: a source is no address and no network
    """
    named = []
    for source in (each for each in sources if each not in LOOPBACK):
        try:
            network = _network(source)
        except ValueError:
            raise FirewallError(f"llama_server_allowed_addresses: {source} is no address and no network.") from None
        named.append(_written(network))
    if sources and not named:
        named = [ONLY_ITSELF]
    return [Rule(port, source) for port in sorted(set(ports)) for source in (dict.fromkeys(named) or [""])]


def _written(network: Network) -> str:
    """A network as firewalls write it, who would not know it again in another form."""
    return str(network.network_address) if network.num_addresses == 1 else str(network)


def _network(source: str) -> Network:
    return ipaddress.ip_network(source, strict=False)


def _merged(networks: Sequence[Network]) -> list[Network]:
    """The same addresses without networks that overlap, which not every nft takes."""
    four = [network for network in networks if isinstance(network, ipaddress.IPv4Network)]
    six = [network for network in networks if isinstance(network, ipaddress.IPv6Network)]
    return [*ipaddress.collapse_addresses(four), *ipaddress.collapse_addresses(six)]


def rich_rule(rule: Rule) -> str:
    """A rule in firewalld's language."""
    source = f' family="ipv{_network(rule.source).version}" source address="{rule.source}"' if rule.source else ""
    return f'rule{source} port port="{rule.port}" protocol="tcp" accept'


def firewalld(order: str, rule: Rule, permanent: bool = True) -> list[str]:
    """Add, remove or query a rule of firewalld's: one that stays, or what is in force now."""
    return ["firewall-cmd", *(["--permanent"] if permanent else []), "--quiet", f"--{order}-rich-rule={rich_rule(rule)}"]


def ufw(rule: Rule, name: str, delete: bool = False) -> list[str]:
    """Add or delete a rule of ufw's."""
    what = ["allow", "proto", "tcp", "from", rule.source or "any", "to", "any", "port", str(rule.port)]
    return ["ufw", "delete", *what] if delete else ["ufw", *what, "comment", f"llamacpp-{name}"]


def nft_table(wanted: Sequence[Rule], name: str) -> str:
    """A file for nft that makes the instance's table anew."""
    ports = sorted({rule.port for rule in wanted})
    lines = ["        iifname lo accept"]
    for port in ports:
        peers = _merged([_network(rule.source) for rule in wanted if rule.port == port and rule.source])
        for version, family in ((4, "ip"), (6, "ip6")):
            text = ", ".join(_written(peer) for peer in peers if peer.version == version)
            if text:
                lines.append(f"        tcp dport {port} {family} saddr {{ {text} }} accept")
        lines.append(f"        tcp dport {port} drop")
    chain = ["    chain input {", "        type filter hook input priority filter - 10; policy accept;", *lines, "    }"]
    table = f"table inet llamacpp-{name}"
    return "\n".join(
        [
            "# Who may reach the instance's ports; other ports are none of its business.",
            table,
            f"delete {table}",
            f"{table} {{",
            *chain,
            "}",
            "",
        ]
    )


class Firewall:
    """The firewall of a host, as far as one instance is concerned."""

    def __init__(self, name: str, root: str = ROOT, run: Run = run_command) -> None:
        self.name, self._run = name, run
        self.record = os.path.join(root, f"{name}.json")
        self.table = os.path.join(root, f"{name}.nft")
        self.unit = f"llamacpp-firewall@{name}.service"

    def apply(self, kind: str, wanted: Sequence[Rule], check_mode: bool) -> bool:
        """Let in what is wanted, and end what was let in before; whether that changed anything.

        :raises FirewallError: the firewall's own program refuses
        """
        recorded = read_json(self.record)
        held, ours = recorded.get("kind", "none"), [Rule(*rule) for rule in recorded.get("rules", [])]
        if kind == "none" or not wanted:
            kind, wanted = "none", []
        stale = [rule for rule in ours if held != kind or rule not in wanted]
        missing = [rule for rule in wanted if not self._present(kind, rule, wanted)]
        if check_mode or not (stale or missing or held != kind):
            return bool(stale or missing or held != kind)
        # A rule that was there before is somebody else's, and stays when ours go.
        made = [rule for rule in wanted if rule in missing or (held == kind and rule in ours)]
        # Written first: whatever happens now, the next run knows what may be there.
        _instance.make_directory(os.path.dirname(self.record))
        self._write_record(kind if kind != "none" else held, [*stale, *made])
        if held != kind or held != "nftables":
            self._remove(held, stale, held != kind)
        self._add(kind, missing, wanted)
        if kind == "none":
            os.unlink(self.record)
        else:
            self._write_record(kind, made)
        return True

    def _write_record(self, kind: str, ours: Sequence[Rule]) -> None:
        _instance.write_file(self.record, json.dumps({"kind": kind, "rules": [list(rule) for rule in ours]}) + "\n")

    def _present(self, kind: str, rule: Rule, wanted: Sequence[Rule]) -> bool:
        if kind == "firewalld":
            return all(self._run(firewalld("query", rule, permanent))[0] == 0 for permanent in (True, False))
        if kind == "ufw":
            told = self._run(["ufw", "show", "added"])[1].splitlines()
            source = f"from {rule.source} to any port {rule.port} proto tcp" if rule.source else f"{rule.port}/tcp"
            return any(f"{line} ".startswith(f"ufw allow {source} ") for line in told)
        loaded = self._run(["nft", "list", "table", "inet", f"llamacpp-{self.name}"])[0] == 0
        return loaded and _instance.read_text(self.table) == nft_table(wanted, self.name)

    def _add(self, kind: str, missing: Sequence[Rule], wanted: Sequence[Rule]) -> None:
        if kind == "firewalld":
            for rule in missing:
                self._firewalld("add", rule)
        elif kind == "ufw":
            for rule in missing:
                self._order(ufw(rule, self.name))
        elif kind == "nftables":
            _instance.write_file(self.table, nft_table(wanted, self.name))
            self._order(["systemctl", "enable", "--quiet", self.unit])
            self._order(["systemctl", "restart", self.unit])

    def _remove(self, kind: str, stale: Sequence[Rule], all_of_it: bool) -> None:
        if kind == "firewalld":
            for rule in stale:
                self._firewalld("remove", rule)
        elif kind == "ufw":
            for rule in stale:
                self._order(ufw(rule, self.name, delete=True))
        elif kind == "nftables" and all_of_it:
            self._order(["systemctl", "disable", "--quiet", "--now", self.unit])
            with contextlib.suppress(FileNotFoundError):  # an earlier run came as far as this
                os.unlink(self.table)

    def _firewalld(self, order: str, rule: Rule) -> None:
        """Add or remove a rule, among those that stay and among those in force. A reload would take other programs' rules along."""
        for permanent in (True, False):
            query = firewalld("query", rule, permanent)
            status, out, err = self._run(query)
            if status > 1:  # neither yes nor no
                raise _refused(query, out, err)
            if (status == 0) != (order == "add"):
                self._order(firewalld(order, rule, permanent))

    def _order(self, argv: list[str]) -> None:
        status, out, err = self._run(argv)
        if status:
            raise _refused(argv, out, err)


def _refused(argv: Sequence[str], out: str, err: str) -> FirewallError:
    lines = (err.strip() or out.strip()).splitlines() or ["no message"]
    return FirewallError(f"{' '.join(argv)}: {lines[-1]}")
