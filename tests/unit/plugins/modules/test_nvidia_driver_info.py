# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host says of its driver, on this machine: it has no NVIDIA device and no driver."""

from __future__ import annotations

import platform


def test_missing_packages_are_told_and_nothing_is_changed(run_module):
    status, found = run_module("nvidia_driver_info", packages=["no-such-driver"], kernel=platform.release())
    assert (status, found["changed"]) == (0, False)
    assert found["diagnosis"]["working"] is False
    assert found["diagnosis"]["sentence"]
    assert "no-such-driver" not in found["installed"]
