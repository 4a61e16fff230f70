# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The transfer against sources that misbehave: what is published is right, or nothing is."""

from __future__ import annotations

import errno
import json
import os
import threading
import time

import pytest
from hub_server import COMMIT, REPO_ID, Hub

from ansible_collections.onprem.llamacpp.plugins.module_utils import (
    _blocks,
    _connections,
    _file_state,
    _files,
    _journal,
    _part,
    _segments,
    _supply,
    _transfer,
)
from ansible_collections.onprem.llamacpp.plugins.module_utils._http import PROXY_NAMES, TransferError

MIB = 2**20
DATA = bytes(range(251)) * 80_000  # 20 MB: five segments
STEP = 4 * MIB
NAME = "Q2_K/M-Q2_K-00001-of-00002.gguf"
BASE = os.path.basename(NAME)
SECOND = "Q2_K/M-Q2_K-00002-of-00002.gguf"


@pytest.fixture
def hub():
    made = Hub({NAME: DATA, SECOND: b"small"})
    yield made
    made.close()


@pytest.fixture
def storage():
    made = Hub({NAME: DATA, SECOND: b"small"})
    yield made
    made.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(_supply, "BACKOFF_SECONDS", 0.001)
    for name in PROXY_NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def source(hub):
    if isinstance(hub, Hub):
        return {"transport": "hub", "url": hub.url}
    return {"transport": "hub" if str(hub).startswith("http") else "directory", "url": str(hub)}


def fetch(hubs, staging, files=None, private=None, **options):
    hubs = hubs if isinstance(hubs, list) else [hubs]
    job = {
        "sources": [source(hub) for hub in hubs],
        "repo_id": REPO_ID,
        "commit": COMMIT,
        "quant": "Q2_K",
        "files": files or next(hub for hub in hubs if isinstance(hub, Hub)).listing()[:1],
        "staging": str(staging),
        "timeout": 2.0,
        "retries": 3,
        **options,
    }
    _transfer.run_job(job, private or {})


def published(staging, name=NAME):
    return (staging / os.path.basename(name)).read_bytes()


def status(staging):
    return json.loads((staging / "status.json").read_text())


def ranges(hub):
    """Begin and end of every range that was asked for, sorted; (0, None) for a whole file."""
    found = []
    for text in hub.ranges():
        begin, _dash, end = text.removeprefix("bytes=").partition("-")
        found.append((int(begin or 0), int(end) + 1 if end else None))
    return found


def test_two_files(hub, tmp_path):
    fetch(hub, tmp_path, hub.listing())
    assert published(tmp_path) == DATA
    assert published(tmp_path, SECOND) == b"small"
    names = [os.path.basename(name) + end for name in (NAME, SECOND) for end in ("", ".blocks.json")]
    assert sorted(os.listdir(tmp_path)) == sorted([*names, "status.json"])
    found = status(tmp_path)
    assert (found["state"], found["bytes_done"], found["bytes_total"]) == ("done", len(DATA) + 5, len(DATA) + 5)


def test_every_byte_is_asked_for_once_over_several_connections(hub, tmp_path):
    hub.always = "drip"
    fetch(hub, tmp_path, connections=3)
    asked = sorted(ranges(hub))
    assert [asked[0][0], *(end for _begin, end in asked)] == [begin for begin, _end in asked] + [len(DATA)]
    assert len(asked) == 5
    assert hub.connections == 3


@pytest.mark.parametrize("connections", [1, 4])
@pytest.mark.parametrize(
    "faults",
    [
        pytest.param(["truncate"], id="truncated body"),
        pytest.param([None, "ignore range"], id="range answered with the whole file"),
        pytest.param([416, "truncate", "truncate"], id="whole file cut short"),
        pytest.param(["truncate", "wrong range"], id="wrong Content-Range"),
        pytest.param(["truncate", 416, "ignore range"], id="range refused"),
        pytest.param(["drop", "drop"], id="connection dropped"),
        pytest.param([500, 502, 503], id="server errors"),
        pytest.param(["stall"], id="source that falls silent"),
        pytest.param(["trickle"], id="source that drips"),
        pytest.param(["truncate", "no etag"], id="no ETag"),
        pytest.param(["flip"], id="flipped bytes on the wire"),
    ],
)
def test_passing_faults_end_in_the_right_bytes(hub, tmp_path, faults, connections):
    hub.faults = list(faults)
    # Only those that must run into it: a busy machine answers late too.
    timeout = 2.0 if {"stall", "trickle"} & set(map(str, faults)) else 20.0
    fetch(hub, tmp_path, timeout=timeout, connections=connections, retries=8)
    assert published(tmp_path) == DATA
    assert hub.faults == []
    assert status(tmp_path)["bytes_done"] == len(DATA)


def test_a_source_without_ranges_is_read_as_one_stream(hub, tmp_path):
    hub.always = "ignore range"
    fetch(hub, tmp_path)
    assert published(tmp_path) == DATA
    assert len(hub.requests) == 1


def test_a_file_that_changed_between_attempts_is_started_again(hub, tmp_path):
    old = bytes(len(DATA))
    listing = hub.listing()[:1]
    hub.files[NAME], hub.etags[NAME], hub.always = old, '"old"', None
    hub.faults = ["truncate", *[404] * 9]
    with pytest.raises(TransferError):
        fetch(hub, tmp_path, listing, connections=1)
    assert json.loads((tmp_path / f"{BASE}.part.json").read_text())["received"] == [[0, STEP // 2]]
    hub.files[NAME], hub.etags[NAME], hub.faults = DATA, '"new"', []
    begun = len(hub.requests)
    fetch(hub, tmp_path, listing, connections=1)
    assert published(tmp_path) == DATA
    assert hub.requests[begun][2]["If-Range"] == '"old"'
    assert ranges(hub)[begun][0] == STEP // 2
    assert ranges(hub)[begun + 1][0] == 0


def test_bytes_of_the_old_file_that_are_written_late_do_not_replace_those_of_the_new_one(hub, tmp_path, monkeypatch):
    wanted, woken, write = hub.listing()[:1], threading.Event(), _part.Part.write
    hub.files[NAME], hub.etags[NAME] = b"\xff" * len(DATA), '"old"'

    def change():
        time.sleep(0.3)  # until the writing of the old file has begun
        hub.files[NAME], hub.etags[NAME] = DATA, '"new"'

    def wake():
        time.sleep(0.3)  # until what has come of the new file is hashed
        woken.set()
        time.sleep(0.3)

    def late(part, position, *more):
        if position == MIB and hub.files[NAME] != DATA:
            assert woken.wait(20)
        return write(part, position, *more)

    monkeypatch.setattr(_part.Part, "write", late)
    hub.faults = [None, change, None, None, None, None, wake]
    fetch(hub, tmp_path, wanted, connections=2)
    assert hub.faults == []
    assert published(tmp_path) == DATA


def test_servers_that_disagree_about_the_etag_are_borne(hub, tmp_path):
    class Fickle(dict):
        def get(self, _path, _otherwise):
            return f'"{time.monotonic_ns()}"'

    hub.etags = Fickle()
    fetch(hub, tmp_path, retries=8)
    assert published(tmp_path) == DATA
    assert hub.sent < 6 * len(DATA)


def test_retry_after_is_respected(hub, tmp_path):
    hub.faults = [(429, 1)]
    began = time.monotonic()
    fetch(hub, tmp_path, connections=1)
    assert published(tmp_path) == DATA
    assert time.monotonic() - began >= 1.0


@pytest.mark.parametrize(
    ("always", "told"),
    [
        pytest.param(401, ["HTTP 401", "llama_model_token"], id="401"),
        pytest.param(403, ["HTTP 403", "llama_model_token"], id="403"),
        pytest.param(404, ["HTTP 404", "fresh listing"], id="404"),
        pytest.param(500, ["HTTP 500. 4 attempts in a row", "it goes on from here"], id="500 without end"),
        pytest.param((503, 86400), ["come back in 86400 s"], id="Retry-After of a day"),
        pytest.param((503, "\u00b2"), ["HTTP 503. 4 attempts in a row"], id="Retry-After that is no number"),
        pytest.param("other size", ["offers 20080001 bytes, expected 20080000"], id="other size"),
        pytest.param("other hash", ["another file, sha256 " + "f" * 64], id="source names another hash"),
        pytest.param(("redirect", "ftp://127.0.0.1"), ["redirects to ftp://127.0.0.1"], id="redirect to another protocol"),
    ],
)
def test_final_faults_are_told_in_one_line(hub, tmp_path, always, told):
    hub.always = always
    with pytest.raises(TransferError) as caught:
        fetch(hub, tmp_path)
    assert "\n" not in str(caught.value)
    for text in told:
        assert text in str(caught.value)
    assert not (tmp_path / BASE).exists()
    assert status(tmp_path)["state"] == "failed"
    assert status(tmp_path)["error"] == str(caught.value)


def test_a_source_that_stays_wrong_is_asked_twice_and_nothing_is_left(hub, tmp_path):
    hub.damaged = {len(DATA) // 2}
    with pytest.raises(TransferError) as caught:
        fetch(hub, tmp_path)
    damaged = bytearray(DATA)
    damaged[len(DATA) // 2] ^= 1
    for text in (NAME, hub.listing()[0]["sha256"], Hub({NAME: bytes(damaged)}).listing()[0]["sha256"], "Nothing was published"):
        assert text in str(caught.value)
    assert os.listdir(tmp_path) == ["status.json"]
    assert 2 * len(DATA) <= hub.sent <= 2 * len(DATA) + 4 * MIB
    assert "is fetched again, since no source knows its blocks" in status(tmp_path)["note"]


def damage_part(staging, position):
    with open(staging / f"{BASE}.part", "r+b") as stream:
        stream.seek(position)
        byte = stream.read(1)[0]
        stream.seek(position)
        stream.write(bytes([byte ^ 1]))


def test_damage_on_disk_without_blocks_is_fetched_again_once_and_told(hub, tmp_path):
    hub.faults = [None, *[404] * 9]
    with pytest.raises(TransferError):
        fetch(hub, tmp_path, connections=1)
    damage_part(tmp_path, 7)
    hub.faults = []
    fetch(hub, tmp_path)
    assert published(tmp_path) == DATA
    assert "is fetched again, since no source knows its blocks" in status(tmp_path)["note"]
    assert status(tmp_path)["bytes_done"] == len(DATA)


@pytest.mark.parametrize(("boot", "begin"), [("the same", 2 * STEP), ("another", STEP)])
def test_after_a_crash_of_the_host_only_what_was_synced_counts(hub, tmp_path, monkeypatch, boot, begin):
    hub.faults = [None, None, *[404] * 9]
    with pytest.raises(TransferError):
        fetch(hub, tmp_path, connections=1)
    path = tmp_path / f"{BASE}.part.json"
    journal = json.loads(path.read_text())
    assert journal["received"] == [[0, 2 * STEP]]
    journal["synced"] = [[0, STEP]]
    path.write_text(json.dumps(journal))
    if boot == "another":
        monkeypatch.setattr(_journal, "boot_id", lambda: "another boot")
    hub.faults = []
    begun = len(hub.requests)
    fetch(hub, tmp_path)
    assert published(tmp_path) == DATA
    assert min(ranges(hub)[begun:])[0] == begin


def test_what_is_synced_beside_the_transfer_is_noted(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(_part, "SAVE_BYTES", MIB)
    monkeypatch.setattr(_connections, "SYNC_BYTES", MIB)
    hub.faults = [None, None, None, "stall", *[404] * 9]
    with pytest.raises(TransferError):
        fetch(hub, tmp_path, connections=1, timeout=0.6)
    for end in ("", ".synced"):
        assert json.loads((tmp_path / f"{BASE}.part{end}.json").read_text())["synced"][0][0] == 0


def test_a_part_of_another_file_is_not_used(hub, tmp_path):
    hub.faults = [None, *[404] * 9]
    with pytest.raises(TransferError):
        fetch(hub, tmp_path, connections=1)
    hub.files[NAME], hub.faults = DATA[::-1], []
    begun = len(hub.requests)
    fetch(hub, tmp_path)
    assert published(tmp_path) == DATA[::-1]
    assert min(ranges(hub)[begun:])[0] == 0


def test_a_whole_file_is_not_asked_for_again(hub, tmp_path):
    fetch(hub, tmp_path)
    asked = len(hub.requests)
    fetch(hub, tmp_path)
    assert len(hub.requests) == asked


def test_a_whole_file_of_other_bytes_is_not_believed(hub, tmp_path):
    """A listing that was corrected: same name, same size, other hash. What noted the first one is gone with a reboot."""
    hub.files[NAME] = b"\xff" * len(DATA)
    fetch(hub, tmp_path)
    hub.files[NAME] = DATA
    fetch(hub, tmp_path)
    assert published(tmp_path) == DATA


def test_expired_signed_url_is_asked_for_again(hub, storage, tmp_path):
    hub.always = ("redirect", storage.url)
    storage.faults = [None, 403]
    fetch(hub, tmp_path, connections=1)
    assert published(tmp_path) == DATA
    assert len(hub.requests) == 2  # where the storage is, and again when it refused
    assert len(storage.requests) == 6


def test_token_goes_to_the_endpoint_only(hub, storage, tmp_path):
    hub.faults = [("redirect", hub.url), ("redirect", storage.url)]
    fetch(hub, tmp_path, private={"tokens": {hub.url: "hf_secret"}}, connections=1)
    assert {headers.get("Authorization") for _m, _p, headers in hub.requests} == {"Bearer hf_secret"}
    assert {headers.get("Authorization") for _m, _p, headers in storage.requests} == {None}
    assert b"hf_secret" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


def test_proxy_is_used_and_no_proxy_is_respected(hub, tmp_path):
    private = {"environment": {"http_proxy": hub.url}}
    fetch("http://hub.invalid", tmp_path, hub.listing()[:1], private)
    assert hub.requests[0][1].startswith("http://hub.invalid/")
    (tmp_path / "direct").mkdir()
    fetch(hub, tmp_path / "direct", private={"environment": {"http_proxy": "http://127.0.0.1:9", "no_proxy": "127.0.0.1"}})
    assert published(tmp_path / "direct") == DATA


UNKNOWN = [{"path": NAME, "size": 5, "sha256": "0" * 64}]


def test_unreachable_source(tmp_path):
    with pytest.raises(TransferError) as caught:
        fetch("http://127.0.0.1:9", tmp_path, UNKNOWN)
    assert "127.0.0.1:9 cannot be reached: Connection refused. 4 attempts in a row" in str(caught.value)


def test_a_dead_proxy_is_named_without_its_password(tmp_path):
    environment = {"http_proxy": "http://me:word@127.0.0.1:9"}
    with pytest.raises(
        TransferError, match=r"hub\.invalid cannot be reached through the proxy 127\.0\.0\.1:9: Connection refused"
    ) as caught:
        fetch("http://hub.invalid", tmp_path, UNKNOWN, {"environment": environment})
    assert "word" not in str(caught.value)


def test_unreadable_ca_bundle(hub, tmp_path):
    with pytest.raises(TransferError, match=r"CA bundle /nowhere/ca\.pem cannot be read"):
        fetch(hub, tmp_path, private={"environment": {"SSL_CERT_FILE": "/nowhere/ca.pem"}})


def test_full_disk_keeps_what_has_arrived_and_says_how_much_is_still_to_come(hub, tmp_path, monkeypatch):
    write = _part.Part.write

    def full(self, position, view, *more):
        if position >= 2 * STEP:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, position, view, *more)

    monkeypatch.setattr(_part.Part, "write", full)
    with pytest.raises(TransferError, match=rf"No space left .* {len(DATA) - 2 * STEP} bytes are still to come. What has arrived is kept"):
        fetch(hub, tmp_path, connections=1)
    assert not (tmp_path / BASE).exists()
    monkeypatch.undo()
    begun = len(hub.requests)
    fetch(hub, tmp_path)
    assert published(tmp_path) == DATA
    assert min(ranges(hub)[begun:])[0] == 2 * STEP


def test_room_that_is_not_there_is_told_before_anything_is_fetched(hub, tmp_path, monkeypatch):
    def full(_handle, _size):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(_part, "preallocate", full)
    with pytest.raises(TransferError, match=rf"No space left .* {len(DATA)} bytes are still to come"):
        fetch(hub, tmp_path)
    assert hub.requests == []


def test_read_only_file_system_is_told(hub, tmp_path, monkeypatch):
    def read_only(path, *_more, **_options):
        raise OSError(errno.EROFS, "Read-only file system", path)

    monkeypatch.setattr(_part, "write_json", read_only)
    with pytest.raises(TransferError, match=r"cannot be written: Read-only file system\."):
        fetch(hub, tmp_path)
    assert not (tmp_path / BASE).exists()


def test_a_link_in_the_staging_directory_is_not_followed(hub, tmp_path):
    staging = tmp_path / "staging"
    staging.mkdir()
    (tmp_path / "precious").write_bytes(b"x" * 10)
    (staging / f"{BASE}.part").symlink_to(tmp_path / "precious")
    fetch(hub, staging)
    assert (tmp_path / "precious").read_bytes() == b"x" * 10
    assert published(staging) == DATA


def test_a_file_gets_its_room_at_once(tmp_path):
    with open(tmp_path / "file", "w+b") as stream:
        made = _files.preallocate(stream.fileno(), 8 * MIB)
    # A file system that cannot do it says so and takes nothing.
    assert _files.room_taken(str(tmp_path / "file")) == (8 * MIB if made else 0)


def test_a_mirror_that_is_stopped_and_started_again(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(_supply, "BACKOFF_SECONDS", 0.1)
    hub.always = "stall"
    restarted = []

    def restart():
        while not hub.sent:
            time.sleep(0.1)
        time.sleep(0.5)
        hub.close()  # every connection breaks, and new ones are refused
        time.sleep(0.5)
        restarted.append(Hub(hub.files, int(hub.url.rpartition(":")[2])))

    restarting = threading.Thread(target=restart)
    restarting.start()
    fetch(hub, tmp_path, timeout=20.0, retries=8)
    restarting.join()
    restarted[0].close()
    assert published(tmp_path) == DATA
    assert restarted[0].sent < len(DATA)


def test_the_next_source_goes_on_from_the_same_journal(hub, storage, tmp_path):
    hub.faults = [None, None]
    hub.always = 500
    fetch([hub, storage], tmp_path, connections=1)
    assert published(tmp_path) == DATA
    assert min(ranges(storage))[0] == 2 * STEP
    found = status(tmp_path)
    assert found["source"] == storage.url
    assert f"{hub.url} was left" in found["note"]
    assert f"going on from {storage.url}" in found["note"]


def test_a_mirror_that_lacks_one_file_is_asked_for_the_others(hub, storage, tmp_path):
    listing = storage.listing()
    del hub.files[SECOND]
    fetch([hub, storage], tmp_path, listing, files_at_once=1)
    assert (published(tmp_path), published(tmp_path, SECOND)) == (DATA, b"small")
    assert {path.split("/")[-1] for _m, path, _h in storage.requests} == {os.path.basename(SECOND)}


def test_a_source_that_serves_wrong_bytes_is_left_for_the_next(hub, storage, tmp_path):
    hub.damaged = {5}
    fetch([hub, storage], tmp_path, storage.listing()[:1])
    assert published(tmp_path) == DATA
    assert "is not the published file" in status(tmp_path)["note"]


def test_when_no_source_is_left_each_reason_is_told(hub, tmp_path):
    hub.always = 404
    with pytest.raises(TransferError) as caught:
        fetch([hub, tmp_path / "usb"], tmp_path)
    for text in ("No source is left", "HTTP 404", f"is not in {tmp_path}/usb", "No such file or directory"):
        assert text in str(caught.value)


@pytest.mark.parametrize(
    "place",
    [NAME, BASE, f"org--Repo-GGUF/{COMMIT}/Q2_K/{BASE}"],
    ids=["as in the repository", "all in one folder", "a store of models"],
)
def test_directory(hub, tmp_path, place):
    (tmp_path / "usb" / place).parent.mkdir(parents=True)
    (tmp_path / "usb" / place).write_bytes(DATA)
    (tmp_path / "staging").mkdir()
    fetch([tmp_path / "usb", hub], tmp_path / "staging")
    assert published(tmp_path / "staging") == DATA
    assert hub.requests == []


def test_damage_in_a_directory_is_not_published(hub, tmp_path):
    (tmp_path / "usb").mkdir()
    (tmp_path / "usb" / BASE).write_bytes(b"\1" + DATA[1:])
    (tmp_path / "staging").mkdir()
    fetch([tmp_path / "usb", hub], tmp_path / "staging")
    assert published(tmp_path / "staging") == DATA
    assert hub.sent >= len(DATA)


def test_outside_of_the_window_nothing_is_fetched(hub, tmp_path, monkeypatch):
    minute = [7 * 60]
    monkeypatch.setattr("time.localtime", lambda _now: time.struct_time((2026, 1, 1, minute[0] // 60, minute[0] % 60, 0, 0, 1, 0)))
    shared = _transfer.Shared({"staging": str(tmp_path), "files": [], "sources": [], "window": "22:00-06:00"}, {})
    assert shared.closed()
    assert "until 22:00" in shared.progress.document()["note"]
    minute[0] = 23 * 60
    shared._asked = -1.0
    assert not shared.closed()
    assert shared.progress.document()["note"] == ""


def test_rate_limit_holds_over_all_connections(hub, tmp_path):
    began = time.monotonic()
    fetch(hub, tmp_path, rate_limit=10_000_000)
    assert time.monotonic() - began >= 1.6
    assert published(tmp_path) == DATA


def test_no_byte_far_ahead_of_the_hash_is_asked_for(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(_segments, "WINDOW", 8 * MIB)
    monkeypatch.setattr(_file_state, "WINDOW", 8 * MIB)
    fronts = []
    take = _segments.Segments.take

    def watched(self, limit, now):
        found = take(self, limit, now)
        if found:
            fronts.append((limit, found.end))
        return found

    monkeypatch.setattr(_segments.Segments, "take", watched)
    fetch(hub, tmp_path, connections=4)
    assert published(tmp_path) == DATA
    assert all(end <= limit for limit, end in fronts)
    assert fronts[0][0] == 8 * MIB


SMALL = 4 * MIB  # blocks of this size, so that a file of 20 MB has five


@pytest.fixture
def small_blocks(monkeypatch):
    """DATA's blocks as a manifest and a mirror know them."""
    for module in (_blocks, _part):
        monkeypatch.setattr(module, "BLOCK", SMALL)
    running = _blocks.RunningHash(len(DATA))
    while running.room():
        running.update(DATA[running.position : running.position + running.room()])
    return running.blocks


def document(blocks):
    return {"size": len(DATA), "block_size": SMALL, "blocks": blocks}


def leave_a_damaged_part(hub, tmp_path, positions):
    """All that is missing is the last segment; some of what is there is wrong."""
    hub.faults = [None, None, None, None, *[404] * 9]
    with pytest.raises(TransferError):
        fetch(hub, tmp_path, connections=1)
    for position in positions:
        damage_part(tmp_path, position)
    hub.faults, hub.requests[:] = [], []


def test_blocks_are_written_down_beside_a_file(hub, tmp_path, small_blocks):
    fetch(hub, tmp_path)
    assert json.loads((tmp_path / f"{BASE}.blocks.json").read_text()) == document(small_blocks)


def test_damage_on_disk_is_repaired_by_block_when_a_source_knows_them(hub, storage, tmp_path, small_blocks):
    leave_a_damaged_part(hub, tmp_path, [7, 2 * SMALL + 9])
    digest = hub.listing()[0]["sha256"]
    storage.blocks[digest] = document(small_blocks)
    fetch([hub, storage], tmp_path, connections=1)
    assert published(tmp_path) == DATA
    assert [path.split("/")[-1] for _m, path, _h in hub.requests if "/api/" in path] == [f"{digest}.json"]
    fetched = [pair for pair in ranges(hub) if pair[0] < 4 * STEP]
    assert fetched == [(0, SMALL), (2 * SMALL, 3 * SMALL)]
    assert "block 3 of 5" in status(tmp_path)["note"]
    assert status(tmp_path)["bytes_done"] == len(DATA)


def test_a_block_that_arrives_wrong_twice_is_taken_from_the_next_source(hub, storage, tmp_path, small_blocks):
    hub.damaged = {SMALL + 1}
    storage.blocks[storage.listing()[0]["sha256"]] = document(small_blocks)
    fetch([hub, storage], tmp_path, storage.listing()[:1], connections=1)
    assert published(tmp_path) == DATA
    assert ranges(storage) == [(SMALL, 2 * SMALL)]


def test_a_block_that_is_found_wrong_while_a_stream_passes_over_it_comes_again(hub, tmp_path, small_blocks, monkeypatch):
    leave_a_damaged_part(hub, tmp_path, [7])
    passing, read, pass_over = threading.Event(), _part.Part.read, _part.Part.write_missing

    def behind(part, position, view):
        assert passing.wait(20)
        return read(part, position, view)

    def late(part, position, view):
        pass_over(part, position, view)
        passing.set()
        until = time.monotonic() + 20
        while position == 0 and not part.losses and time.monotonic() < until:
            time.sleep(0.01)

    monkeypatch.setattr(_part.Part, "read", behind)
    monkeypatch.setattr(_part.Part, "write_missing", late)
    hub.always = "ignore range"
    fetch(hub, tmp_path, [{**hub.listing()[0], "blocks": small_blocks}], connections=1)
    assert published(tmp_path) == DATA


def test_blocks_that_are_not_of_this_file_are_not_believed(hub, tmp_path, small_blocks):
    leave_a_damaged_part(hub, tmp_path, [7])
    hub.blocks[hub.listing()[0]["sha256"]] = document([*small_blocks[:-1], "0" * 64])
    fetch(hub, tmp_path, connections=1)
    assert published(tmp_path) == DATA
    assert "no source knows its blocks" in status(tmp_path)["note"]


@pytest.fixture
def damaged_copy(tmp_path):
    """A published file with two damaged blocks, and a staging directory."""
    (tmp_path / "staging").mkdir()
    spoilt = bytearray(DATA)
    spoilt[SMALL] ^= 1
    spoilt[-1] ^= 1
    (tmp_path / "published.gguf").write_bytes(spoilt)
    return tmp_path / "published.gguf"


def test_a_published_file_is_repaired_from_its_good_blocks(hub, tmp_path, damaged_copy, small_blocks):
    before = damaged_copy.read_bytes()
    item = {**hub.listing()[0], "published": str(damaged_copy), "blocks": small_blocks}
    fetch(hub, tmp_path / "staging", [item])
    assert published(tmp_path / "staging") == DATA
    assert damaged_copy.read_bytes() == before
    assert sorted(ranges(hub)) == [(SMALL, 2 * SMALL), (4 * SMALL, len(DATA))]
    assert status(tmp_path / "staging")["intact"] == []


def test_a_published_file_whose_blocks_nobody_knows_is_fetched_again(hub, tmp_path, damaged_copy):
    fetch(hub, tmp_path / "staging", [{**hub.listing()[0], "published": str(damaged_copy)}])
    assert published(tmp_path / "staging") == DATA
    assert "is fetched again" in status(tmp_path / "staging")["note"]


def test_a_published_file_that_is_right_is_only_read(hub, tmp_path, small_blocks):
    (tmp_path / "published.gguf").write_bytes(DATA)
    (tmp_path / "staging").mkdir()
    began = time.monotonic()
    fetch(hub, tmp_path / "staging", [{**hub.listing()[0], "published": str(tmp_path / "published.gguf")}], rate_limit=20_000_000)
    assert time.monotonic() - began > 0.7  # reading has the same limit
    assert hub.requests == []
    assert sorted(os.listdir(tmp_path / "staging")) == [f"{BASE}.blocks.json", "status.json"]
    assert status(tmp_path / "staging")["intact"] == [NAME]
    assert json.loads((tmp_path / "staging" / f"{BASE}.blocks.json").read_text())["blocks"] == small_blocks
