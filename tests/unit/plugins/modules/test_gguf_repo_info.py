# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asking a Hub: one request to one host, and every failure in one line."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import gguf_bytes as b
import pytest
from hub_server import COMMIT, REPO_ID, Hub

from ansible_collections.onprem.llamacpp.plugins.module_utils import _hub

pytest.importorskip("huggingface_hub")

COLLECTIONS = str(Path(__file__).resolve().parents[4] / ".collections")


@pytest.fixture
def hub():
    made = Hub({"Q2_K/M-Q2_K-00001-of-00002.gguf": b"one", "Q2_K/M-Q2_K-00002-of-00002.gguf": b"two", "README.md": b"text"})
    yield made
    made.close()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(_hub.time, "sleep", lambda _seconds: None)
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def ask(endpoint, token=None, revision="main", retries=1):
    return _hub.read_listing(endpoint, REPO_ID, revision, token, 5.0, retries)


def test_listing(hub):
    found = ask(hub.url)
    assert (found.repo_id, found.commit) == (REPO_ID, COMMIT)
    assert found.files == hub.listing()
    assert [path for _method, path, _headers in hub.requests] == [f"/api/models/{REPO_ID}/revision/main?blobs=true"]


@pytest.mark.parametrize(
    ("status", "headers", "token", "told"),
    [
        pytest.param(401, {}, None, ["HTTP 401", "does not exist or is private", "set llama_model_token"], id="401"),
        pytest.param(401, {}, "hf_x", ["HTTP 401", "to another token"], id="401 with a token"),
        pytest.param(403, {"X-Error-Code": "GatedRepo"}, None, ["gated (HTTP 403)", "Accept its terms"], id="403 gated"),
        pytest.param(403, {}, "hf_x", ["HTTP 403", "Ask its owner"], id="403"),
        pytest.param(
            404, {"X-Error-Code": "RepoNotFound"}, None, ["does not exist (HTTP 404)", "llama_model_endpoint"], id="404 repository"
        ),
        pytest.param(404, {"X-Error-Code": "RevisionNotFound"}, None, ["no revision main", "llama_model_revision"], id="404 revision"),
        pytest.param(404, {}, None, ["does not exist (HTTP 404)"], id="404 without a code"),
        pytest.param(429, {}, None, ["asked too often (HTTP 429)"], id="429"),
        pytest.param(503, {}, None, ["HTTP 503", "to a mirror"], id="503"),
    ],
)
def test_refusals_are_told_in_one_line(hub, status, headers, token, told):
    hub.api_answer = (status, headers, b"{}")
    with pytest.raises(_hub.HubError) as caught:
        ask(hub.url, token)
    for text in [*told, REPO_ID, hub.url]:
        assert text in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "hf_x" not in str(caught.value)
    assert len(hub.requests) == (2 if status in (429, 503) else 1)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        pytest.param(b"<html>Welcome to the hotel network</html>", "did not answer as a Hub does", id="no JSON"),
        pytest.param(b"{}", "did not answer as a Hub does", id="JSON of something else"),
        pytest.param(json.dumps({"id": "a/b", "sha": "main"}).encode(), "names no commit", id="a commit that is none"),
    ],
)
def test_an_endpoint_that_is_no_hub(hub, body, told):
    hub.api_answer = (200, {}, body)
    with pytest.raises(_hub.HubError, match=told):
        ask(hub.url)


def test_unreachable():
    with pytest.raises(_hub.HubError, match=r"http://127\.0\.0\.1:9 cannot be reached: .*llama_proxy_env"):
        ask("http://127.0.0.1:9")


def test_not_a_repository_name(hub):
    with pytest.raises(_hub.HubError, match="<organisation>/<name>"):
        _hub.read_listing(hub.url, "../etc", "main", None, 1.0, 0)
    assert hub.requests == []


def run_module(hub, **params):
    """The module as Ansible runs it: arguments on stdin, a fresh process, no knowledge of the test's environment."""
    arguments = {"ANSIBLE_MODULE_ARGS": {"repo_id": REPO_ID, "endpoint": hub.url + "/", "retries": 0, **params}}
    code = (
        "import sys, runpy; sys.path.insert(0, sys.argv.pop(1));"
        "from ansible.module_utils.testing import patch_module_args; import json;"
        "args = json.load(sys.stdin)['ANSIBLE_MODULE_ARGS']\n"
        "with patch_module_args(args):\n"
        "    runpy.run_module('ansible_collections.onprem.llamacpp.plugins.modules.gguf_repo_info', run_name='__main__')"
    )
    environment = dict(os.environ, HF_TOKEN="hf_from_the_controller", HF_ENDPOINT="http://127.0.0.1:9")
    done = subprocess.run(
        [sys.executable, "-c", code, COLLECTIONS],
        input=json.dumps(arguments),
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
        check=False,
    )
    return json.load(io.StringIO(done.stdout.splitlines()[-1])) if done.stdout else pytest.fail(done.stderr)


def test_module_returns_quants_and_asks_nobody_else(hub):
    found = run_module(hub)
    assert found["changed"] is False
    assert found["commit"] == COMMIT
    assert found["endpoint"] == hub.url
    assert found["quants"]["Q2_K"]["complete"] is True
    assert [item["path"] for item in found["quants"]["Q2_K"]["files"]] == list(hub.files)[:2]
    assert [item["path"] for item in found["other"]] == ["README.md"]
    assert len(hub.requests) == 1
    assert "Authorization" not in {name.title() for name in hub.requests[0][2]}  # the controller's own token stays there


def test_module_sends_the_token_it_was_given(hub):
    run_module(hub, token="hf_given")
    assert {name.title(): value for name, value in hub.requests[0][2].items()}["Authorization"] == "Bearer hf_given"


def test_module_refuses_names_that_leave_the_directory(hub):
    hub.files["../../etc/M-Q2_K.gguf"] = b"x"
    found = run_module(hub)
    assert found["failed"] is True
    assert "leaves its directory" in found["msg"]


@pytest.fixture
def mirror():
    """A mirror of the hub that has one of two quants."""
    made = Hub({"Q2_K/M-Q2_K-00001-of-00002.gguf": b"one", "Q2_K/M-Q2_K-00002-of-00002.gguf": b"two"})
    yield made
    made.close()


@pytest.mark.parametrize(
    ("params", "answers"),
    [
        pytest.param({}, "mirror", id="the mirror first"),
        pytest.param({"headers": ["q2_k"]}, "mirror", id="it has the quant"),
        pytest.param({"headers": ["Q4_K_M"]}, "endpoint", id="it has another quant"),
        pytest.param({"endpoint": "", "headers": ["Q4_K_M"]}, "mirror", id="there is nobody else to ask"),
    ],
)
def test_module_asks_the_mirror_before_the_endpoint(hub, mirror, tmp_path, params, answers):
    head = b.whole(b.header(b.MODEL, b.ONE), 128)
    hub.files = {"M-Q4_K_M.gguf": head, "M-Q2_K.gguf": head}
    mirror.files = {"M-Q2_K.gguf": head}
    found = run_module(hub, mirror=mirror.url, mirror_token="m", cache_dir=str(tmp_path), **params)
    assert found["endpoint"] == {"mirror": mirror.url, "endpoint": hub.url}[answers]
    assert {name.title(): value for name, value in mirror.requests[0][2].items()}["Authorization"] == "Bearer m"
    assert bool(hub.requests) == (answers == "endpoint")
    assert all("Authorization" not in {name.title() for name in headers} for _method, _path, headers in hub.requests)
    if answers == "endpoint":
        assert f"The mirror {mirror.url} is passed over. Of {REPO_ID} it has Q2_K" in repr(found["warnings"])


def test_module_passes_over_a_mirror_that_does_not_answer(hub):
    found = run_module(hub, mirror="http://127.0.0.1:9")
    assert found["endpoint"] == hub.url
    assert "The mirror is passed over. http://127.0.0.1:9 cannot be reached" in repr(found["warnings"])


def test_module_needs_somebody_to_ask(hub):
    found = run_module(hub, endpoint="")
    assert found["failed"] is True and "neither endpoint nor mirror" in found["msg"]


HEADER = b.whole(b.header(b.MODEL, b.ONE), 128)


@pytest.fixture
def three_quants(hub, tmp_path):
    """The hub with a quant that is whole, one that lacks a shard and one whose header is none; and a folder for the cache."""
    hub.files = {"M-Q4_K_M.gguf": HEADER, "M-Q8_0-00001-of-00002.gguf": HEADER, "M-Q2_K.gguf": b"<html>", "README.md": b"text"}
    return tmp_path / "cache"


def test_module_reads_headers_of_the_quants_that_are_named(hub, three_quants):
    found = run_module(hub, headers=["q4_k_m"], cache_dir=str(three_quants))
    assert found["changed"] is False
    assert "header" not in found["quants"]["Q2_K"]
    header = found["quants"]["Q4_K_M"]["header"]
    assert (header["architecture"], header["bytes"], header["layers"]) == ("llama", 128, [{"experts": 0, "names": [], "rest": 0}])
    (record,) = header["files"]
    assert (record["path"], record["size"]) == ("M-Q4_K_M.gguf", len(HEADER))
    assert Path(record["header"]).read_bytes() == HEADER[: record["header_bytes"]]
    assert three_quants in Path(record["header"]).parents
    assert len(hub.ranges()) == 1
    assert run_module(hub, headers=["Q4_K_M"], cache_dir=str(three_quants))["quants"] == found["quants"]
    assert len(hub.ranges()) == 1


def test_module_tells_which_quants_have_no_usable_header(hub, three_quants):
    found = run_module(hub, headers=["Q4_K", "Q8_0", "Q2_K", "Q4_K_M"], cache_dir=str(three_quants))
    told = {name: (quant["complete"], "header" in quant, quant["problem"][:56]) for name, quant in found["quants"].items()}
    assert told == {
        "Q2_K": (False, False, "M-Q2_K.gguf is not a usable GGUF file: it ends too early"),
        "Q4_K_M": (True, True, ""),
        "Q8_0": (False, False, "1 of 2 shards missing (2)"),
    }


def test_module_reads_one_header_at_least_when_asked_to(hub, three_quants):
    def read(**params):
        found = run_module(hub, cache_dir=str(three_quants), **params)
        return [name for name, quant in found["quants"].items() if "header" in quant]

    assert read(headers=["Q9"], any_header=True) == ["Q4_K_M"]  # the smallest is none
    assert read(headers=["Q4_K_M"], any_header=True) == ["Q4_K_M"]
    assert read(headers=["Q9"]) == []


def test_module_looks_into_a_directory_and_asks_nobody(hub, three_quants, tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    for name, data in hub.files.items():
        (folder / name).write_bytes(data)
    found = run_module(hub, directory=str(folder), headers=["Q4_K_M"], cache_dir=str(three_quants))
    assert hub.requests == []
    assert found["endpoint"] == ""
    assert len(found["commit"]) == 40
    assert {name: quant["complete"] for name, quant in found["quants"].items()} == {"Q2_K": True, "Q4_K_M": True, "Q8_0": False}
    assert found["quants"]["Q4_K_M"]["files"] == [{"path": "M-Q4_K_M.gguf", "size": len(HEADER), "sha256": None}]
    assert found["quants"]["Q4_K_M"]["header"]["tensors"] == 1
    assert [item["path"] for item in found["other"]] == ["README.md"]


@pytest.mark.parametrize(
    ("params", "told"),
    [
        pytest.param({"directory": "/nonexistent"}, "The directory /nonexistent does not exist on the controller.", id="no directory"),
        pytest.param({"directory": "/", "repo_id": "../etc"}, "is not a repository", id="no repository"),
    ],
)
def test_module_refuses_a_place_that_is_none(hub, params, told):
    found = run_module(hub, **params)
    assert found["failed"] is True
    assert told in found["msg"]
