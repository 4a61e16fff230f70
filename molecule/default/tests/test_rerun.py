# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A second run on serving hosts changes nothing, asks nobody, and is short; under load too."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from conftest import ADDRESSES, Server

MODULES_AT_MOST = 25


@contextmanager
def load(servers: list[Server]) -> Iterator[list[int]]:
    """Keeps every server busy with one completion after the other, bounded in number; counts those that came."""
    stop = threading.Event()
    counts = [0] * len(servers)

    def ask(index: int) -> None:
        for _attempt in range(500):
            if stop.is_set():
                return
            servers[index].complete(tokens=16)
            counts[index] += 1

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(len(servers))]
    for thread in threads:
        thread.start()
    try:
        yield counts
    finally:
        stop.set()
        for thread in threads:
            thread.join(timeout=320)


def test_second_run_under_load_with_the_mirror_out_of_reach(play: Any, on_host: Any) -> None:
    mirror = on_host("mirror")
    hosts = {name: on_host(name) for name in ADDRESSES}
    requests = mirror.check_output("cat /var/log/nginx/*access*.log | wc -l")
    started = {name: host.check_output("systemctl show -p MainPID --value llamacpp@main") for name, host in hosts.items()}
    with load([Server(name, host) for name, host in hosts.items()]) as counts:
        # Nothing listens on that port: a single request would fail the run.
        run = play("-vvv", "-e", "llama_model_endpoint=http://10.76.0.10:9")
    assert run.status == 0, run.output[-3000:]
    assert all(counts), "the load was not there"
    for name, host in hosts.items():
        assert run.stats[name]["changed"] == 0, name
        assert host.check_output("systemctl show -p MainPID --value llamacpp@main") == started[name]
        modules = len(re.findall(rf"^<{re.escape(ADDRESSES[name])}> (?:SSH: EXEC|PUT|FETCH)", run.output, re.MULTILINE))
        assert 0 < modules <= MODULES_AT_MOST, f"{modules} modules and transfers on {name}"
    assert mirror.check_output("cat /var/log/nginx/*access*.log | wc -l") == requests
