# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Numbers for people."""

from __future__ import annotations


def amount(count: int) -> str:
    """Bytes in GB (10⁹) or, below one, in MB (10⁶); from 100 GB on without decimals."""
    if count >= 100 * 10**9:
        return f"{count / 1e9:.0f} GB"
    return f"{count / 1e9:.1f} GB" if count >= 10**9 else f"{count / 1e6:.1f} MB"
