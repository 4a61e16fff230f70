# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two builds are equal or what differs is listed."""

from __future__ import annotations

import pytest

from ansible_collections.onprem.llamacpp.plugins.plugin_utils._engine_compare import differences

FIRST = {"bin/llama-server": "a" * 64, "lib/libggml.so": "-> libggml.so.0"}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        pytest.param({}, [], id="equal"),
        pytest.param(
            {"bin/llama-server": "b" * 64},
            ["bin/llama-server differs: aaaaaaaaaaaa in the first build, bbbbbbbbbbbb in the second."],
            id="content",
        ),
        pytest.param(
            {"lib/libggml.so": "-> x"}, ["lib/libggml.so differs: -> libggml.s in the first build, -> x in the second."], id="link"
        ),
        pytest.param({"lib/more.so": "c" * 64}, ["lib/more.so is in the second build only."], id="one-more"),
    ],
)
def test_differences(change, told):
    assert differences(FIRST, {**FIRST, **change}) == told


def test_a_file_that_the_second_build_lacks():
    assert differences(FIRST, {}) == ["bin/llama-server is in the first build only.", "lib/libggml.so is in the first build only."]
