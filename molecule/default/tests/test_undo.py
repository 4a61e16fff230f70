# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes wrong after the plan leaves the old deployment serving; what goes right replaces it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from conftest import Server

REPOSITORY = "/srv/models/onprem/Tiny-Kimi-K2-GGUF"


@pytest.fixture
def bookworm(on_host: Any) -> Any:
    return on_host("bookworm")


def published(host: Any) -> list[str]:
    return host.check_output("find /var/lib/llamacpp/models -name manifest.json | sort").split()


def test_a_flipped_byte_is_told_and_never_published(play: Any, on_host: Any, bookworm: Any) -> None:
    mirror = on_host("mirror")
    shard = f"{REPOSITORY}/UD-TQ1_0/Tiny-Kimi-K2-UD-TQ1_0-00002-of-00003.gguf"
    good = mirror.file(shard).sha256sum
    answer = Server("bookworm", bookworm).complete()
    before = published(bookworm)
    flip = "import sys; f=open(sys.argv[1],'r+b'); f.seek(5000); b=f.read(1); f.seek(5000); f.write(bytes([b[0]^1]))"
    mirror.check_output(f'touch -r {shard} /tmp/stamp && python3 -c "{flip}" {shard} && touch -r /tmp/stamp {shard}')
    try:
        bad = mirror.file(shard).sha256sum
        run = play("--limit", "bookworm", "-e", "quant=UD-TQ1_0")
    finally:
        mirror.check_output(f'python3 -c "{flip}" {shard} && touch -r /tmp/stamp {shard}')
    assert mirror.file(shard).sha256sum == good
    assert run.status != 0
    for part in ("Tiny-Kimi-K2-UD-TQ1_0-00002-of-00003.gguf", good, bad):
        assert part in run.text
    assert published(bookworm) == before
    assert Server("bookworm", bookworm).complete() == answer


def test_a_model_that_does_not_load_is_undone_with_the_log_in_the_error(play: Any, bookworm: Any) -> None:
    server = Server("bookworm", bookworm)
    answer = server.complete()
    before = bookworm.check_output("readlink /etc/llamacpp/instances/main/current")
    starts = "journalctl --no-pager -o cat -u llamacpp@main | grep -c '^Started '"
    started = int(bookworm.check_output(starts))
    # With its header read first it would have been refused, see below.
    run = play("--limit", "bookworm", "-e", "quant=Q8_0", "-e", "llama_plan_read_headers=false")
    assert run.status != 0
    assert re.search(r"invalid magic|failed to load model|error loading model", run.text)
    assert bookworm.check_output("readlink /etc/llamacpp/instances/main/current") == before
    assert server.complete() == answer
    # Once the new one, once the old one again: nothing loops.
    assert int(bookworm.check_output(starts)) == started + 2


def test_a_quant_whose_name_is_part_of_others_is_the_exact_one_and_the_way_back_needs_no_download(
    play: Any, bookworm: Any, on_host: Any
) -> None:
    server = Server("bookworm", bookworm)
    answer = server.complete()
    run = play("--limit", "bookworm", "-e", "quant=Q2_K")
    assert run.status == 0, run.output[-3000:]
    folder = bookworm.check_output("readlink -f /etc/llamacpp/instances/main/current/model")
    assert sorted(bookworm.file(folder).listdir()) == ["Tiny-Kimi-K2-Q2_K.gguf", "manifest.json"]
    assert server.complete() != answer

    mirror = on_host("mirror")
    requests = mirror.check_output("cat /var/log/nginx/*access*.log | wc -l")
    assert play("--limit", "bookworm").status == 0
    assert mirror.check_output("cat /var/log/nginx/*access*.log | wc -l") == requests
    assert server.complete() == answer
