# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters that render a plan as the environment of one build of llama-server, and tell what the build is not told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable

from ansible.errors import AnsibleFilterError

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _environment

Render = Callable[[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]], Any]


def _filter(name: str, render: Render) -> Callable[..., Any]:
    """A filter that gives a render function dictionaries only, and turns what it says into an error of Ansible's."""

    def checked(plan: Mapping[str, Any], build: Mapping[str, Any], settings: Mapping[str, Any]) -> Any:
        for what, value in (("plan", plan), ("build", build), ("settings", settings)):
            if not isinstance(value, Mapping):
                raise AnsibleFilterError(f"{name}: the {what} is not a dictionary")
        try:
            return render(plan, build, settings)
        except _environment.ExpressionError as error:
            raise AnsibleFilterError(f"{name}: {error}") from error

    return checked


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        renders: dict[str, Render] = {"server_environment": _environment.render, "server_notes": _environment.notes}
        return {name: _filter(name, render) for name, render in renders.items()}
