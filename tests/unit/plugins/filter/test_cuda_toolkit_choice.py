# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filters of the toolkit's role hand their work to the tested functions."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.onprem.llamacpp.plugins.filter.cuda_toolkit_choice import FilterModule

FILTERS = FilterModule().filters()


@pytest.mark.parametrize(
    "request_", [pytest.param({}, id="empty"), pytest.param({"platform": "debian-12"}, id="part"), pytest.param(None, id="none")]
)
def test_choice_needs_a_whole_request(request_):
    with pytest.raises(AnsibleFilterError, match="the request lacks"):
        FILTERS["cuda_toolkit_choice"](request_)


def test_devices():
    assert FILTERS["cuda_devices"]({"devices": []}) == {"compute_capabilities": [], "driver_versions": []}


def test_fleet():
    assert FILTERS["cuda_fleet"]({"a": {"cuda": {}}}) == {}


def test_disk_problem():
    assert FILTERS["disk_problem"]({"disks": []}, "/opt", "1", "A build") == ""
