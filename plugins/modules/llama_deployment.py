#!/usr/bin/python
# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: llama_deployment
short_description: Lays a deployment of a server instance beside the running one
version_added: 0.1.0
description:
  - Writes the immutable directory of a deployment, its plan and the questions of its gate, and makes the instance's key file once.
  - Nothing that runs is touched. RV(switch_needed) says whether C(llamacpp-switch) has to be asked to serve the deployment.
  - The API key is made on the host and never returned, shown or passed on a command line.
options:
  instance:
    description: The name of the instance.
    type: str
    default: main
  id:
    description: The deployment's id, as the filter P(onprem.llamacpp.deployment#filter) computes it.
    type: str
    required: true
  document:
    description: What becomes C(deployment.json).
    type: dict
    required: true
  server_env:
    description: The text of the engine's environment file.
    type: str
    required: true
  unit_conf:
    description: The text of the unit's drop-in.
    type: str
    required: true
  engine_path:
    description: The engine release that is linked as C(engine).
    type: path
    required: true
  model_path:
    description: The model directory that is linked as C(model).
    type: path
    required: true
  request:
    description: What the gate asks. It may change without a new deployment.
    type: dict
    required: true
  plan:
    description:
      - The plan behind the deployment, kept for later plans.
      - Written again when C(wish) or C(orders) in it have changed.
    type: dict
    default: {}
  api_keys:
    description:
      - The API keys, one of which every request has to carry. Empty makes one, once.
      - A server reads them when it starts, so other keys are a reason for a switch.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - onprem.llamacpp.attributes
attributes:
  diff_mode:
    support: full
    details: The deployment, and what its gate asks, are compared with those that are current.
seealso:
  - module: onprem.llamacpp.llama_switch
author:
  - onprem.llamacpp contributors (@onprem)
"""

EXAMPLES = r"""
- name: Lay the deployment
  onprem.llamacpp.llama_deployment:
    instance: main
    id: "{{ deployment.id }}"
    document: "{{ deployment.document }}"
    server_env: "{{ deployment.server_env }}"
    unit_conf: "{{ deployment.unit_conf }}"
    engine_path: "{{ deployment.engine_path }}"
    model_path: "{{ deployment.model_path }}"
    request: "{{ deployment.request }}"
    plan: "{{ llama_plan_result }}"
  become: true
  register: laid
"""

RETURN = r"""
id:
  description: The deployment's id.
  returned: always
  type: str
  sample: 3f2a9c0d1b7e
current:
  description: The id of the deployment that is current, empty when there is none.
  returned: always
  type: str
  sample: 0c11d2e98a47
switch_needed:
  description: Whether the host does not serve this deployment, proven and healthy.
  returned: always
  type: bool
  sample: true
restart_needed:
  description:
    - Whether the files of the current deployment had been changed by hand, so that what runs may not be what they say, or the API keys
      have been changed since it was started.
  returned: always
  type: bool
  sample: false
reason:
  description: Why a switch is needed, in words; empty when none is.
  returned: always
  type: str
  sample: 0c11d2e98a47 is served now
api_key_file:
  description: Where the API key is on the host.
  returned: always
  type: str
  sample: /etc/llamacpp/instances/main/api-keys
tokens_per_second:
  description: How fast the gate found this deployment; nothing before it was gated.
  returned: always
  type: float
  sample: 5.2
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.onprem.llamacpp.plugins.module_utils import _instance, _server
from ansible_collections.onprem.llamacpp.plugins.module_utils._host import read_json

REQUEST = "request.json"


def switch_reason(instance: _instance.Instance, identity: str, host: str, port: int) -> str:
    """Why this deployment is not the one that serves, or an empty string when it is."""
    current, journal = instance.current(), instance.journal()
    if not current:
        return "nothing is served yet"
    if current != identity:
        return f"{current} is served now"
    if journal.get("committed") != identity or journal.get("state") not in ("committed", "undone"):
        return f"{identity} has not passed its gate (state {journal.get('state', 'unknown')})"
    active = _server.active_state(instance.name)
    if active != "active":
        return f"the unit is {active}"
    healthy = _server.health(host, port)
    return "" if healthy == "ok" else f"the server is not healthy ({healthy})"


def differences(
    before: dict[str, str], after: dict[str, str], instance: _instance.Instance, current: str, identity: str
) -> list[dict[str, str]]:
    """The documents that differ, as Ansible shows differences."""

    def path(deployment: str, name: str) -> str:
        return instance.record(deployment, name) if name == REQUEST else f"{instance.deployment(deployment)}/{name}"

    return [
        {
            "before_header": path(current, name) if current else "(nothing deployed)",
            "before": before.get(name, ""),
            "after_header": path(identity, name),
            "after": text,
        }
        for name, text in after.items()
        if before.get(name, "") != text
    ]


def is_another_plan(recorded: dict[str, Any], plan: dict[str, Any]) -> bool:
    """Whether a plan was made for another wish or other orders. What it read of the host's state may differ at every run."""
    return recorded != plan and (not recorded or any(recorded.get(key) != plan.get(key) for key in ("wish", "orders")))


def apply(params: dict[str, Any], check_mode: bool, instance: _instance.Instance) -> dict[str, Any]:
    """Bring the instance's files to what the parameters say, or only say what that would change."""
    identity, current = params["id"], instance.current()
    documents = {
        "deployment.json": _instance.to_json(params["document"]),
        "server.env": params["server_env"],
        "unit.conf": params["unit_conf"],
    }
    links = {"engine": params["engine_path"], "model": params["model_path"]}
    request = _instance.to_json(params["request"])

    publish = not instance.intact(identity, documents, links)
    new_request = _instance.read_text(instance.record(identity, REQUEST)) != request
    new_plan = is_another_plan(read_json(instance.record(identity, "plan.json")), params["plan"])
    new_key = not instance.key_file_is_right(params["api_keys"])
    # Keys that are about to be written, or were and nobody has restarted the server since.
    stale_key = (
        current == identity
        and params["document"].get("api_key_required", True)
        and (not instance.has_keys(params["api_keys"]) or instance.key_file_is_newer(_server.started_monotonic(instance.name)))
    )
    before = {**instance.documents(current), REQUEST: _instance.read_text(instance.record(current, REQUEST)) or ""} if current else {}
    changed_by_hand = publish and current == identity
    reason = (
        switch_reason(instance, identity, params["document"].get("host", ""), int(params["document"].get("port", 0)))
        or ("its files had been changed by hand" if publish else "")
        or ("its API keys have been changed since it was started" if stale_key else "")
    )
    result = {
        "changed": publish or new_request or new_plan or new_key,
        "id": identity,
        "current": current,
        "restart_needed": changed_by_hand or stale_key,
        "switch_needed": bool(reason),
        "reason": reason,
        "api_key_file": instance.api_keys,
        "tokens_per_second": read_json(instance.record(identity, "gate.json")).get("tokens_per_second"),
        "diff": differences(before, {**documents, REQUEST: request}, instance, current, identity),
    }
    if check_mode:
        return result
    if new_key:
        instance.ensure_key_file(params["api_keys"])
    if publish:
        instance.publish(identity, documents, links)
    _instance.make_directory(os.path.join(instance.state, identity))
    if new_request:
        _instance.write_file(instance.record(identity, REQUEST), request)
    if new_plan:
        _instance.write_file(instance.record(identity, "plan.json"), _instance.to_json(params["plan"]))
    return result


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "instance": {"type": "str", "default": "main"},
            "id": {"type": "str", "required": True},
            "document": {"type": "dict", "required": True},
            "server_env": {"type": "str", "required": True},
            "unit_conf": {"type": "str", "required": True},
            "engine_path": {"type": "path", "required": True},
            "model_path": {"type": "path", "required": True},
            "request": {"type": "dict", "required": True},
            "plan": {"type": "dict", "default": {}},
            "api_keys": {"type": "list", "elements": "str", "default": [], "no_log": True},
        },
        supports_check_mode=True,
    )
    name = module.params["instance"]
    if not _instance.NAME.match(name):
        module.fail_json(msg=f"{name!r} is not a valid instance name: {_instance.NAME_RULE}.")
    try:
        module.exit_json(**apply(module.params, module.check_mode, _instance.Instance(name)))
    except OSError as error:
        module.fail_json(msg=f"The deployment could not be written: {error.strerror}: {error.filename}")


if __name__ == "__main__":
    main()
