# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A model that four hosts bring to each other, with a fifth that sends wrong bytes, and one that comes late."""

from __future__ import annotations

import base64
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / ".collections"))
from conftest import ADDRESSES, FETCH, PADDED, QUANT, STORE, original, published

from ansible_collections.onprem.llamacpp.plugins.module_utils import _torrent

PORT = 6881
LIAR = "/root/wrong_peer.py"
INDEX = "/var/lib/llamacpp/mirror"
SWARM = ["-e", "llama_model_transport=swarm", "-e", "model=padded", "-e", f"quant={QUANT}"]


def sent(host: Any) -> int:
    """Bytes that left over the wire since the host has booted."""
    return int(host.check_output("cat /sys/class/net/host0/statistics/tx_bytes"))


def forget(host: Any) -> None:
    """Take the model from a host, and its part in the swarm."""
    host.run("systemctl stop 'llamacpp-swarm-*' 'llamacpp-fetch-*'")
    host.check_output(f"rm -rf {STORE}/{PADDED.replace('/', '--')}")


def size(hub: Any) -> int:
    return int(hub.check_output(f"du -cb /srv/models/{PADDED}/{QUANT}/*.gguf | tail -n 1").split()[0])


@pytest.fixture(scope="module", autouse=True)
def torrents(play: Any) -> None:
    """The mirror makes torrents of what it holds."""
    done = play("-e", "llama_mirror_torrents=true", "-e", "model=padded", "-e", f"quant={QUANT}", playbook="playbooks/mirror.yml")
    assert done.status == 0, done.output


@pytest.fixture
def liar(on_host: Any) -> Iterator[Any]:
    """Host d answers every request for a piece with wrong bytes."""
    host = on_host("d")
    forget(host)
    code = (ROOT / "molecule/weights/tests/wrong_peer.py").read_text()
    host.check_output(f"cat > {LIAR} <<'END'\n{code}\nEND")
    encoded = on_host("mirror").check_output(f"base64 --wrap=0 {INDEX}/torrents/$(ls {INDEX}/api/{PADDED})/{QUANT}.torrent")
    data = base64.b64decode(encoded)
    info_hash = hashlib.sha1(_torrent.encode(_torrent.decode(data)["info"])).hexdigest()
    command = f"python3 {LIAR} {info_hash} {len(_torrent.read(data).pieces)} {PORT}"
    host.check_output(f"systemd-run --unit=wrong-peer -p StandardOutput=file:{LIAR}.log {command}")
    yield host
    host.run("systemctl stop wrong-peer")


def test_four_hosts_bring_it_to_each_other(play: Any, on_host: Any) -> None:
    hosts, mirror, hub = [on_host(name) for name in ADDRESSES], on_host("mirror"), on_host("hub")
    for host in hosts:
        forget(host)
    before = sent(mirror)
    done = play(*SWARM, playbook=FETCH)
    assert done.status == 0, done.output
    for host in hosts:
        assert published(host, PADDED) == original(hub, PADDED)
    assert sent(mirror) - before < 1.5 * size(hub)


def test_a_host_that_comes_late_gets_it_from_the_others(play: Any, on_host: Any) -> None:
    late, mirror, hub = on_host("a"), on_host("mirror"), on_host("hub")
    forget(late)
    before = sent(mirror)
    done = play(*SWARM, "--limit", "a", playbook=FETCH)
    assert done.status == 0, done.output
    assert published(late, PADDED) == original(hub, PADDED)
    assert sent(mirror) - before < 0.5 * size(hub)


def test_a_peer_that_sends_wrong_bytes_harms_nobody(play: Any, on_host: Any, liar: Any) -> None:
    hosts, hub = [on_host(name) for name in "abc"], on_host("hub")
    for host in hosts:
        forget(host)
    # So slowly from the mirror that nobody has all of it before the liar was asked.
    done = play(*SWARM, "--limit", "a,b,c", "-e", "llama_model_rate_limit=5000000", playbook=FETCH)
    assert done.status == 0, done.output
    for host in hosts:
        assert published(host, PADDED) == original(hub, PADDED)
    assert liar.file(f"{LIAR}.log").size > 0


def test_a_host_without_libtorrent_takes_it_from_the_mirror(play: Any, on_host: Any) -> None:
    host, hub = on_host("a"), on_host("hub")
    forget(host)
    host.check_output("cd /usr/lib/python3/dist-packages && mkdir away && mv libtorrent*.so away")
    try:
        done = play(*SWARM, "--limit", "a", playbook=FETCH)
    finally:
        host.check_output("cd /usr/lib/python3/dist-packages && mv away/* . && rmdir away")
    assert done.status == 0, done.output
    assert "a takes what is missing from the mirror: no Python of this host has libtorrent" in done.text
    assert published(host, PADDED) == original(hub, PADDED)


def test_a_model_that_is_removed_is_given_no_longer(play: Any, on_host: Any) -> None:
    host = on_host("b")
    units = "systemctl list-units --plain --no-legend --state=active 'llamacpp-swarm-seed-*'"
    assert len(host.check_output(units).splitlines()) == 1
    done = play(*SWARM, "--limit", "b", "-e", "llama_model_state=absent", playbook=FETCH)
    assert done.status == 0, done.output
    assert not published(host, PADDED)
    assert not host.check_output(units)
