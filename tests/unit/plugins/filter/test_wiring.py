# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters that pass on to plugin_utils: their names, and what they refuse."""

from __future__ import annotations

import pytest

from ansible_collections.onprem.llamacpp.plugins.filter import driver_plan, model_sources


def test_model_sources_are_the_mirror_then_the_hub():
    wish = {
        "site": "plant",
        "transport": "auto",
        "endpoint": "https://hub.example",
        "token": "",
        "mirror": "",
        "mirror_token": "",
        "directory": "",
    }
    mirror = {"inventory_hostname": "store", "ansible_host": "192.0.2.1", "llama_site": "plant"}
    filters = model_sources.FilterModule().filters()
    assert [source["transport"] for source in filters["model_sources"](wish, [mirror])["sources"]] == ["mirror", "hub"]
    assert filters["listing_sources"](wish, [mirror])["mirror"] == {"name": "store", "url": "http://192.0.2.1"}


def test_driver_plan_without_facts_says_how_to_get_them():
    with pytest.raises(Exception, match=r"collect them with onprem\.llamacpp\.hardware_facts"):
        driver_plan.FilterModule().filters()["driver_plan"]({}, {}, {})
