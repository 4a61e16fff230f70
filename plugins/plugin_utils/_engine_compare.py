# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether two builds from the same inputs are the same. Pure."""

from __future__ import annotations

from collections.abc import Mapping


def differences(first: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """One sentence for each file that only one of two builds has or that differs; files by path with their sha256 or link."""
    told = []
    for path in sorted({*first, *other}):
        if path not in other:
            told.append(f"{path} is in the first build only.")
        elif path not in first:
            told.append(f"{path} is in the second build only.")
        elif first[path] != other[path]:
            told.append(f"{path} differs: {first[path][:12]} in the first build, {other[path][:12]} in the second.")
    return told
