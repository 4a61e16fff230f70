# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filters of the engine's role hand their work to the tested functions."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.onprem.llamacpp.plugins.filter.engine_build import FilterModule

FILTERS = FilterModule().filters()


def test_build():
    hardware = {"platform": "debian-12", "architecture": "x86_64", "os": {"family": "debian"}, "memory": {"total": 0}, "cpu": {"cores": 1}}
    wish = {"tag": "b11549", "source": "git", "git_url": "https://example.com/x", "backend": "cpu"}
    assert FILTERS["engine_build"](hardware, wish)["problems"] == []


@pytest.mark.parametrize("hardware", [pytest.param({}, id="empty"), pytest.param(None, id="none")])
def test_build_needs_facts(hardware):
    with pytest.raises(AnsibleFilterError, match="facts are missing"):
        FILTERS["engine_build"](hardware, {})


def test_origin():
    assert FILTERS["engine_origin"]({}, "id") == {"host": "", "leader": ""}


def test_log_end():
    assert FILTERS["engine_log_end"]("a\nb", 1) == ["b"]
