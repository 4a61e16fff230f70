# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole quant names out of repository listings."""

from __future__ import annotations

import pytest

from ansible_collections.onprem.llamacpp.plugins.module_utils import _quant

SHA = "a" * 64


def entry(path, size=100, sha256=SHA):
    return {"path": path, "size": size, "sha256": sha256}


def shards(quant, count=3, folder=True, name="Kimi-K2-Instruct"):
    prefix = f"{quant}/" if folder else ""
    return [f"{prefix}{name}-{quant}-{i:05d}-of-{count:05d}.gguf" for i in range(1, count + 1)]


@pytest.mark.parametrize(
    ("path", "quant"),
    [
        ("UD-Q2_K_XL/Kimi-K2-Instruct-UD-Q2_K_XL-00001-of-00008.gguf", "UD-Q2_K_XL"),
        ("UD-TQ1_0/Kimi-K2-Thinking-UD-TQ1_0-00001-of-00006.gguf", "UD-TQ1_0"),
        ("Kimi-K2-Q2_K.gguf", "Q2_K"),
        ("Kimi-K2-Q2_K_L.gguf", "Q2_K_L"),
        ("Kimi-K2-UD-Q2_K_XL.gguf", "UD-Q2_K_XL"),
        ("UD-IQ3_XXS/Kimi-K2-UD-IQ3_XXS-00001-of-00009.gguf", "UD-IQ3_XXS"),
        ("BF16/Kimi-K2-BF16-00001-of-00045.gguf", "BF16"),
        ("gemma-3-270m-q4_k_m.gguf", "Q4_K_M"),
        ("Model.i1-IQ1_S.gguf", "IQ1_S"),
        ("gpt-oss-120b-MXFP4_MOE.gguf", "MXFP4_MOE"),
        ("smol-IQ2_KS/Kimi-K2-smol-IQ2_KS-00001-of-00005.gguf", "smol-IQ2_KS"),
        ("IQ2_KS/Kimi-K2-IQ2_KS-00001-of-00005.gguf", "IQ2_KS"),
        ("Q8_0/part-00001-of-00002.gguf", "Q8_0"),
        ("archive/Kimi-K2-Q4_K_M.gguf", "Q4_K_M"),
        ("Q2_K/Kimi-K2-UD-Q2_K_XL.gguf", "UD-Q2_K_XL"),
        ("UD-Q2_K_XL/Kimi-K2-Q2_K_XL.gguf", "Q2_K_XL"),
        ("mmproj-F16.gguf", None),
        ("mmproj-BF16.gguf", None),
        ("imatrix_unsloth.gguf", None),
        ("Kimi-K2.imatrix.gguf", None),
        ("README.md", None),
        ("model.gguf", None),
        ("Kimi-K2-Q2_K.gguf.part1of2", None),
        ("Kimi-K2-Q2_K-00009-of-00008.gguf", None),
    ],
)
def test_quant_of_a_path(path, quant):
    found = _quant.parse_path(path)
    assert (found.quant if found else None) == quant


def test_names_that_contain_each_other_stay_apart():
    listing = [entry(path) for path in [*shards("UD-Q2_K_XL"), "X-Q2_K.gguf", "X-Q2_K_L.gguf", "mmproj-F16.gguf", "README.md"]]
    quants, other = _quant.repo_quants(listing)
    assert {name: [item["path"] for item in quant["files"]] for name, quant in quants.items()} == {
        "Q2_K": ["X-Q2_K.gguf"],
        "Q2_K_L": ["X-Q2_K_L.gguf"],
        "UD-Q2_K_XL": shards("UD-Q2_K_XL"),
    }
    assert [item["path"] for item in other] == ["README.md", "mmproj-F16.gguf"]
    assert _quant.find_quant(quants, "Q2_K", "o/r")[1]["files"][0]["path"] == "X-Q2_K.gguf"


@pytest.mark.parametrize(
    ("listing", "problem"),
    [
        pytest.param([entry(path) for path in shards("Q2_K", 6)], "", id="whole"),
        pytest.param([entry(path) for path in reversed(shards("Q2_K", 12))], "", id="whole in any order"),
        pytest.param([entry(path) for path in shards("Q2_K", 3, folder=False)], "", id="at the root"),
        pytest.param([entry("X-Q2_K.gguf")], "", id="one file"),
        pytest.param([entry(path) for path in shards("Q2_K", 6)[:-2]], "2 of 6 shards missing (5, 6)", id="last shards missing"),
        pytest.param([entry(path) for path in shards("Q2_K", 3)[1:]], "1 of 3 shards missing (1)", id="first shard missing"),
        pytest.param([entry("X-Q2_K.gguf", size=None)], "the listing gives no size for some files", id="no size"),
        pytest.param([entry("X-Q2_K.gguf", sha256=None)], "the listing gives no sha256 for some files", id="no hash"),
        pytest.param([entry("X-Q2_K.gguf"), entry("Y-Q2_K.gguf")], "two sets of files carry this name, one of them Y-Q2_K", id="two sets"),
        pytest.param(
            [entry(path) for path in shards("Q2_K", 3)[:2] + shards("Q2_K", 2)], "", id="a whole set beside the rest of an older one"
        ),
    ],
)
def test_completeness(listing, problem):
    quants, _other = _quant.repo_quants(listing)
    found = quants["Q2_K"]
    assert (found["problem"], found["complete"]) == (problem, not problem)
    if not problem:
        assert [item["path"] for item in found["files"]] == sorted(item["path"] for item in found["files"])
        assert len(found["files"]) == found["shards"]
        assert found["bytes"] == 100 * found["shards"]


@pytest.mark.parametrize(
    "path",
    [
        "../x-Q2_K.gguf",
        "a/../../x-Q2_K.gguf",
        "/etc/x-Q2_K.gguf",
        "a//b.gguf",
        "./a.gguf",
        "a\\b.gguf",
        "a\nb.gguf",
        "a\x1b[2Jb.gguf",
        "a\x7f.gguf",
        "",
        "x" * 300 + ".gguf",
        "dir/",
    ],
    ids=repr,
)
def test_unsafe_names_are_refused(path):
    with pytest.raises(_quant.UnsafeName):
        _quant.repo_quants([entry("ok-Q2_K.gguf"), entry(path)])


def test_quants_are_ordered_by_bytes():
    listing = [entry("X-Q8_0.gguf", 5), entry("X-Q2_K.gguf", 9), entry("X-UD-TQ1_0.gguf", 7)]
    assert list(_quant.repo_quants(listing)[0]) == ["Q8_0", "UD-TQ1_0", "Q2_K"]


@pytest.mark.parametrize(
    ("wanted", "outcome"),
    [
        pytest.param("Q2_K", "Q2_K", id="exact"),
        pytest.param("ud-q2_k_xl", "UD-Q2_K_XL", id="letter case does not matter"),
        pytest.param("Q2", _quant.UnknownQuant, id="a prefix is not a name"),
        pytest.param("Q2_K_XL", _quant.UnknownQuant, id="a suffix is not a name"),
        pytest.param("Q4_K", _quant.IncompleteQuant, id="incomplete"),
    ],
)
def test_find_quant(wanted, outcome):
    listing = [entry(path) for path in [*shards("UD-Q2_K_XL"), "X-Q2_K.gguf", *shards("Q4_K")[:2]]]
    quants, _other = _quant.repo_quants(listing)
    if isinstance(outcome, str):
        assert _quant.find_quant(quants, wanted, "org/repo")[0] == outcome
    else:
        with pytest.raises(outcome) as caught:
            _quant.find_quant(quants, wanted, "org/repo")
        assert "org/repo" in str(caught.value)
        assert "UD-Q2_K_XL" in str(caught.value)  # what there is instead
