# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Headers come by range, little more than they are long, and only once."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import gguf_bytes as b
import pytest
import shapes
from hub_server import COMMIT, REPO_ID, Hub, Sparse

from ansible_collections.onprem.llamacpp.plugins.module_utils import _headers
from ansible_collections.onprem.llamacpp.plugins.module_utils._gguf import GgufError
from ansible_collections.onprem.llamacpp.plugins.module_utils._source import Options, Source, TransferError

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "models"))

MIB = 2**20
NAME = "Q2_K/M-Q2_K.gguf"
SHARDS = 14


@pytest.fixture(scope="module")
def kimi(tmp_path_factory):
    """The header of a large model with a vocabulary of a tenth, and the 330 GB that are not behind it."""
    path = tmp_path_factory.mktemp("kimi") / "kimi.gguf"
    shapes.write_file(shapes.SHAPES["kimi-k2"], path, tokens=16_384)
    with path.open("rb") as stream:
        return Sparse(stream.read(MIB), path.stat().st_size)


@pytest.fixture
def hub(kimi):
    made = Hub({NAME: kimi})
    yield made
    made.close()


def shards():
    """A quant in fourteen files of two tensors and a megabyte each."""
    files = {}
    for number in range(SHARDS):
        keys = [
            b.scalar("split.no", b.U16, number),
            b.scalar("split.count", b.U16, SHARDS),
            b.scalar("split.tensors.count", b.I32, 2 * SHARDS),
        ]
        tensors = [b.tensor(f"blk.0.{number}.{name}", (2**17,), 0, at) for name, at in (("a", 0), ("b", 2**19))]
        files[f"Q2_K/M-Q2_K-{number + 1:05d}-of-{SHARDS:05d}.gguf"] = b.whole(
            b.header([*b.MODEL, *keys] if number == 0 else keys, tensors), MIB
        )
    return files


def read(hub, cache, token="", retries=2, endpoint=None, pauses=None):
    """The summary as it is read from the hub, and what was waited."""
    source = Source(Options(token, {}, 5.0, retries))
    pauses = [] if pauses is None else pauses

    def opened(item):
        file = _headers.remote_files(source, endpoint or hub.url, REPO_ID, COMMIT)(item)
        file.pause = pauses.append
        return file

    return _headers.read_profile(hub.listing(), opened, _headers.HeaderCache(str(cache), REPO_ID, COMMIT))


def check(found, kimi, tmp_path):
    (record,) = found["files"]
    assert record["path"] == NAME
    assert record["size"] == kimi.size
    held = Path(record["header"]).read_bytes()
    assert held == kimi.head[: record["header_bytes"]]
    assert record["header"] == str(tmp_path / "org--Repo-GGUF" / COMMIT / (NAME + ".header"))
    assert found["tensors"] == 1096
    return record["header_bytes"]


def test_a_header_takes_few_requests_and_little_more_than_its_bytes(hub, kimi, tmp_path):
    length = check(read(hub, tmp_path), kimi, tmp_path)
    assert length > 8 * 2**16
    assert hub.sent <= 1.25 * length
    assert len(hub.requests) <= 8
    assert hub.ranges()[0] == "bytes=0-65535"


def test_the_second_time_nothing_is_asked(hub, kimi, tmp_path):
    once = read(hub, tmp_path)
    hub.requests.clear()
    assert read(hub, tmp_path) == once
    assert hub.requests == []


def test_shards_come_side_by_side(tmp_path):
    hub = Hub(shards())
    try:
        gate = threading.Barrier(SHARDS, timeout=20)
        answer = hub.answer_file
        hub.answer_file = lambda request, path: (gate.wait(), answer(request, path))
        found = read(hub, tmp_path)
        assert (found["tensors"], found["bytes"]) == (2 * SHARDS, SHARDS * MIB)
        assert [item["path"] for item in found["files"]] == list(hub.files)
        assert sorted(hub.ranges()) == ["bytes=0-65535"] * SHARDS
    finally:
        hub.close()


def test_a_source_without_ranges_is_not_read_to_the_end(hub, kimi, tmp_path):
    hub.faults = ["ignore range"] * 20
    check(read(hub, tmp_path), kimi, tmp_path)
    assert len(hub.requests) == 1
    assert hub.sent < 64 * MIB


@pytest.mark.parametrize(
    ("faults", "requests"),
    [
        pytest.param(["truncate"], 1, id="the answer ends early"),
        pytest.param([None, "truncate", "truncate"], 2, id="later answers end early"),
        pytest.param(["drop"], 1, id="the connection ends"),
        pytest.param(["wrong range"], 1, id="another range than asked for"),
        pytest.param([503, 503], 2, id="503 twice"),
        pytest.param([(429, 7)], 1, id="429 with a time"),
        pytest.param([None, "ignore range"], -2, id="ranges are forgotten in the middle"),
        pytest.param(["no etag"] * 20, 0, id="no ETag"),
    ],
)
def test_what_passes_by_itself(hub, kimi, tmp_path, faults, requests):
    check(read(hub, tmp_path / "usual"), kimi, tmp_path / "usual")
    usual = len(hub.requests)
    hub.requests.clear()
    hub.faults, pauses = list(faults), []
    check(read(hub, tmp_path, pauses=pauses), kimi, tmp_path)
    assert len(pauses) == max(requests, 0)
    assert requests < 0 or len(hub.requests) == usual + requests
    assert pauses == ([7.0] if faults == [(429, 7)] else [1.0, 2.0] if faults == [503, 503] else [1.0] * len(pauses))


@pytest.mark.parametrize(
    ("faults", "told"),
    [
        pytest.param([503] * 9, ["HTTP 503", "(attempt 3 of 3)", "from the controller"], id="503"),
        pytest.param([(503, 600)], ["asks to come back in 600 s", "(attempt 1 of 3)"], id="much later"),
        pytest.param(["wrong range"] * 9, ["answered with the range 'bytes 1-"], id="another range"),
        pytest.param(["drop"] * 9, ["cannot be reached", "(attempt 3 of 3)"], id="dropped"),
        pytest.param([404], ["does not exist (HTTP 404)", "a mirror lacks it"], id="404"),
        pytest.param([401], ["HTTP 401", "set llama_model_token to a token"], id="401"),
        pytest.param([403], ["HTTP 403"], id="403"),
        pytest.param(["other size"], ["offers 330217940801 bytes, expected 330217940800", "fresh listing"], id="another size"),
        pytest.param(["other hash"], ["now offers another file"], id="another hash"),
    ],
)
def test_what_does_not_pass_is_told_in_one_line_and_leaves_nothing(hub, tmp_path, faults, told):
    hub.faults = list(faults)
    with pytest.raises(TransferError) as caught:
        read(hub, tmp_path)
    for text in [*told, NAME if told[0] not in ("HTTP 401", "HTTP 403") else ""]:
        assert text in str(caught.value)
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_a_file_that_changes_in_between_is_not_mixed(hub, tmp_path):
    answer = hub.answer_file

    def changing(request, path):
        answer(request, path)
        hub.etags[NAME] = '"another"'

    hub.answer_file = changing
    with pytest.raises(TransferError, match="changed while its header was read"):
        read(hub, tmp_path)


def test_the_token_stays_with_the_endpoint(hub, kimi, tmp_path):
    storage = Hub(hub.files)
    try:
        hub.faults = [("redirect", storage.url)] * 20
        check(read(hub, tmp_path, token="hf_secret"), kimi, tmp_path)
        assert {headers.get("Authorization") for _method, _path, headers in hub.requests} == {"Bearer hf_secret"}
        assert {headers.get("Authorization") for _method, _path, headers in storage.requests} == {None}
        assert storage.ranges()[:1] == hub.ranges()  # where it is stored is asked once
    finally:
        storage.close()


def test_a_hostile_header_is_refused_and_not_kept(hub, tmp_path):
    hub.files[NAME] = Sparse(b.header(b.MODEL, [b.tensor("t", (2**62, 2**62))]), 10**12)
    with pytest.raises(GgufError, match=f"^{NAME} is not a usable GGUF file: the tensor t takes"):
        read(hub, tmp_path)
    assert os.listdir(tmp_path) == []


def test_headers_of_a_set_share_what_memory_they_may_take(tmp_path):
    """Each would pass alone."""
    head = b.header([b.array("a", b.STRING, [], 1_500_000)])
    files = {f"Q2_K/M-Q2_K-{number:05d}-of-00014.gguf": Sparse(head, len(head) + 8 * 1_500_000) for number in range(1, SHARDS + 1)}
    hub = Hub(files)
    try:
        with pytest.raises(GgufError, match="more than 128 MiB of memory"):
            read(hub, tmp_path)
    finally:
        hub.close()


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:-1]), id="cut off"),
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:-1] + b"!"), id="a byte differs"),
        pytest.param(lambda path: path.write_bytes(b""), id="empty"),
        pytest.param(lambda path: path.unlink(), id="gone"),
        pytest.param(lambda path: Path(f"{path}.json").unlink(), id="nothing vouches for it"),
        pytest.param(lambda path: Path(f"{path}.json").write_text("{}"), id="something else vouches for it"),
    ],
)
def test_damage_in_the_cache_is_noticed_and_repaired(hub, kimi, tmp_path, damage):
    once = read(hub, tmp_path)
    damage(Path(once["files"][0]["header"]))
    hub.requests.clear()
    assert read(hub, tmp_path) == once
    assert hub.requests
    check(once, kimi, tmp_path)
    assert not [path for path in tmp_path.rglob(".new-*")]


def test_another_file_of_the_same_name_is_read_anew(hub, kimi, tmp_path):
    read(hub, tmp_path)
    hub.requests.clear()
    head = b.header(b.MODEL, b.ONE)
    hub.files[NAME] = b.whole(head, 128)
    assert read(hub, tmp_path)["tensors"] == 1
    assert hub.requests


def test_a_cache_that_cannot_be_written(hub, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(_headers.HeaderError, match=r"cannot be written: Not a directory\. Set cache_dir"):
        read(hub, tmp_path / "file")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        pytest.param({"XDG_CACHE_HOME": "/x"}, "/x/onprem-llamacpp/headers", id="set"),
        pytest.param({"XDG_CACHE_HOME": "x"}, "/home/me/.cache/onprem-llamacpp/headers", id="relative counts as not set"),
        pytest.param({}, "/home/me/.cache/onprem-llamacpp/headers", id="not set"),
    ],
)
def test_default_cache(monkeypatch, environment, expected):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    for name, value in {"HOME": "/home/me", **environment}.items():
        monkeypatch.setenv(name, value)
    assert _headers.default_cache() == expected


def local(folder, cache):
    commit, files = _headers.scan(str(folder))
    return _headers.read_profile(files, _headers.local_files(str(folder)), _headers.HeaderCache(str(cache), REPO_ID, commit))


def test_a_directory_is_read_like_a_repository(tmp_path):
    folder = tmp_path / "files"
    for name, data in shards().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("")
    found = local(folder, tmp_path / "cache")
    assert (found["tensors"], found["bytes"]) == (2 * SHARDS, SHARDS * MIB)
    before = _headers.scan(str(folder))
    assert [item["path"] for item in before[1]] == list(shards())
    assert {item["sha256"] for item in before[1]} == {None}
    os.utime(folder / before[1][3]["path"], (1, 1))
    assert _headers.scan(str(folder))[0] != before[0]


def test_a_directory_that_is_not_there(tmp_path):
    with pytest.raises(_headers.HeaderError, match="does not exist on the controller"):
        _headers.scan(str(tmp_path / "none"))
