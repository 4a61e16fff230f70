# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters that decide what a bundle is made of."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _catalog


def catalog_repository(model: str, catalogs: Sequence[Mapping[str, Any]]) -> str:
    """The repository of a model; later catalogues win."""
    try:
        entry = _catalog.find_entry(model, {key: entry for catalog in catalogs for key, entry in catalog.items()})
    except _catalog.PlanError as error:
        raise AnsibleFilterError(str(error)) from error
    return str(entry["repo_id"])


def wheel_inputs(installed: str, names: Sequence[str]) -> dict[str, Any]:
    """What decides the controller's Python packages: the versions it runs with now, from ``pip list --format=json``."""
    versions = {str(item["name"]).lower().replace("_", "-"): str(item["version"]) for item in json.loads(installed)}
    missing = [name for name in names if name.replace("_", "-") not in versions]
    if missing:
        raise AnsibleFilterError(
            f"The Python that runs Ansible lacks {', '.join(missing)}, so its versions cannot be gathered. "
            "Install requirements.txt there, or set llama_bundle_wheels to false."
        )
    return {
        "inputs": {
            "python": ".".join(platform.python_version_tuple()[:2]),
            "machine": platform.machine(),
            "requirements": [f"{name}=={versions[name.replace('_', '-')]}" for name in names],
        },
        "constraints": sorted(f"{name}=={version}" for name, version in versions.items()),
    }


class FilterModule:
    """Filters of the bundle."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"catalog_repository": catalog_repository, "wheel_inputs": wheel_inputs}
