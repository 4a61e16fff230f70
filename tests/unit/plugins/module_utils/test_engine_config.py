# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's settings file for llama.cpp: which settings reach every program."""

from __future__ import annotations

import pytest

from ansible_collections.onprem.llamacpp.plugins.module_utils import _engine_config


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        pytest.param("", [], id="empty"),
        pytest.param("# ctx-size = 1\n; n-cpu-moe = 2\n\n", [], id="comments"),
        pytest.param("version = 1\nn-gpu-layers = 99\nLLAMA_ARG_CTX_SIZE=4096\n", ["LLAMA_ARG_CTX_SIZE", "n-gpu-layers"], id="top"),
        pytest.param("[*]\nctx-size = 1\n[default]\nfit = off\n[org/model:Q4]\nngl = 3\n", ["ctx-size", "fit"], id="sections"),
        pytest.param("[*]\napi-key = sk-secret\nctx-size = 1\nctx-size = 2\n", ["api-key", "ctx-size"], id="names-alone-and-once"),
    ],
)
def test_merged_keys(text, keys):
    assert _engine_config.merged_keys(text) == keys


def test_a_file_that_is_there_or_not_or_closed(tmp_path):
    path = tmp_path / "config.ini"
    assert _engine_config.read(str(path)) == {}
    assert _engine_config.read(str(path / "below-a-file")) == {}
    path.write_text("ctx-size = 4096\n")
    assert _engine_config.read(str(path)) == {"path": str(path), "keys": ["ctx-size"]}
    assert _engine_config.read(str(tmp_path)) == {"path": str(tmp_path), "keys": None}
