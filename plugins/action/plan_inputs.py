# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings together what the plan of a host is made of: facts, wish, catalogue entry, and the question to the repository.

One task for all of it, because a task costs as much as a plan does and fleets are large.
"""

from __future__ import annotations

from typing import Any, Optional

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.vars import load_extra_vars

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _catalog, _instances, _plan_settings, _planner, _recorded

# Names of variables that the role loads from vars/catalog/, one a family.
SHIPPED = "_llama_plan_catalog_"
ADVISORIES = "_llama_plan_advisories"


class ActionModule(ActionBase):
    """Everything is decided on the controller; the host is only asked for its facts."""

    _requires_connection = True
    _supports_check_mode = True
    TRANSFERS_FILES = False

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        variables = task_vars or {}
        arguments = self._task.args
        try:
            settings = {**_plan_settings.check(arguments["settings"])}
            sources = settings.pop("sources")
            settings.update(endpoint=sources["endpoint"], mirror=sources["mirror"])
            settings["advisories"] = self._advisories(variables, arguments.get("advisories", []))
            catalog = {**self._shipped(variables), **arguments.get("catalog", {})}
            wishes = self._wishes(settings, catalog, arguments.get("instances") or [], arguments.get("serving") or {})
            recorded = _recorded.check(arguments["recorded"], variables["inventory_hostname"]) if "recorded" in arguments else None
        except (_plan_settings.SettingsError, _instances.InstancesError, _catalog.PlanError, _recorded.RecordedError) as error:
            raise AnsibleActionFail(str(error)) from None
        result: dict[str, Any] = {"changed": False}
        if recorded is None:
            asked = dict(arguments.get("hardware", {}))
            asked["ports"] = [wish["settings"]["port"] for wish in wishes.values()]
            hardware = {"module_name": "onprem.llamacpp.hardware_facts", "module_args": asked}
            result = dict(self._execute_module(**hardware, task_vars=variables))
            if result.get("failed") or result.get("unreachable"):
                return result
            settings["problems"] = list(self._with_facts(variables, result["ansible_facts"], "llama_plan_problems") or [])
            settings["cuda_problems"] = list(self._with_facts(variables, result["ansible_facts"], "llama_plan_cuda_problems") or [])
            settings["driver_refusal"] = str(self._with_facts(variables, result["ansible_facts"], "llama_plan_driver_refusal"))
        facts = recorded or result["ansible_facts"]["llama_hardware"]
        for wish in wishes.values():
            if _planner.needs_listing(facts, wish["settings"], wish["entry"]):
                wish["question"] = _planner.question(wish["settings"], wish["entry"])
        questions = [wish["question"] for wish in wishes.values() if wish["question"]]
        if questions and sources["problem"]:
            raise AnsibleActionFail(sources["problem"])
        return {**result, "facts": facts, "recorded": recorded is not None, "wishes": wishes, "questions": questions}

    def _wishes(self, main: dict[str, Any], catalog: dict[str, Any], declared: Any, serving: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """What every instance of the host is to be, by its name, in the order of planning.

        Raises:
            InstancesError, PlanError: one of them cannot be understood.
        """
        own = {**serving, "port": main["port"]}
        wishes = {main["instance"]: {"settings": main, "entry": _catalog.find_entry(main["model"], catalog), "instance": {}}}
        wishes[main["instance"]].update(question={}, ports=_instances.ports(own, serving) if declared else {})
        for instance in _instances.read(declared, load_extra_vars(self._loader)) if declared else []:
            settings = _instances.settings(instance, main)
            try:
                entry = _catalog.find_entry(settings["model"], catalog)
            except _catalog.PlanError as error:
                raise _instances.InstancesError(f"{_instances.VARIABLE}: {instance['name']}: {error}") from None
            wish = {"settings": settings, "entry": entry, "instance": instance, "question": {}}
            wishes[instance["name"]] = {**wish, "ports": _instances.ports(instance, serving)}
        return wishes

    @staticmethod
    def _shipped(variables: dict[str, Any]) -> dict[str, Any]:
        """The catalogue that comes with the role, read as it is: it is large, holds no templates, and concerns every host."""
        families = [value for name, value in variables.items() if name.startswith(SHIPPED)]
        return {key: entry for family in families for key, entry in family.items()}

    @staticmethod
    def _advisories(variables: dict[str, Any], own: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The advisories that come with the role, read as they are too, and the user's in place of those of the same id."""
        replaced = {entry.get("id") for entry in own}
        return [*(entry for entry in variables.get(ADVISORIES, []) if entry["id"] not in replaced), *own]

    def _with_facts(self, variables: dict[str, Any], facts: dict[str, Any], name: str) -> Any:
        """A variable about what stands in the way, as the playbook sees it now that there are facts."""
        known = {**variables, "ansible_facts": {**variables.get("ansible_facts", {}), **facts}}
        return self._templar.copy_with_new_env(available_variables=known).template(variables[name])
