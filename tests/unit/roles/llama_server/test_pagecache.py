# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading the new model ahead: how much, why, and what of it is in the journal."""

from __future__ import annotations

import os
import time

import pytest
from switch_host import NEW, OLD, files, pagecache, preflight

GB = 10**9
# size, available, mapped by the server that runs, planned beside the weights, load mode, seconds -> bytes, words
CHOICES = {
    "all-of-it": ((381 * GB, 700 * GB, 200 * GB, 20 * GB, "none", 1800), 381 * GB, "700.0 GB are available"),
    "a-part": ((381 * GB, 500 * GB, 200 * GB, 20 * GB, "mmap", 1800), 280 * GB, "only a part fits: 500.0 GB are available"),
    "running-server-keeps-its-pages": ((381 * GB, 400 * GB, 390 * GB, 20 * GB, "mmap", 1800), 0, "no room"),
    "exactly": ((300, 620, 300, 20, "", 1800), 300, "available"),
    "past-the-cache": ((300, 10**6, 0, 0, "dio", 1800), 0, "past the page cache"),
    "not-wished": ((300, 10**6, 0, 0, "none", 0), 0, "llama_server_warm_seconds is 0"),
}


@pytest.mark.parametrize(("given", "size", "words"), CHOICES.values(), ids=CHOICES)
def test_choice(given, size, words):
    choice = pagecache.choose(*given)
    assert choice.size == size and words in choice.why


def test_memory_as_the_kernel_tells_it(tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal: 900 kB\nMemAvailable:   700 kB\n")
    (tmp_path / "7").mkdir()
    (tmp_path / "7/status").write_text("Name:\tllama-server\nRssAnon:\t  5 kB\nRssFile:\t  3 kB\n")
    assert (pagecache.available_memory(tmp_path), pagecache.mapped_memory(7, tmp_path)) == (700 * 1024, 3 * 1024)
    assert (pagecache.available_memory(tmp_path / "7"), pagecache.mapped_memory(8, tmp_path)) == (0, 0)


def model(folder, sizes):
    for number, size in enumerate(sizes, 1):
        (folder / f"K2-Q2-{number:05}-of-{len(sizes):05}.gguf").write_bytes(b"x" * size)
    (folder / "K2-Q4-00001-of-00001.gguf").write_bytes(b"x" * 999)
    (folder / "manifest.json").write_text("{}")
    return folder / f"K2-Q2-00001-of-{len(sizes):05}.gguf"


def test_shards_of_a_model_and_of_no_other(tmp_path):
    first = model(tmp_path, (5, 6, 7))
    assert [path.stat().st_size for path in pagecache.shards(first)] == [5, 6, 7]
    assert pagecache.shards(tmp_path / "K2.gguf") == [tmp_path / "K2.gguf"]


BOUNDS = {"all": (18, 60.0, 18), "a-part": (8, 60.0, 8), "no-time": (18, 0.0, 0)}


@pytest.mark.parametrize(("size", "seconds", "done"), BOUNDS.values(), ids=BOUNDS)
def test_reading_ends_with_size_or_time(tmp_path, monkeypatch, size, seconds, done):
    monkeypatch.setattr(pagecache, "BLOCK", 4)
    told = []
    assert pagecache.warm(model(tmp_path, (5, 6, 7)), size, seconds, told.append) == done
    assert bool(told) is bool(done)


def test_file_that_goes_away_ends_the_reading(tmp_path):
    assert pagecache.warm(tmp_path / "nothing.gguf", 100, 60.0, print) == 0


def test_reading_goes_behind_everybody_and_leaves_no_trace(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(pagecache.subprocess, "run", lambda argv, **_options: asked.append(argv))
    pagecache.warm(model(tmp_path, (5,)), 5, 60.0, lambda _text: None)
    assert asked == [["ionice", "-c", "3", "-p", str(os.getpid())], ["ionice", "-c", "0", "-p", str(os.getpid())]]


def test_new_model_is_read_while_the_old_one_serves(serving, monkeypatch):
    seen = []
    real = preflight.pagecache.warm

    def look(*arguments):
        seen.append((serving.links(), serving.systemd.active, serving.systemd.calls.count("restart")))
        return real(*arguments)

    restarts = serving.systemd.calls.count("restart")
    monkeypatch.setattr(preflight.pagecache, "warm", look)
    serving.deploy(NEW, warm_seconds=60, load_mode="none")
    journal = serving.run(NEW)
    assert journal["state"] == "committed"
    assert [(links[0], active, count) for links, active, count in seen] == [(OLD, "active", restarts)]
    assert journal["warmed"]["bytes"] == journal["warmed"]["of"] == 4
    assert "are available" in journal["warmed"]["why"]


def test_way_back_at_once_and_a_first_deployment_read_nothing(host):
    host.deploy(OLD, warm_seconds=60)
    assert host.run(OLD)["warmed"] == {}
    host.deploy(NEW, warm_seconds=60)
    assert host.run(NEW, ahead=False)["warmed"] == {}


def test_server_that_is_down_is_not_waited_for(serving):
    serving.systemd.stop()
    serving.deploy(NEW, warm_seconds=60)
    assert serving.run(NEW)["warmed"]["why"] == "nothing serves that could be interrupted"


# -- the gap


def slow(monkeypatch, host, seconds):
    """Restarts take a while."""
    real = host.systemd.restart

    def restart():
        time.sleep(seconds)
        real()

    monkeypatch.setattr(host.systemd, "restart", restart)


def test_gap_is_counted_from_the_stop_to_the_first_answer(serving, monkeypatch):
    slow(monkeypatch, serving, 0.3)
    serving.deploy(NEW)
    journal = serving.run(NEW)
    assert 0.3 <= journal["gap_seconds"] < 2
    assert journal["gate"]["gap_seconds"] == serving.record(NEW, "gate.json")["gap_seconds"] == journal["gap_seconds"]
    assert journal["progress"] == f"committed, after {journal['gap_seconds']:.1f} s without service"


def test_gap_of_an_undone_switch_lasts_until_the_old_one_answers(serving, monkeypatch):
    slow(monkeypatch, serving, 0.3)
    serving.deploy(NEW, "gibberish")
    journal = serving.run(NEW)
    assert journal["state"] == "undone" and 0.6 <= journal["gap_seconds"] < 4
    assert journal["progress"].startswith(f"undone: {OLD} serves again, after ")


def test_no_gap_where_nothing_was_served_or_stopped(host):
    host.deploy(OLD)
    assert host.run(OLD)["gap_seconds"] is None
    assert host.run(OLD)["gap_seconds"] is None
    host.systemd.stop()
    assert host.run(OLD)["gap_seconds"] is None


def test_interrupted_before_anything_was_changed_the_server_is_left_alone(serving):
    serving.deploy(NEW)
    serving.switch().record(**{"state": "prepared", "to": NEW, "from": OLD, "previous_before": serving.links()[1], "reason": ""})
    before = serving.systemd.calls.count("restart")
    assert serving.switch().recover() is True
    assert serving.systemd.calls.count("restart") == before
    assert files.read_json(serving.layout.journal)["serving"] == OLD
