# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The mirror fetches once for its site, hosts find it by themselves, and the Hub's own clients take it for a Hub."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import ADDRESSES, FETCH, HUB, MIRROR, PADDED, QUANT, STORE, TINY, original, published, requests
from plays import tree

HELD = [(TINY, "UD-TQ1_0"), (TINY, QUANT), (PADDED, QUANT)]


def test_every_byte_left_upstream_once(on_host: Any) -> None:
    hub = on_host("hub")
    sent: Counter[str] = Counter()
    for request in requests(hub):
        if request.client == MIRROR and request.method == "GET":
            sent[Path(request.path).name] += request.sent
    for repo, quant in HELD:
        for line in hub.check_output(f"find /srv/models/{repo}/{quant} -name '*.gguf' -printf '%f %s\\n'").splitlines():
            name, size = line.split()
            assert sent.pop(name) == int(size), name
    assert not sent


def test_no_host_of_the_site_has_reached_the_hub(on_host: Any) -> None:
    assert not {request.client for request in requests(on_host("hub"))} & set(ADDRESSES.values())


@pytest.mark.parametrize("name", sorted(ADDRESSES))
def test_published_bytes_are_those_of_the_hub(on_host: Any, name: str) -> None:
    found = published(on_host(name), TINY)
    assert found and found == original(on_host("hub"), TINY)


def test_a_second_run_asks_nothing_and_changes_nothing(play: Any, on_host: Any) -> None:
    mirror = on_host("mirror")
    asked, before = len(requests(mirror)), {name: tree(on_host(name)) for name in ADDRESSES}
    run = play(playbook=FETCH)
    assert run.status == 0, run.output[-3000:]
    assert {run.stats[name]["changed"] for name in ADDRESSES} == {0}
    assert len(requests(mirror)) == asked
    assert {name: tree(on_host(name)) for name in ADDRESSES} == before


def test_checking_another_quant_says_what_would_be_fetched_and_from_where(play: Any, on_host: Any) -> None:
    host = on_host("a")
    before = tree(host)
    run = play("--check", "--diff", "--limit", "a", "-e", "quant=UD-TQ1_0", playbook=FETCH)
    assert run.status == 0, run.output[-3000:]
    assert run.stats["a"]["changed"] > 0
    assert f"Would download 3 files, 22.4 MB of 22.4 MB, from http://{MIRROR}" in run.text
    assert tree(host) == before


def test_filling_the_mirror_again_asks_upstream_nothing(play: Any, on_host: Any) -> None:
    hub, mirror = on_host("hub"), on_host("mirror")
    asked, before = len(requests(hub)), tree(mirror)
    run = play("-e", "model=padded", playbook="playbooks/mirror.yml")
    assert run.status == 0, run.output[-3000:]
    assert run.stats["mirror"]["changed"] == 0
    assert len(requests(hub)) == asked
    assert tree(mirror) == before


def test_checking_what_the_mirror_would_fetch_changes_nothing(play: Any, on_host: Any) -> None:
    mirror = on_host("mirror")
    before = tree(mirror)
    run = play("--check", "-e", "model=tiny", "-e", "quant=UD-Q4_K_XL", playbook="playbooks/mirror.yml")
    assert run.status == 0, run.output[-3000:]
    assert f"from http://{HUB}" in run.text and "Would download 3 files" in run.text
    assert tree(mirror) == before


def test_wishes_that_no_repository_meets_are_told_together(play: Any) -> None:
    wish = [{"model": "tiny", "quants": ["UD-Q9"]}, {"repo_id": "onprem/Nothing", "quants": ["Q2_K"]}]
    run = play("-e", json.dumps({"llama_mirror_models": wish}), playbook="playbooks/mirror.yml")
    assert run.status != 0
    assert f"{TINY} has no quant UD-Q9. It has, smallest first:" in run.text
    assert f"onprem/Nothing at http://{HUB} does not exist (HTTP 404)" in run.text


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        pytest.param(
            {"llama_site": "elsewhere", "llama_model_transport": "mirror"},
            "the site elsewhere has no mirror. Hosts of the group llama_mirrors: mirror (plant).",
            id="a site without a mirror",
        ),
        pytest.param(
            {"llama_model_directory": "/mnt/nothing"},
            "llama_model_directory is /mnt/nothing, which is not a directory on this host",
            id="no folder",
        ),
    ],
)
def test_a_source_that_is_not_there_is_named(play: Any, on_host: Any, tmp_path: Path, variables: dict[str, str], told: str) -> None:
    more = tmp_path / "more.json"
    more.write_text(json.dumps({"gpu_hosts": {"hosts": {"a": variables}}}))
    before = tree(on_host("a"))
    run = play("-i", str(more), "--limit", "a", "-e", "quant=UD-TQ1_0", playbook=FETCH)
    assert run.status != 0
    assert told in run.text
    assert tree(on_host("a")) == before


def test_curl_fetches_a_range(on_host: Any, tmp_path: Path) -> None:
    name = sorted(original(on_host("hub"), TINY))[0]
    url = f"http://{MIRROR}/{TINY}/resolve/main/{QUANT}/{name}"
    whole, part = (
        subprocess.run(["curl", "-sf", *options, url], capture_output=True, check=True).stdout for options in ([], ["-r", "1000-1999"])
    )
    assert part == whole[1000:2000]


def test_blocks_are_served_for_what_lies_in_a_directory(on_host: Any) -> None:
    name, digest = next(iter(original(on_host("hub"), TINY).items()))
    answer = subprocess.run(["curl", "-sf", f"http://{HUB}/api/blocks/{digest}.json"], capture_output=True, check=True).stdout
    assert json.loads(answer)["blocks"] == [digest], name


def test_a_mirror_whose_disk_has_flipped_a_byte_is_told_and_repaired(play: Any, on_host: Any) -> None:
    host, mirror, hub = on_host("c"), on_host("mirror"), on_host("hub")
    shard = f"{STORE}/{TINY.replace('/', '--')}/*/UD-TQ1_0/*-00002-of-00003.gguf"
    mirror.check_output(f"printf X | dd of=$(ls {shard}) bs=1 seek=100000 conv=notrunc status=none")
    arguments = ("--limit", "c", "-e", "quant=UD-TQ1_0", "-e", "llama_model_transport=mirror")
    run = play(*arguments, playbook=FETCH)
    assert run.status != 0
    assert f"from http://{MIRROR} is not the published file" in run.text
    assert not published(host, TINY, "UD-TQ1_0")

    run = play("-e", "llama_mirror_refresh=true", "-e", "llama_model_verify=full", playbook="playbooks/mirror.yml")
    assert run.status == 0, run.output[-3000:]
    assert published(mirror, TINY, "UD-TQ1_0") == original(hub, TINY, "UD-TQ1_0")
    run = play(*arguments, playbook=FETCH)
    assert run.status == 0, run.output[-3000:]
    assert published(host, TINY, "UD-TQ1_0") == original(hub, TINY, "UD-TQ1_0")
