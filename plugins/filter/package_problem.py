# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter ``package_problem``; its documentation is beside it."""

from __future__ import annotations

from typing import Any, Callable

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _package_problems


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"package_problem": _package_problems.package_problem}
