# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter ``deployment``; its documentation is beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable

from ansible.errors import AnsibleFilterError

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _deployment


def deployment(
    engine: Mapping[str, Any],
    model: Mapping[str, Any],
    plan: Mapping[str, Any],
    environment: Mapping[str, Any],
    unit: str,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """The deployment of an engine and a model with these settings."""
    try:
        return _deployment.describe(engine, model, plan, environment, unit, settings)
    except _deployment.DeploymentError as error:
        raise AnsibleFilterError(str(error)) from None
    except (KeyError, TypeError) as error:
        raise AnsibleFilterError(f"deployment: an input lacks what a deployment is made of: {error}") from None


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"deployment": deployment}
