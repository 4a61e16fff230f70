# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk of its own that cannot hold two quants: refused, replaced when asked, honest when that fails; and what is pruned."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import ADDRESSES, Server
from plays import tree

HOST = "bookworm"
DISK = "/srv/small"
LINKS = "/etc/llamacpp/instances/main"
SHARD = "/srv/models/onprem/Tiny-Kimi-K2-GGUF/UD-TQ1_0/Tiny-Kimi-K2-UD-TQ1_0-00002-of-00003.gguf"
FLIP = "import sys; f=open(sys.argv[1],'r+b'); f.seek(5000); b=f.read(1); f.seek(5000); f.write(bytes([b[0]^1]))"
# The quants have 28 and 22 MB. A mapped file keeps its room while the server runs.
SETTINGS = {"llama_model_root": f"{DISK}/models", "llama_model_buffer_bytes": 5_000_000, "llama_plan_placement": {"load_mode": "mmap"}}


def variables(**values: Any) -> list[str]:
    return ["--limit", HOST, "-e", json.dumps({**SETTINGS, **values})]


def quants(host: Any, root: str) -> list[str]:
    found: list[str] = host.check_output(f"find {root} -name manifest.json -printf '%h\\n' | xargs -r -n1 basename | sort").split()
    return found


@pytest.fixture(scope="module")
def bookworm(on_host: Any) -> Any:
    return on_host(HOST)


@pytest.fixture(scope="module")
def small_disk(play: Any, bookworm: Any) -> Iterator[str]:
    """The host serves from a disk with room for one quant; the id of that deployment. Afterwards it serves as before."""
    bookworm.check_output(f"mkdir -p {DISK} && mount -t tmpfs -o size=40m small {DISK}")
    try:
        run = play(*variables())
        assert run.status == 0, run.output[-3000:]
        yield bookworm.check_output(f"basename $(readlink {LINKS}/current)")
    finally:
        restored = play("--limit", HOST)
        bookworm.check_output(f"umount -l {DISK}")
        assert restored.status == 0, restored.output[-3000:]


def test_another_disk_is_what_the_server_waits_for(small_disk: str, bookworm: Any) -> None:
    properties = bookworm.check_output("systemctl show -p RequiresMountsFor --value llamacpp@main").split()
    assert any(path.startswith(f"{DISK}/models/") for path in properties)
    assert quants(bookworm, DISK) == ["UD-Q2_K_XL"]


def test_without_room_for_both_it_is_refused_with_the_setting_that_makes_room(small_disk: str, play: Any, bookworm: Any) -> None:
    before = tree(bookworm)
    run = play(*variables(quant="UD-TQ1_0"))
    assert run.status != 0
    assert "set llama_model_replace: in_place, which removes UD-Q2_K_XL of onprem/Tiny-Kimi-K2-GGUF" in run.text
    assert tree(bookworm) == before


def test_check_mode_says_what_would_be_replaced(small_disk: str, play: Any, bookworm: Any) -> None:
    before = tree(bookworm)
    run = play(*variables(quant="UD-TQ1_0", llama_model_replace="in_place"), "--check", "--diff")
    assert run.status == 0, run.output[-3000:]
    for said in ("going back then needs a download", "main is stopped for that", "UD-TQ1_0 would be fetched"):
        assert said in run.text
    assert tree(bookworm) == before
    assert quants(bookworm, DISK) == ["UD-Q2_K_XL"]


def test_a_failure_in_between_says_what_is_left_and_the_next_run_serves(small_disk: str, play: Any, bookworm: Any, on_host: Any) -> None:
    mirror = on_host("mirror")
    flip = f'touch -r {SHARD} /tmp/stamp && python3 -c "{FLIP}" {SHARD} && touch -r /tmp/stamp {SHARD}'
    mirror.check_output(flip)
    try:
        run = play(*variables(quant="UD-TQ1_0", llama_model_replace="in_place"))
    finally:
        mirror.check_output(flip)
    assert run.status != 0
    assert "The model that main served is no longer on this host" in run.text
    assert "main cannot be started until a model is there" in run.text
    assert bookworm.check_output("systemctl is-active llamacpp@main || true") == "inactive"
    assert quants(bookworm, DISK) == []

    run = play(*variables(quant="UD-TQ1_0", llama_model_replace="in_place"))
    assert run.status == 0, run.output[-3000:]
    assert quants(bookworm, DISK) == ["UD-TQ1_0"]
    assert Server(HOST, bookworm).complete()


def test_going_back_without_the_model_is_refused_and_changes_nothing(small_disk: str, bookworm: Any) -> None:
    assert bookworm.check_output(f"basename $(readlink {LINKS}/previous)") == small_disk
    went = bookworm.run(f"/usr/local/libexec/llamacpp/llamacpp-switch run --instance main --to {small_disk}")
    assert went.rc == 1
    journal = json.loads(bookworm.file("/var/lib/llamacpp/instances/main/switch.json").content_string)
    assert f"the model of deployment {small_disk} is not on this host" in journal["reason"]
    assert Server(HOST, bookworm).complete()


def test_what_is_not_needed_goes_and_what_serves_stays(small_disk: str, play: Any, bookworm: Any) -> None:
    store = "/var/lib/llamacpp/models/onprem--Tiny-Kimi-K2-GGUF"
    here = bookworm.check_output(f"ls {store}")
    copy = f"mkdir {store}/{'0' * 40} && cp -r {store}/{here}/UD-Q2_K_XL {store}/{'0' * 40}/ && sed -i s/{here}/{'0' * 40}/"
    bookworm.check_output(f"{copy} {store}/{'0' * 40}/UD-Q2_K_XL/manifest.json")
    prune = ("--limit", HOST, "-e", "llama_model_prune=true")
    run = play(*prune, "--diff")
    assert run.status == 0, run.output[-3000:]
    assert f"{'0' * 40}/UD-Q2_K_XL" in run.text
    assert bookworm.check_output(f"ls {store}") == here

    run = play("--limit", HOST, "--tags", "llama_model", "-e", "llama_model_state=absent")
    assert run.status != 0
    assert "instance main serves it on this host. Deploy another model there first." in run.text

    run = play(*prune, "-vvv")
    assert (run.status, run.stats[HOST]["changed"]) == (0, 0), run.output[-3000:]
    with_pruning = len(re.findall(rf"^<{re.escape(ADDRESSES[HOST])}> (?:SSH: EXEC|PUT|FETCH)", run.output, re.MULTILINE))
    assert 0 < with_pruning <= 6
