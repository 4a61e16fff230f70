# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each firewall is told, and that nothing of it stays behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.onprem.llamacpp.plugins.module_utils import _firewall
from ansible_collections.onprem.llamacpp.plugins.module_utils._firewall import Rule

TABLE = """\
# Who may reach the instance's ports; other ports are none of its business.
table inet llamacpp-main
delete table inet llamacpp-main
table inet llamacpp-main {
    chain input {
        type filter hook input priority filter - 10; policy accept;
        iifname lo accept
        tcp dport 8443 ip saddr { 10.1.0.0/16, 10.2.0.1 } accept
        tcp dport 8443 ip6 saddr { fd00::/8 } accept
        tcp dport 8443 drop
    }
}
"""


class Host:
    """Answers as the programs of the three firewalls do."""

    def __init__(self) -> None:
        self.rich: set[str] = set()
        self.in_force: set[str] = set()
        self.added: set[str] = set()
        self.loaded = False
        self.calls: list[str] = []

    def __call__(self, argv: list[str], *_more: Any) -> tuple[int, str, str]:
        self.calls.append(" ".join(argv))
        if argv[0] == "firewall-cmd" and "-rich-rule=" in argv[-1]:
            order, _equals, rule = argv[-1][2:].partition("-rich-rule=")
            rules = self.rich if "--permanent" in argv else self.in_force
            if order == "query":
                return int(rule not in rules), "", ""
            (rules.add if order == "add" else rules.remove)(rule)
        if argv[0] == "ufw":
            if argv[1:] == ["show", "added"]:
                return 0, "Added user rules (see 'ufw status' for running firewall):\n" + "".join(f"{line}\n" for line in self.added), ""
            delete = argv[1] == "delete"
            source, port = (argv[6], argv[10]) if delete else (argv[5], argv[9])
            told = f"ufw allow {port}/tcp" if source == "any" else f"ufw allow from {source} to any port {port} proto tcp"
            (self.added.remove if delete else self.added.add)(f"{told} comment 'llamacpp-main'")
        if argv[0] == "systemctl":
            self.loaded = argv[1] == "restart" or (self.loaded and argv[1] != "disable")
        if argv[0] == "nft":
            return int(not self.loaded), "", ""
        return 0, "", ""

    def let_in(self) -> int:
        return len(self.in_force) + len(self.added) + self.loaded


@pytest.fixture(name="host")
def fixture_host():
    return Host()


@pytest.fixture(name="firewall")
def fixture_firewall(tmp_path, host):
    return _firewall.Firewall("main", str(tmp_path), host)


WANTED = [Rule(8443, "10.1.0.0/16"), Rule(8443, "10.2.0.1")]


def test_rules_of_ports_and_sources():
    assert _firewall.rules([8443, 8443], ["10.1.0.0/16", "localhost", "10.2.0.1"]) == WANTED
    assert _firewall.rules([9464, 8443], []) == [Rule(8443), Rule(9464)]
    assert _firewall.rules([8443], ["localhost"]) == [Rule(8443, "127.0.0.1")]
    # Firewalls show them in this form, and would be told again and again of another one.
    assert _firewall.rules([8443], ["10.1.2.3/16", "10.2.0.1/32", "10.1.0.0/16", "FD00::/8"]) == [*WANTED, Rule(8443, "fd00::/8")]


@pytest.mark.parametrize("source", ["everybody", "10.1.2.300", "10.1.2.3; drop"])
def test_source_that_is_no_address_is_refused(source):
    with pytest.raises(_firewall.FirewallError, match="is no address and no network"):
        _firewall.rules([8443], [source])


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (Rule(8443), 'rule port port="8443" protocol="tcp" accept'),
        (Rule(8443, "10.1.0.0/16"), 'rule family="ipv4" source address="10.1.0.0/16" port port="8443" protocol="tcp" accept'),
        (Rule(8443, "fd00::/8"), 'rule family="ipv6" source address="fd00::/8" port port="8443" protocol="tcp" accept'),
    ],
)
def test_rule_as_firewalld_writes_it(rule, text):
    assert _firewall.firewalld("add", rule) == ["firewall-cmd", "--permanent", "--quiet", f"--add-rich-rule={text}"]


@pytest.mark.parametrize(("rule", "source"), [(Rule(8443), "any"), (Rule(8443, "10.2.0.1"), "10.2.0.1")])
def test_rule_as_ufw_writes_it(rule, source):
    words = ["allow", "proto", "tcp", "from", source, "to", "any", "port", "8443"]
    assert _firewall.ufw(rule, "main") == ["ufw", *words, "comment", "llamacpp-main"]
    assert _firewall.ufw(rule, "main", delete=True) == ["ufw", "delete", *words]


def test_table_as_nft_reads_it():
    assert _firewall.nft_table([*WANTED, Rule(8443, "fd00::/8"), Rule(8443, "10.1.7.0/24")], "main") == TABLE


@pytest.mark.parametrize("kind", ["firewalld", "ufw", "nftables"])
def test_rules_come_once_and_go_again(tmp_path, host, firewall, kind):
    assert firewall.apply(kind, WANTED, True) is True and host.let_in() == 0
    assert firewall.apply(kind, WANTED, False) is True and host.let_in() >= 1
    host.calls.clear()
    assert firewall.apply(kind, WANTED, False) is False
    assert not any(word in call for call in host.calls for word in ("add-rich", "reload", "comment", "restart"))
    assert firewall.apply("none", [], False) is True and host.let_in() == 0
    assert list(Path(tmp_path).iterdir()) == []
    assert firewall.apply("none", [], False) is False


@pytest.mark.parametrize("kind", ["firewalld", "ufw"])
def test_source_that_is_no_longer_wanted_goes(host, firewall, kind):
    firewall.apply(kind, WANTED, False)
    assert firewall.apply(kind, WANTED[:1], False) is True and host.let_in() == 1


@pytest.mark.parametrize("kind", ["firewalld", "ufw"])
def test_rule_that_somebody_took_out_comes_again(host, firewall, kind):
    firewall.apply(kind, WANTED, False)
    host.rich.clear()
    host.added.clear()
    assert firewall.apply(kind, WANTED, False) is True and host.let_in() == 2


def test_rule_of_somebody_else_stays_when_ours_go(host, firewall):
    host.added.add("ufw allow from 10.2.0.1 to any port 8443 proto tcp")
    host.rich.add(_firewall.rich_rule(WANTED[1]))
    host.in_force = set(host.rich)
    for kind in ("ufw", "firewalld"):
        assert firewall.apply(kind, WANTED, False) is True
        assert firewall.apply(kind, WANTED, False) is False
        assert firewall.apply("none", [], False) is True
    assert host.added == {"ufw allow from 10.2.0.1 to any port 8443 proto tcp"}
    assert host.rich == host.in_force == {_firewall.rich_rule(WANTED[1])}


def test_rule_of_firewalld_that_is_not_in_force_is_put_in_force(host, firewall):
    firewall.apply("firewalld", WANTED, False)
    host.in_force.clear()  # as if the run had been cut off in between
    assert firewall.apply("firewalld", WANTED, False) is True and host.let_in() == 2


def test_rules_of_firewalld_change_without_a_reload_which_others_would_lose_theirs_by(host, firewall):
    firewall.apply("firewalld", WANTED[:1], False)
    firewall.apply("none", [], False)
    rule = f"rich-rule={_firewall.rich_rule(WANTED[0])}"
    orders = [f"firewall-cmd {place}--quiet --{order}-{rule}" for order in ("add", "remove") for place in ("--permanent ", "")]
    assert [call for call in host.calls if "--query-" not in call] == orders


def test_rules_of_a_firewalld_that_does_not_answer_are_not_taken_for_gone(host, firewall, monkeypatch):
    firewall.apply("firewalld", WANTED, False)
    monkeypatch.setattr(firewall, "_run", lambda argv: (252, "", "FirewallD is not running"))
    with pytest.raises(_firewall.FirewallError, match=r"firewall-cmd .*: FirewallD is not running"):
        firewall.apply("none", [], False)
    assert Path(firewall.record).exists()


def test_removal_that_was_cut_off_is_finished(host, firewall):
    firewall.apply("nftables", WANTED, False)
    Path(firewall.table).unlink()
    assert firewall.apply("none", [], False) is True
    assert not Path(firewall.record).exists()


def test_another_firewall_takes_over(host, firewall):
    firewall.apply("ufw", WANTED, False)
    assert firewall.apply("nftables", WANTED, False) is True
    assert (host.added, host.loaded) == (set(), True)


def test_refusal_names_the_command(firewall, monkeypatch):
    monkeypatch.setattr(firewall, "_run", lambda argv: (252, "", "FirewallD is not running"))
    with pytest.raises(_firewall.FirewallError, match=r"firewall-cmd .*: FirewallD is not running"):
        firewall.apply("firewalld", WANTED, False)
