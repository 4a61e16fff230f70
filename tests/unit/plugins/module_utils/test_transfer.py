# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The transfer against a source that misbehaves: what is published is right, or nothing is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from hub_server import COMMIT, REPO_ID, Hub

from ansible_collections.onprem.llamacpp.plugins.module_utils import _source, _transfer
from ansible_collections.onprem.llamacpp.plugins.module_utils._fetch_unit import write_program

DATA = bytes(range(251)) * 40_000  # 10 MB, ten reads
NAME = "Q2_K/M-Q2_K-00001-of-00002.gguf"
SECOND = "Q2_K/M-Q2_K-00002-of-00002.gguf"


@pytest.fixture
def hub():
    made = Hub({NAME: DATA, SECOND: b"small"})
    yield made
    made.close()


@pytest.fixture
def storage():
    made = Hub({NAME: DATA})
    yield made
    made.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(_transfer, "BACKOFF_SECONDS", 0.001)


def fetch(hub, staging, files=None, pause=None, **options):
    job = {
        "endpoint": hub if isinstance(hub, str) else hub.url,
        "repo_id": REPO_ID,
        "commit": COMMIT,
        "files": files if files is not None else hub.listing()[:1],
        "staging": str(staging),
    }
    known = {"timeout": 5.0, "retries": 3, **options}
    _transfer.Fetcher(job, _source.Options(**known), pause or (lambda _seconds: None)).run()


def published(staging, name=NAME):
    return (staging / os.path.basename(name)).read_bytes()


def status(staging):
    return json.loads((staging / "status.json").read_text())


def test_two_files(hub, tmp_path):
    fetch(hub, tmp_path, hub.listing())
    assert published(tmp_path) == DATA
    assert published(tmp_path, SECOND) == b"small"
    assert sorted(os.listdir(tmp_path)) == sorted([os.path.basename(NAME), os.path.basename(SECOND), "status.json"])
    found = status(tmp_path)
    assert (found["state"], found["bytes_done"], found["bytes_total"]) == ("done", len(DATA) + 5, len(DATA) + 5)


@pytest.mark.parametrize(
    ("faults", "ranges"),
    [
        pytest.param(["truncate"], ["", "bytes=5020000-"], id="truncated body"),
        pytest.param(["truncate", "ignore range"], ["", "bytes=5020000-"], id="range answered with the whole file"),
        pytest.param(["truncate", "wrong range"], ["", "bytes=5020000-", "bytes=5020000-"], id="wrong Content-Range"),
        pytest.param(["truncate", 416], ["", "bytes=5020000-", ""], id="range refused"),
        pytest.param(["drop", "drop"], ["", "", ""], id="connection dropped"),
        pytest.param([500, 502, 503], ["", "", "", ""], id="server errors"),
        pytest.param(["stall"], ["", "bytes=4194304-"], id="source that falls silent"),
        pytest.param(["truncate", "no etag"], ["", "bytes=5020000-"], id="no ETag"),
    ],
)
def test_passing_faults_end_in_the_right_bytes(hub, tmp_path, faults, ranges):
    hub.faults = list(faults)
    fetch(hub, tmp_path, timeout=0.5)
    assert published(tmp_path) == DATA
    assert hub.ranges() == ranges
    assert status(tmp_path)["bytes_done"] == len(DATA)


def test_a_file_that_changed_between_attempts_is_started_again(hub, tmp_path):
    hub.faults = ["truncate"]
    hub.etags[NAME] = '"old"'
    seen = []

    def change(_seconds):
        seen.append(1)
        hub.etags[NAME] = '"new"'

    fetch(hub, tmp_path, pause=change)
    assert published(tmp_path) == DATA
    assert seen == [1]
    assert hub.requests[-1][2]["If-Range"] == '"old"'
    assert status(tmp_path)["bytes_done"] == len(DATA)


@pytest.mark.parametrize(("header", "pause"), [(7, 7.0), ("Wed, 21 Oct 2026 07:28:00 GMT", 0.002)])
def test_retry_after_is_respected(hub, tmp_path, header, pause):
    hub.faults = [(429, header)]
    pauses = []
    fetch(hub, tmp_path, pause=pauses.append)
    assert published(tmp_path) == DATA
    assert pauses == [pytest.approx(pause, rel=0.3)]


@pytest.mark.parametrize(
    ("faults", "told"),
    [
        pytest.param([401], ["HTTP 401", "llama_model_token"], id="401"),
        pytest.param([403], ["HTTP 403", "llama_model_token"], id="403"),
        pytest.param([404], ["HTTP 404", "fresh listing"], id="404"),
        pytest.param([500] * 9, ["HTTP 500. 4 attempts in a row", "it goes on from here"], id="500 without end"),
        pytest.param([(503, 86400)], ["come back in 86400 s"], id="Retry-After of a day"),
        pytest.param(["other size"], ["offers 10040001 bytes, expected 10040000"], id="other size"),
        pytest.param(["other hash"], ["another file, sha256 " + "f" * 64], id="source names another hash"),
        pytest.param([("redirect", "ftp://127.0.0.1")], ["redirects to ftp://127.0.0.1"], id="redirect to another protocol"),
    ],
)
def test_final_faults_are_told_in_one_line(hub, tmp_path, faults, told):
    hub.faults = list(faults)
    with pytest.raises(_source.TransferError) as caught:
        fetch(hub, tmp_path)
    assert "\n" not in str(caught.value)
    for text in told:
        assert text in str(caught.value)
    assert not (tmp_path / os.path.basename(NAME)).exists()
    assert status(tmp_path)["state"] == "failed"
    assert status(tmp_path)["error"] == str(caught.value)


def test_flipped_byte_names_file_and_both_hashes_and_leaves_nothing(hub, tmp_path):
    hub.faults = ["flip"]
    with pytest.raises(_source.TransferError) as caught:
        fetch(hub, tmp_path)
    damaged = bytearray(DATA)
    damaged[len(DATA) // 2] ^= 1
    assert NAME in str(caught.value)
    assert hub.listing()[0]["sha256"] in str(caught.value)
    assert _transfer.hashlib.sha256(damaged).hexdigest() in str(caught.value)
    assert os.listdir(tmp_path) == ["status.json"]
    assert len(hub.ranges()) == 1


def test_damage_on_disk_is_fetched_again_once(hub, tmp_path):
    hub.faults = ["truncate", 404]
    with pytest.raises(_source.TransferError):
        fetch(hub, tmp_path)
    part = tmp_path / (os.path.basename(NAME) + ".part")
    held = bytearray(part.read_bytes())
    held[7] ^= 1
    part.write_bytes(held)
    fetch(hub, tmp_path)
    assert published(tmp_path) == DATA
    assert hub.ranges()[2:] == ["bytes=5020000-", ""]
    assert status(tmp_path)["bytes_done"] == len(DATA)


def test_what_was_not_synced_before_a_crash_of_the_host_is_not_trusted(hub, tmp_path, monkeypatch):
    hub.faults = ["truncate", 404]
    monkeypatch.setattr(_transfer, "SYNC_BYTES", 2 * _transfer.CHUNK)
    with pytest.raises(_source.TransferError):
        fetch(hub, tmp_path)
    monkeypatch.setattr(_transfer, "boot_id", lambda: "another boot")
    fetch(hub, tmp_path)
    assert published(tmp_path) == DATA
    assert hub.ranges()[2:] == [f"bytes={4 * _transfer.CHUNK}-"]


def test_a_part_of_another_file_is_not_used(hub, tmp_path):
    hub.faults = ["truncate", 404]
    with pytest.raises(_source.TransferError):
        fetch(hub, tmp_path)
    hub.files[NAME] = DATA[::-1]
    fetch(hub, tmp_path)
    assert published(tmp_path) == DATA[::-1]
    assert hub.ranges()[2:] == [""]


def test_a_whole_file_is_not_asked_for_again(hub, tmp_path):
    fetch(hub, tmp_path)
    fetch(hub, tmp_path)
    assert len(hub.requests) == 1


def test_killed_at_any_moment_it_goes_on(hub, tmp_path):
    job = {"endpoint": hub.url, "repo_id": REPO_ID, "commit": COMMIT, "files": hub.listing(), "staging": str(tmp_path / "staging")}
    (tmp_path / "staging").mkdir()
    (tmp_path / "job.json").write_text(json.dumps(job))
    write_program(str(tmp_path / "transfer.pyz"))
    command = [sys.executable, "-I", str(tmp_path / "transfer.pyz"), str(tmp_path / "job.json")]
    part = tmp_path / "staging" / (os.path.basename(NAME) + ".part")
    for least in (1 << 20, 3 << 20):
        hub.faults = ["drip"]
        with subprocess.Popen(command) as process:
            deadline = time.monotonic() + 20
            while (not part.exists() or part.stat().st_size < least) and time.monotonic() < deadline:
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
    held = part.stat().st_size
    assert held >= 3 << 20
    subprocess.run(command, check=True, timeout=30)
    assert published(tmp_path / "staging") == DATA
    assert hub.ranges()[-2] == f"bytes={held}-"


def test_expired_signed_url_is_asked_for_again(hub, storage, tmp_path):
    hub.faults = [("redirect", storage.url), ("redirect", storage.url)]
    storage.faults = [403]
    fetch(hub, tmp_path)
    assert published(tmp_path) == DATA
    assert len(hub.requests) == 2


def test_token_goes_to_the_endpoint_only(hub, storage, tmp_path):
    hub.faults = [("redirect", hub.url), ("redirect", storage.url)]
    fetch(hub, tmp_path, token="hf_secret")
    sent = [headers.get("Authorization") for _m, _p, headers in hub.requests + storage.requests]
    assert sent == ["Bearer hf_secret", "Bearer hf_secret", None]
    assert "hf_secret" not in "".join(path.read_text(errors="replace") for path in tmp_path.iterdir())


def test_proxy_is_used_and_no_proxy_is_respected(hub, tmp_path, monkeypatch):
    for name in _source.PROXY_NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    fetch("http://hub.invalid", tmp_path, hub.listing()[:1], environment={"http_proxy": hub.url})
    assert hub.requests[0][1].startswith("http://hub.invalid/")
    (tmp_path / "direct").mkdir()
    fetch(hub, tmp_path / "direct", environment={"http_proxy": "http://127.0.0.1:9", "no_proxy": "127.0.0.1"})
    assert published(tmp_path / "direct") == DATA


def test_unreachable_source(tmp_path):
    with pytest.raises(_source.TransferError) as caught:
        fetch("http://127.0.0.1:9", tmp_path, [{"path": NAME, "size": 5, "sha256": "0" * 64}])
    assert "127.0.0.1:9 cannot be reached: Connection refused. 4 attempts in a row" in str(caught.value)


def test_a_dead_proxy_is_named_without_its_password(tmp_path):
    with pytest.raises(
        _source.TransferError, match=r"hub\.invalid cannot be reached through the proxy 127\.0\.0\.1:9: Connection refused"
    ) as caught:
        fetch(
            "http://hub.invalid",
            tmp_path,
            [{"path": NAME, "size": 5, "sha256": "0" * 64}],
            environment={"http_proxy": "http://me:word@127.0.0.1:9"},
        )
    assert "word" not in str(caught.value)


def test_unreadable_ca_bundle(hub, tmp_path):
    with pytest.raises(_source.TransferError, match=r"CA bundle /nowhere/ca\.pem cannot be read"):
        fetch(hub, tmp_path, environment={"SSL_CERT_FILE": "/nowhere/ca.pem"})


def test_full_disk_says_how_much_is_still_to_come(hub, tmp_path, monkeypatch):
    def full(_handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_transfer.os, "fdatasync", full)
    monkeypatch.setattr(_transfer, "SYNC_BYTES", 4 * _transfer.CHUNK)
    with pytest.raises(_source.TransferError, match=rf"No space left .* {len(DATA) - 4 * _transfer.CHUNK} bytes are still to come"):
        fetch(hub, tmp_path)
    monkeypatch.undo()
    fetch(hub, tmp_path)
    assert published(tmp_path) == DATA
    assert hub.ranges()[1].startswith("bytes=")


def test_a_link_in_the_staging_directory_is_not_followed(hub, tmp_path):
    staging = tmp_path / "staging"
    staging.mkdir()
    (tmp_path / "precious").write_bytes(b"x" * 10)
    (staging / (os.path.basename(NAME) + ".part")).symlink_to(tmp_path / "precious")
    fetch(hub, staging)
    assert (tmp_path / "precious").read_bytes() == b"x" * 10
    assert published(staging) == DATA


def test_rate_is_that_of_the_last_seconds(tmp_path):
    now = [0.0]
    progress = _transfer.Progress(str(tmp_path), 1000, clock=lambda: now[0])
    for second in range(1, 31):
        now[0] = float(second)
        progress.add(10 if second <= 10 else 20, fetched=True)
    assert 19 <= progress.rate() <= 20
    found = status(tmp_path)
    assert found["bytes_done"] == 500
    assert found["eta_seconds"] in (25, 26)
