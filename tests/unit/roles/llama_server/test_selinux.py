# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What SELinux is told of the front, with programs that note what they are asked: no test machine has SELinux."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROLE = Path(__file__).resolve().parents[4] / "roles/llama_server"
PORTS = """\
http_cache_port_t              tcp      8080, 8118, 10001-10010
http_port_t                    tcp      80, 81, 443, 8443, 9000
pegasus_http_port_t            tcp      5988, 9464
zope_port_t                    tcp      8021
"""
BOOLEAN = "setsebool -P httpd_can_network_connect 1"
PORT = "semanage port --add --type http_port_t --proto tcp {}"


@pytest.fixture(name="front")
def fixture_front(tmp_path: Path, run_role_tasks: Callable[..., Any]) -> Callable[..., tuple[str, list[str]]]:
    """Runs the tasks where SELinux is or is not; their output, and what SELinux was told."""

    def run(
        *arguments: str, boolean: str = "off", selinux: bool = True, semanage: bool = True, ports: str = PORTS
    ) -> tuple[str, list[str]]:
        note = f'echo "$(basename "$0") $*" >> {tmp_path}/told\n'
        programs = {
            "getsebool": f"echo 'httpd_can_network_connect --> {boolean}'\n",
            "setsebool": note,
            "semanage": f'[ "$2" = --add ] || {{ cat {tmp_path}/ports; exit; }}\n{note}',
        }
        (tmp_path / "ports").write_text(ports)
        if selinux:
            (tmp_path / "enforce").touch()
        variables = {
            "_llama_server_selinux": str(tmp_path / "enforce"),
            "_llama_server_semanage": str(tmp_path / "bin/semanage") if semanage else str(tmp_path / "none"),
            "llama_server_metrics": True,
        }
        done = run_role_tasks("llama_server", "front_selinux", {"one": {}}, variables, programs, *arguments)
        assert done.returncode == 0 and "failed=0" in done.stdout, done.stdout
        told = tmp_path / "told"
        return " ".join(done.stdout.split()), told.read_text().splitlines() if told.exists() else []

    return run


def test_nginx_may_reach_the_engine_and_listen(front: Any) -> None:
    # 8443 is the web's already; what has 9464 is another type.
    assert front()[1] == [BOOLEAN, PORT.format(9464)]


def test_what_is_so_already_is_not_said_again(front: Any) -> None:
    output, told = front(boolean="on", ports=PORTS.replace("9000", "9000, 9464"))
    assert told == [] and "changed=0" in output


def test_ports_are_compared_whole(front: Any) -> None:
    assert front(boolean="on", ports="http_port_t  tcp  84430, 19464, 8443\n")[1] == [PORT.format(9464)]


def test_nothing_is_asked_where_selinux_is_off(front: Any) -> None:
    output, told = front(selinux=False)
    assert told == [] and "changed=0" in output


def test_check_says_what_would_be_told(front: Any) -> None:
    output, told = front("--check")
    assert told == [] and "changed=2" in output
    assert "Would let nginx connect to the engine (setsebool -P httpd_can_network_connect 1)." in output
    assert "Would let nginx listen on 9464 (semanage port, type http_port_t)." in output


def test_check_says_what_would_be_told_by_a_program_that_is_not_there_yet(front: Any) -> None:
    output, told = front("--check", semanage=False)
    assert told == []
    assert (
        "Would let nginx listen on 8443, 9464 (semanage port, type http_port_t), once policycoreutils-python-utils is installed" in output
    )


def test_what_names_ports_is_installed_where_it_lacks() -> None:
    *_asks, block = yaml.safe_load((ROLE / "tasks/front_selinux.yml").read_text())
    task = next(task for task in block["block"] if "ansible.builtin.dnf" in task)
    assert task["ansible.builtin.dnf"] == {"name": "policycoreutils-python-utils"}
    assert task["when"] == "not __llama_server_semanage.stat.exists and not ansible_check_mode"


@pytest.mark.parametrize("selinux", [True, False])
def test_removal_names_what_stays(tmp_path: Path, run_role_tasks: Any, selinux: bool) -> None:
    if selinux:
        (tmp_path / "enforce").touch()
    variables = {"_llama_remove_selinux": str(tmp_path / "enforce"), "__llama_remove_done": {"front_ports": [8443, 9464]}}
    done = run_role_tasks("llama_remove", "selinux", {"one": {}}, variables, {})
    assert done.returncode == 0, done.stdout
    told = " ".join(done.stdout.split())
    assert ("listen on 8443, 9464" in told) == ("setsebool -P httpd_can_network_connect off" in told) == selinux
