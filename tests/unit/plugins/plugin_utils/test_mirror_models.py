# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a mirror is to hold, what it lacks, and what may go."""

from __future__ import annotations

import pytest

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _mirror_models
from ansible_collections.onprem.llamacpp.plugins.plugin_utils._mirror_models import MirrorError

CATALOG = {"small": {"repo_id": "org/Small-GGUF"}}
OLD, NEW = "1" * 40, "2" * 40
INDEX = [
    {"repo_id": "org/Small-GGUF", "commit": OLD, "revisions": [], "quants": ["Q2_K", "Q4_K"], "published_at": "2025-01-01T00:00:00Z"},
    {"repo_id": "org/Small-GGUF", "commit": NEW, "revisions": ["main"], "quants": ["Q2_K"], "published_at": "2026-01-01T00:00:00Z"},
]


def wished(revision="main", quants=("Q2_K",)):
    return {"repo_id": "org/Small-GGUF", "revision": revision, "quants": list(quants)}


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        pytest.param({"model": "small", "quants": ["Q2_K"]}, wished(), id="by key"),
        pytest.param({"model": "org/Small-GGUF", "quants": ["Q2_K"]}, wished(), id="by repository"),
        pytest.param({"repo_id": "org/Small-GGUF", "quants": ["Q2_K"], "revision": "v1"}, wished("v1"), id="revision"),
        pytest.param({"model": "small", "quants": ["Q2_K"], "commit": OLD}, wished(OLD), id="commit"),
    ],
)
def test_wishes(item, expected):
    assert _mirror_models.wishes([item], CATALOG, []) == [expected]


def test_what_a_directory_serves_is_not_fetched():
    assert _mirror_models.wishes([{"model": "small", "quants": ["Q2_K"]}], CATALOG, ["org/Small-GGUF"]) == []


@pytest.mark.parametrize(
    ("item", "told"),
    [
        pytest.param({"quants": ["Q2_K"]}, "names no model", id="no model"),
        pytest.param({"model": "smal", "quants": ["Q2_K"]}, "did you mean 'small'", id="unknown model"),
        pytest.param({"model": "small", "quants": []}, "names no quants of small", id="no quants"),
        pytest.param({"model": "small", "quants": ["auto"]}, "needs the whole name", id="auto"),
        pytest.param({"model": "small", "quants": ["Q2_K"], "commit": "abc"}, "40 hexadecimal digits", id="short commit"),
    ],
)
def test_wishes_that_are_none(item, told):
    with pytest.raises(MirrorError, match=told):
        _mirror_models.wishes([item], CATALOG, [])


@pytest.mark.parametrize(
    ("wish", "left"),
    [
        pytest.param(wished(), [], id="held"),
        pytest.param(wished(quants=["q2_k"]), [], id="letter case"),
        pytest.param(wished(quants=["Q2_K", "Q4_K"]), ["Q4_K"], id="held of another commit only"),
        pytest.param(wished(OLD, ["Q4_K"]), [], id="held by its commit"),
        pytest.param(wished("v2"), ["Q2_K"], id="unknown revision"),
    ],
)
def test_missing(wish, left):
    found = _mirror_models.missing([wish], INDEX)
    assert [item["quants"] for item in found] == ([left] if left else [])


def answer(wish, **quants):
    return {"__llama_mirror_ask": wish, "commit": NEW, "quants": quants}


def test_downloads_and_the_names_they_are_known_by():
    quant = {"complete": True, "problem": "", "files": [{"path": "f"}], "header": {"layers": []}}
    (found,) = _mirror_models.downloads([answer(wished(quants=["q2_k"]), Q2_K=quant)])
    assert (found["quant"], found["commit"], found["files"]) == ("Q2_K", NEW, [{"path": "f"}])
    assert _mirror_models.revisions([found, found]) == [{"repo_id": "org/Small-GGUF", "name": "main", "commit": NEW}]


def test_everything_that_cannot_be_had_is_told_together():
    silent = {"__llama_mirror_ask": wished(), "msg": "https://hub.example cannot be reached."}
    with pytest.raises(MirrorError) as caught:
        _mirror_models.downloads([answer(wished(quants=["Q9"])), silent])
    assert "has no quant Q9" in str(caught.value) and "cannot be reached" in str(caught.value)


@pytest.mark.parametrize(
    ("wishes", "keep", "commits", "expected"),
    [
        pytest.param([], [], 0, [], id="nothing keeps anything"),
        pytest.param([], [], 1, [(NEW, "Q2_K")], id="newest commit"),
        pytest.param([], [], 2, [(NEW, "Q2_K"), (OLD, "Q2_K"), (OLD, "Q4_K")], id="two commits"),
        pytest.param([wished()], [], 0, [(NEW, "Q2_K")], id="wished by name"),
        pytest.param([wished(OLD)], [], 0, [(OLD, "Q2_K")], id="wished by commit"),
        pytest.param([], [{"repo_id": "org/Small-GGUF", "quant": "q4_k", "commit": None}], 0, [(OLD, "Q4_K")], id="named"),
        pytest.param([], [{"repo_id": "org/Other-GGUF"}], 0, [], id="another one named"),
    ],
)
def test_kept(wishes, keep, commits, expected):
    found = _mirror_models.kept(INDEX, wishes, keep, commits)
    assert [(item["commit"], item["quant"]) for item in found] == expected
