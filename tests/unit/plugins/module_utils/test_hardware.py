# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts read from texts and folders as hosts have them."""

from __future__ import annotations

import json
import os
import socket
import time

import pytest

from ansible_collections.onprem.llamacpp.plugins.module_utils import _hardware, _host, _processes


@pytest.mark.parametrize(
    ("text", "family", "platform"),
    [
        ('ID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n', "debian", "debian-12"),
        ("ID=debian\nVERSION_CODENAME=forky\n", "debian", "debian-forky"),
        ('ID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"\n', "debian", "ubuntu-24.04"),
        ('ID="almalinux"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.4"\n', "redhat", "almalinux-9.4"),
        ("ID=void\n", "other", "void-unknown"),
    ],
    ids=["bookworm", "testing without a number", "ubuntu", "el", "other"],
)
def test_distribution(text: str, family: str, platform: str) -> None:
    facts = _hardware.parse_os_release(text)
    assert facts["family"] == family
    assert _hardware.platform_name(facts) == platform


def test_cores_are_counted_once_for_their_threads() -> None:
    block = "processor : {}\nmodel name : EPYC\nphysical id : {}\ncore id : {}\nflags : fpu avx2 avx512f sse4_2\n\n"
    text = "".join(block.format(n, n // 4, n % 2) for n in range(8))
    facts = _hardware.parse_cpuinfo(text)
    assert (facts["threads"], facts["cores"], facts["sockets"]) == (8, 4, 2)
    assert facts["flags"] == ["avx2", "avx512f", "sse4_2"]


def test_a_tool_that_hangs_is_given_up() -> None:
    started = time.monotonic()
    status, _out, err = _host.run_command(["sleep", "60"], timeout=0.2)
    assert status == 124 and "did not answer" in err
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("locale", ["de_DE.UTF-8", "fr_FR.UTF-8", "xx_XX"])
def test_tools_speak_plain_english(monkeypatch: pytest.MonkeyPatch, locale: str) -> None:
    for name in ("LANG", "LC_ALL", "LC_NUMERIC", "LC_MESSAGES"):
        monkeypatch.setenv(name, locale)
    monkeypatch.setenv("LANGUAGE", "de:fr")
    assert _host.run_command(["sh", "-c", 'printf "%s %.1f" "$LC_ALL" 70.0'])[:2] == (0, "C 70.0")


def test_a_tool_may_print_what_is_no_text() -> None:
    assert _host.run_command(["printf", "\\377 GPU"])[:2] == (0, "\ufffd GPU")


def test_listener_is_named() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        found = _processes.listeners([port])
    assert [(entry["address"], entry["port"], entry["pid"]) for entry in found] == [("127.0.0.1", port, os.getpid())]
    assert found[0]["program"]
    assert _processes.listeners([port]) == []


def test_this_machine() -> None:
    facts = _hardware.collect(["/var/lib/llamacpp/models"], [1], engine_root="/nonexistent", model_root="/nonexistent")
    assert facts["schema_version"] == 2
    assert facts["memory"]["total"] > 0 and facts["memory"]["bandwidth"]["bytes_per_second"] > 0
    assert facts["cpu"]["threads"] > 0 and facts["disks"][0]["total"] > 0
    json.dumps(facts)
