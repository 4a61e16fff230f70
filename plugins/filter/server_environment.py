# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter that renders a plan as the environment of one build of llama-server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable

from ansible.errors import AnsibleFilterError

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _environment


def server_environment(plan: Mapping[str, Any], build: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, str]:
    for name, value in (("plan", plan), ("build", build), ("settings", settings)):
        if not isinstance(value, Mapping):
            raise AnsibleFilterError(f"server_environment: the {name} is not a dictionary")
    try:
        return _environment.render(plan, build, settings)
    except _environment.ExpressionError as error:
        raise AnsibleFilterError(f"server_environment: {error}") from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"server_environment": server_environment}
