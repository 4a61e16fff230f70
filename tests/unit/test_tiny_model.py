# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The model that tests are served with has the shape and the layout of the real one."""

from __future__ import annotations

import sys
from pathlib import Path

import gguf
import pytest

from ansible_collections.onprem.llamacpp.plugins.module_utils import _hub_files, _quant

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "models"))
import tiny_kimi_k2 as tiny


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    tiny.write_repository(folder)
    return folder


def test_quants_lie_as_in_the_real_repository(repository):
    listing = [{"path": item.path, "size": item.size, "sha256": "0" * 64} for item in _hub_files.scan_directory(str(repository))]
    quants, other = _quant.repo_quants(listing)
    assert {name: quant["shards"] for name, quant in quants.items()} == {
        "UD-TQ1_0": 3,
        "Q2_K": 1,
        "UD-Q2_K_XL": 3,
        "Q2_K_L": 1,
        "UD-Q4_K_XL": 3,
    }
    assert all(quant["complete"] for quant in quants.values())
    assert [item["path"] for item in other] == ["README.md", "config.json", "mmproj-F16.gguf"]
    assert quants["UD-Q2_K_XL"]["files"][0]["path"] == "UD-Q2_K_XL/Tiny-Kimi-K2-UD-Q2_K_XL-00001-of-00003.gguf"


def test_tensors_have_the_types_of_the_quant(repository):
    shards = sorted((repository / "UD-Q2_K_XL").glob("*.gguf"))
    tensors = {tensor.name: tensor for shard in shards for tensor in gguf.GGUFReader(shard).tensors}
    assert tensors["blk.1.ffn_down_exps.weight"].tensor_type == tiny.Type.Q2_K
    assert tensors["blk.1.ffn_down_exps.weight"].shape.tolist() == [tiny.EXPERT_WIDTH, tiny.EMBEDDING, tiny.EXPERTS]
    assert tensors["blk.1.attn_output.weight"].tensor_type == tiny.Type.Q4_K
    assert "blk.0.ffn_gate.weight" in tensors
    assert "blk.0.ffn_gate_exps.weight" not in tensors


@pytest.mark.parametrize("kind", ["Q8_0", "TQ1_0", "Q2_K", "Q4_K"])
def test_random_blocks_are_centred_and_bounded(kind):
    kind = tiny.Type[kind]
    values = gguf.quants.dequantize(tiny.Blocks(1).tensor(kind, (64, 512)), kind)
    assert values.shape == (64, 512)
    assert abs(values.mean()) < 0.01
    assert abs(values).max() < 0.08
