# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters that decide what a mirror fetches and what it may remove; their documentation is beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Callable

from ansible.errors import AnsibleFilterError

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _mirror_models

Items = Iterable[Mapping[str, Any]]


def mirror_wishes(models: Items, catalog: Mapping[str, Any], served: Iterable[str]) -> list[dict[str, Any]]:
    try:
        return _mirror_models.wishes(models, catalog, list(served))
    except _mirror_models.MirrorError as error:
        raise AnsibleFilterError(str(error)) from None


def mirror_missing(wished: Items, index: Items) -> list[dict[str, Any]]:
    return _mirror_models.missing(wished, index)


def mirror_downloads(answers: Items) -> list[dict[str, Any]]:
    try:
        return _mirror_models.downloads(answers)
    except _mirror_models.MirrorError as error:
        raise AnsibleFilterError(str(error)) from None


def mirror_revisions(fetched: Items) -> list[dict[str, str]]:
    return _mirror_models.revisions(fetched)


def mirror_kept(index: Items, wished: Items, keep: Items, commits: int) -> list[dict[str, str]]:
    return _mirror_models.kept(index, list(wished), list(keep), int(commits))


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "mirror_wishes": mirror_wishes,
            "mirror_missing": mirror_missing,
            "mirror_downloads": mirror_downloads,
            "mirror_revisions": mirror_revisions,
            "mirror_kept": mirror_kept,
        }
