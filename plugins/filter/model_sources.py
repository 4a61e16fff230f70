# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters that say where models come from; their documentation is beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Callable

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _sites


def model_sources(wish: Mapping[str, Any], hosts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What a host is to ask for models, best first."""
    return _sites.sources(wish, hosts)


def listing_sources(wish: Mapping[str, Any], hosts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Whom to ask what a repository holds."""
    return _sites.listing_sources(wish, hosts)


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"model_sources": model_sources, "listing_sources": listing_sources}
