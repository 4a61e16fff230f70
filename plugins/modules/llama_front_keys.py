#!/usr/bin/python
# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: llama_front_keys
short_description: Says whose keys open a front
version_added: 0.1.0
description:
  - Every client of a front, the nginx before a server instance, has a key of its own. One that is not given is made on the host, once.
  - A client changes its key without a gap. O(rotate) makes a new one beside the old one, O(retire) ends the old one.
  - A client that is no longer named loses its key. Others keep theirs.
  - The engine's own key is made here too, and known to nobody but nginx and the engine.
  - Where the front serves already, nginx checks the change and loads it. No request fails.
  - Keys are never returned, shown or passed on a command line.
options:
  instance:
    description: The name of the instance.
    type: str
    default: main
  clients:
    description: The clients.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Its name, which nginx logs instead of the key.
        type: str
        required: true
      key:
        description: Its key. Empty for one that is made on the host.
        type: str
        default: ""
      previous_key:
        description: The key that it had before and that is valid, too, for as long as it stands here.
        type: str
        default: ""
  rotate:
    description: Names of clients that get a new key beside the one that they have. One with two valid keys keeps them.
    type: list
    elements: str
    default: []
  retire:
    description:
      - Names of clients whose old key ends. With the same name in O(rotate) a new key takes the place of all others at once, for a
        key that has become known.
    type: list
    elements: str
    default: []
  engine_key:
    description: Whether the engine asks for its key.
    type: bool
    default: true
  engine_keys:
    description:
      - The engine's own keys, of which nginx uses the first. Empty makes one, once.
      - Where the front serves, the first must be a key that the running engine has read, or nothing is changed. A key file that was
        removed gets the key that nginx uses.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - onprem.llamacpp.attributes
attributes:
  diff_mode:
    support: full
    details: Says which files change, never what is in them.
seealso:
  - module: onprem.llamacpp.llama_front
author:
  - onprem.llamacpp contributors (@onprem)
"""

EXAMPLES = r"""
- name: Give three clients keys
  onprem.llamacpp.llama_front_keys:
    clients:
      - name: chat
      - name: search
      - name: batch
        key: "{{ vault_batch_key }}"
        previous_key: "{{ vault_batch_key_before }}"
  become: true

- name: Give one of them a new key
  onprem.llamacpp.llama_front_keys:
    clients: "{{ llama_server_front_keys }}"
    rotate: [chat]
  become: true
"""

RETURN = r"""
clients:
  description: The clients, where their keys are on the host, the newest first, and how many are valid.
  returned: always
  type: list
  elements: dict
  sample: [{name: chat, file: /etc/llamacpp/front/main/clients/chat, valid: 1}]
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.onprem.llamacpp.plugins.module_utils import _front_keys, _instance, _server
from ansible_collections.onprem.llamacpp.plugins.module_utils._front import File, Front, FrontError

RUNS = ("active", "activating", "reloading")


def usable_engine_keys(given: list[str], shown: str, instance: _instance.Instance) -> list[str]:
    """The engine's keys while it runs and nginx shows it one: those given, or else the one shown where the key file has none.

    :raises FrontError: nginx would show a key that the engine has not read
    """
    held = _front_keys.engine_keys(_instance.read_text(instance.api_keys) or "")
    first = (given or held or [shown])[0]
    read = [] if instance.key_file_is_newer(_server.started_monotonic(instance.name)) else held
    if first not in (shown, *read):
        raise FrontError(
            f"{'llama_server_api_keys' if given else instance.api_keys} must begin with a key that the running engine of {instance.name}"
            " has read, and begins with another one. nginx would use it at once, and all clients would be refused until the engine is"
            " restarted. Nothing was changed. Clients change their keys with llama_server_front_rotate; the engine's own can stay. To"
            " change it too, put the new key behind the old one, run site.yml, then remove the old one and run site.yml again."
        )
    return given or ([] if held else [shown])


def apply(params: dict[str, Any], check_mode: bool, front: Front, instance: _instance.Instance) -> dict[str, Any]:
    """Bring the keys to what the parameters say, or only say what that would change.

    :raises FrontError: the wish cannot be granted
    """
    clients = [
        _front_keys.Client(each["name"], tuple(key for key in (each["key"], each["previous_key"]) if key)) for each in params["clients"]
    ]
    problems = _front_keys.problems(clients, params["rotate"], params["retire"])
    if problems:
        raise FrontError(" ".join(problems))
    engine_keys, served = params["engine_keys"], front.path("engine-key.conf")
    shown = _front_keys.shown_key(_instance.read_text(served) or "") if os.path.exists(front.site) else ""
    in_use = bool(shown) and _server.active_state(instance.name) in RUNS
    if in_use and params["engine_key"]:
        engine_keys = usable_engine_keys(engine_keys, shown, instance)
    new_engine_key = params["engine_key"] and not instance.key_file_is_right(engine_keys)
    if new_engine_key and not check_mode:
        instance.ensure_key_file(engine_keys)
    engine_key = (_instance.read_text(instance.api_keys) or "") if params["engine_key"] else ""

    held = _front_keys.read(front.clients)
    keys = _front_keys.wanted(clients, held, params["rotate"], params["retire"])
    files = {os.path.join(front.clients, name): File("\n".join([*mine, ""])) for name, mine in keys.items()}
    files[front.path("callers.conf")] = File(_front_keys.callers(front.name, keys))
    # One that needs no key any more may still be asking for it, and does not mind it later.
    if not (new_engine_key and check_mode) and (params["engine_key"] or not in_use):
        files[served] = File(_front_keys.engine_key(engine_key))
    result = front.apply(files, [os.path.join(front.clients, name) for name in held if name not in keys], check_mode)
    told = [{"name": name, "file": os.path.join(front.clients, name), "valid": len(mine)} for name, mine in sorted(keys.items())]
    return {**result, "changed": result["changed"] or new_engine_key, "clients": told}


def main() -> None:
    key = {"type": "str", "default": "", "no_log": True}
    module = AnsibleModule(
        argument_spec={
            "instance": {"type": "str", "default": "main"},
            "clients": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "no_log": False,
                "options": {"name": {"type": "str", "required": True}, "key": key, "previous_key": key},
            },
            "rotate": {"type": "list", "elements": "str", "default": []},
            "retire": {"type": "list", "elements": "str", "default": []},
            "engine_key": {"type": "bool", "default": True, "no_log": False},
            "engine_keys": {"type": "list", "elements": "str", "default": [], "no_log": True},
        },
        supports_check_mode=True,
    )
    name = module.params["instance"]
    try:
        module.exit_json(**apply(module.params, module.check_mode, Front(name), _instance.Instance(name)))
    except FrontError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"The keys could not be written: {error.strerror}: {error.filename}")


if __name__ == "__main__":
    main()
