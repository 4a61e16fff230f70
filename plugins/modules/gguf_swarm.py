#!/usr/bin/python
# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation and wiring of the module; the work is done in module_utils."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: gguf_swarm
short_description: Exchange a quant of a GGUF model with the other hosts of a site
version_added: 0.1.0
description:
  - Fills the staging directory of M(onprem.llamacpp.gguf_download) by BitTorrent. Every host takes another share of the files from
    the site's mirror, by HTTP ranges, and gives it to the others, so that each byte leaves the mirror about once.
  - Nothing is verified by SHA-256 or published here. M(onprem.llamacpp.gguf_download), run afterwards, does that, as it does for all
    that has arrived by any way, and it fetches what is missing. So a swarm that cannot be had is told, and is no failure.
  - The exchange is a transient systemd unit that runs as an unprivileged user and speaks to the given peers only. Neither a tracker
    nor DHT, peer exchange or local discovery is used.
  - Run as a task, it waits for the end and shows a line of progress every few seconds.
options:
  state:
    description:
      - V(filled) brings what can be had into the staging directory.
      - V(seeding) gives the published model to peers for O(seconds), or until each byte was given O(ratio) times.
    type: str
    choices: [filled, seeding]
    default: filled
  mirror:
    description: URL of the site's mirror, which has the torrent and the files.
    type: str
    default: ""
  token:
    description: Token of the mirror. It is handed to the unit as a systemd credential.
    type: str
  ca_file:
    description: File with the certificate authorities that vouch for the mirror. Empty for the system's.
    type: str
    default: ""
  timeout:
    description: Seconds without a byte after which a connection to the mirror counts as broken.
    type: float
    default: 60
  peers:
    description: Addresses of the hosts to exchange with. Nobody else is spoken to.
    type: list
    elements: str
    default: []
  sharers:
    description: Addresses of the hosts that fetch at the same time, in the same order on all of them, this one as an empty string.
    type: list
    elements: str
    default: [""]
  port:
    description: TCP port of all hosts of the swarm.
    type: int
    default: 6881
  rate_limit:
    description: Bytes a second from the mirror. 0 for no limit.
    type: int
    default: 0
  upload_limit:
    description: Bytes a second to all peers together. 0 for no limit.
    type: int
    default: 0
  seconds:
    description: How long to seed.
    type: int
    default: 1800
  ratio:
    description: How many times each byte may be given at most before seeding ends. 0 for no such bound.
    type: float
    default: 0
  started:
    description: Whether an earlier run of the same task has started the unit. Set by the task itself.
    type: bool
    default: false
extends_documentation_fragment:
  - onprem.llamacpp.attributes
  - onprem.llamacpp.model
  - onprem.llamacpp.model.unit
requirements:
  - systemd 247 or newer on the host
  - libtorrent 2.0 with its Python module on the host
seealso:
  - module: onprem.llamacpp.gguf_download
  - module: onprem.llamacpp.model_torrents
author:
  - onprem.llamacpp contributors (@onprem)
"""

EXAMPLES = r"""
---
- name: Exchange the model with two other hosts
  become: true
  onprem.llamacpp.gguf_swarm:
    repo_id: "{{ repository.repo_id }}"
    commit: "{{ repository.commit }}"
    quant: UD-Q2_K_XL
    files: "{{ repository.quants['UD-Q2_K_XL'].files }}"
    mirror: http://mirror.example.com
    peers: [192.0.2.12, 192.0.2.13]
    sharers: ["", 192.0.2.12, 192.0.2.13]
"""

RETURN = r"""
---
finished:
  description: Whether there is nothing left to wait for.
  returned: success
  type: bool
filled:
  description: Whether the staging directory, or the published model, is complete.
  returned: success
  type: bool
note:
  description: Why it is not, or what the exchange is struggling with. Empty when all is well.
  returned: success
  type: str
bytes_total:
  description: Size of all files in bytes.
  returned: success
  type: int
bytes_done:
  description: Bytes that have arrived, checked by the torrent's piece hashes.
  returned: success
  type: int
bytes_from_mirror:
  description: Bytes that this host took from the mirror.
  returned: success
  type: int
peers:
  description: Peers that were connected last.
  returned: success
  type: int
unit:
  description: Name of the transient unit.
  returned: success
  type: str
  sample: llamacpp-swarm-fill-0123abcd.service
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.onprem.llamacpp.plugins.module_utils._arguments import MODEL, UNIT
from ansible_collections.onprem.llamacpp.plugins.module_utils._host import run_command
from ansible_collections.onprem.llamacpp.plugins.module_utils._model_store import Model, StoreError
from ansible_collections.onprem.llamacpp.plugins.module_utils._swarm_unit import Swarm

POLL_SECONDS = 0.2


def run(argv: list[str]) -> tuple[int, str, str]:
    """Runs a tool of systemd's; stopping a unit may take its time."""
    return run_command(argv, timeout=120.0)


def fill(module: AnsibleModule, swarm: Swarm) -> dict[str, Any]:
    """Start filling unless that was done, and stay with it for O(wait) seconds."""
    model, unit = swarm.model, swarm.unit("fill")
    result: dict[str, Any] = {"changed": False, "finished": True, "filled": False, "unit": unit, "bytes_total": model.bytes}
    nothing = {"bytes_done": 0, "bytes_from_mirror": 0, "peers": 0, "note": ""}
    if model.complete():
        return dict(result, filled=True, **{**nothing, "bytes_done": model.bytes})
    if not swarm.active(unit) and not module.params["started"]:
        if module.check_mode:
            return dict(result, changed=True, msg=f"Would exchange {model.quant} with {len(module.params['peers'])} peers.", **nothing)
        hindrance = swarm.hindrance()
        if hindrance:
            return dict(result, **{**nothing, "note": hindrance})
        swarm.fill()
    deadline = time.monotonic() + max(module.params["wait"], 0.0)
    while swarm.active(unit):
        if time.monotonic() >= deadline:
            return {**result, "changed": True, "finished": False, **_told(swarm)}
        time.sleep(POLL_SECONDS)
    found = swarm.progress()
    swarm.forget("fill")
    filled = found["state"] == "filled"
    if not filled and not found["note"]:
        found["note"] = f"the swarm ended early; see journalctl -u {unit}"
    return {**result, "changed": True, "filled": filled, **{name: found[name] for name in nothing}}


def _told(swarm: Swarm) -> dict[str, Any]:
    found = swarm.progress()
    return {name: found[name] for name in ("bytes_done", "bytes_from_mirror", "peers", "note")}


def seed(module: AnsibleModule, swarm: Swarm) -> dict[str, Any]:
    model, unit = swarm.model, swarm.unit("seed")
    result = {"changed": False, "finished": True, "filled": model.complete(), "unit": unit, "bytes_total": model.bytes}
    result.update(bytes_done=0, bytes_from_mirror=0, peers=0, note="")
    if swarm.active(unit) or not module.params["seconds"]:
        return result
    if swarm.python() is None:
        return dict(result, note=swarm.hindrance())
    if not model.complete() and not module.check_mode:
        raise StoreError(f"{model.quant} is not published at {model.path}, so it cannot be given to anyone. Bring it first.")
    if not module.check_mode:
        swarm.seed()
    return dict(result, changed=True)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **MODEL,
            **UNIT,
            "state": {"type": "str", "choices": ["filled", "seeding"], "default": "filled"},
            "mirror": {"type": "str", "default": ""},
            "token": {"type": "str", "no_log": True},
            "ca_file": {"type": "str", "default": ""},
            "timeout": {"type": "float", "default": 60},
            "peers": {"type": "list", "elements": "str", "default": []},
            "sharers": {"type": "list", "elements": "str", "default": [""]},
            "port": {"type": "int", "default": 6881},
            "rate_limit": {"type": "int", "default": 0},
            "upload_limit": {"type": "int", "default": 0},
            "seconds": {"type": "int", "default": 1800},
            "ratio": {"type": "float", "default": 0},
            "started": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    params = module.params
    if not params["mirror"].startswith(("http://", "https://")):
        module.fail_json(msg=f"mirror {params['mirror']!r} is not an http or https URL.")
    if not params["files"]:
        module.fail_json(msg=f"No files are given for {params['repo_id']} {params['quant']}.")
    if params["sharers"].count("") != 1:
        module.fail_json(msg="sharers must hold this host exactly once, as an empty string.")
    work = {"filled": fill, "seeding": seed}[params["state"]]
    try:
        model = Model(params["root"], params["repo_id"], params["commit"], params["quant"], params["files"])
        result = work(module, Swarm(model, {**params, "number": params["sharers"].index("")}, run))
    except StoreError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename or params['root']}: {error.strerror}. Nothing was published.")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
