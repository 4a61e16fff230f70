#!/usr/bin/python
# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: llama_front
short_description: Puts nginx before a server instance, or takes it away
version_added: 0.1.0
description:
  - Writes the site of an instance, its certificate and the port of its engine, lets nginx check all of it and load it. When nginx
    refuses, everything is as it was.
  - The engine's port is written once. From then on it belongs to C(llamacpp-switch), which moves it when another engine takes over.
  - M(onprem.llamacpp.llama_front_keys) has to come first, because nginx reads whose keys are valid.
options:
  instance:
    description: The name of the instance.
    type: str
    default: main
  state:
    description: Whether there is a front. Keys of clients stay on the host when it goes.
    type: str
    choices: [present, absent]
    default: present
  site:
    description: The text of nginx's configuration for the instance. It may not hold a secret, because differences are shown.
    type: str
    default: ""
  engine_port:
    description: The port on which the engine listens on loopback.
    type: int
    default: 8080
  ports:
    description: The ports on which nginx is to listen. Another program there is named, and nothing is changed.
    type: list
    elements: int
    default: []
  tls:
    description:
      - Where the certificate comes from. V(given) takes O(certificate) and O(private_key), V(internal) makes them with an authority of
        this host's own, for a lab, and renews them in time. V(none) has none.
    type: str
    choices: [given, internal, none]
    default: none
  certificate:
    description: The certificate with its chain, as PEM text, or a path on the host of one that somebody else keeps.
    type: str
    default: ""
  private_key:
    description: Its key, likewise.
    type: str
    default: ""
  names:
    description: Names and addresses by which clients know the front. An internal certificate is for exactly these.
    type: list
    elements: str
    default: []
  remove:
    description: Files that have to go, such as a distribution's default site.
    type: list
    elements: path
    default: []
extends_documentation_fragment:
  - onprem.llamacpp.attributes
attributes:
  diff_mode:
    support: full
    details: Shows the site; of certificate and key only that they change.
seealso:
  - module: onprem.llamacpp.llama_front_keys
author:
  - onprem.llamacpp contributors (@onprem)
"""

EXAMPLES = r"""
- name: Put nginx before the engine
  onprem.llamacpp.llama_front:
    site: "{{ lookup('ansible.builtin.template', 'front.conf.j2') }}"
    engine_port: 8080
    ports: [8443]
    tls: given
    certificate: /etc/ssl/certs/llm.pem
    private_key: /etc/ssl/private/llm.pem
  become: true
"""

RETURN = r"""
ca_file:
  description: The authority on the host that clients have to trust; empty unless it is the host's own.
  returned: always
  type: str
  sample: /etc/llamacpp/front/ca.pem
"""

import os
import platform
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.onprem.llamacpp.plugins.module_utils import _certificate, _instance, _processes
from ansible_collections.onprem.llamacpp.plugins.module_utils._front import OPEN, SECRET, File, Front, FrontError
from ansible_collections.onprem.llamacpp.plugins.module_utils._host import read_json


def given(params: dict[str, Any], front: Front) -> dict[str, File]:
    """Certificate and key that came as text, by path; those that came as a path are somebody else's files.

    :raises FrontError: one of them is missing
    """
    files = {}
    for name, text in (("certificate.pem", params["certificate"]), ("key.pem", params["private_key"])):
        if _certificate.PEM in text:
            files[front.path(name)] = File(text.strip() + "\n")
        elif not os.path.isfile(text):
            what = "llama_server_front_tls_certificate" if name == "certificate.pem" else "llama_server_front_tls_key"
            raise FrontError(f"{what} is neither PEM text nor a file of this host: {'empty' if not text else 'no such file'}.")
    return files


def internal(params: dict[str, Any], front: Front, authority: _certificate.Authority, check_mode: bool) -> dict[str, File]:
    """Certificate and key of the host's own authority, where those that are there will not do."""
    certificate, names = front.path("certificate.pem"), front.path("names")
    if authority.made(certificate, names, params["names"]):
        return {}
    if check_mode:
        return {certificate: File("one that is made anew\n")}
    _instance.make_directory(front.root)
    _instance.make_directory(front.folder, 0o700)
    made = authority.make(front.folder, params["names"], platform.node())
    files = {front.path(name): File(made[name]) for name in ("certificate.pem", "key.pem")}
    if "ca.pem" in made:
        files.update({authority.certificate: File(made["ca.pem"], OPEN), authority.key: File(made["ca-key.pem"], SECRET)})
    return {**files, names: File(_certificate.subject_alternative_names(params["names"]) + "\n")}


def apply(params: dict[str, Any], check_mode: bool, front: Front) -> dict[str, Any]:
    """Bring the front to what the parameters say, or only say what that would change.

    :raises FrontError: it cannot be
    :raises CertificateError: no certificate could be made
    """
    authority = _certificate.Authority(front.root)
    if params["state"] == "absent":
        drained = os.path.join(_instance.STATE_ROOT, front.name, "drained")
        return {**front.apply({}, [front.site, front.upstream, front.path("loaded"), drained], check_mode), "ca_file": ""}
    for holder in _processes.listeners(params["ports"]):
        if holder["program"] not in ("nginx", ""):
            raise FrontError(
                f"Port {holder['port']} is held by {holder['program']} (PID {holder['pid']}). Stop it, or set another port for the front."
            )
    for address, path in front.taken(params["site"]):
        raise FrontError(f"{path} has a front at {address} already. Set another port for this one.")
    files = {front.site: File(params["site"], OPEN)}
    if not os.path.exists(front.upstream):
        files[front.upstream] = File(f"server 127.0.0.1:{engine_port(front.name, params['engine_port'])};\n", OPEN)
    if params["tls"] == "given":
        files.update(given(params, front))
        if _certificate.expired(params["certificate"]):
            raise FrontError("The certificate in llama_server_front_tls_certificate has expired; nothing was changed.")
    elif params["tls"] == "internal":
        files.update(internal(params, front, authority, check_mode))
    result = front.apply(files, params["remove"], check_mode)
    return {**result, "ca_file": authority.certificate if params["tls"] == "internal" else ""}


def engine_port(name: str, wish: int) -> int:
    """The port of the engine that serves; the wish where none does yet."""
    instance = _instance.Instance(name)
    current = instance.current()
    document = read_json(f"{instance.deployment(current)}/deployment.json") if current else {}
    return int(document.get("port") or wish)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "instance": {"type": "str", "default": "main"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "site": {"type": "str", "default": ""},
            "engine_port": {"type": "int", "default": 8080},
            "ports": {"type": "list", "elements": "int", "default": []},
            "tls": {"type": "str", "choices": ["given", "internal", "none"], "default": "none"},
            "certificate": {"type": "str", "default": ""},
            "private_key": {"type": "str", "default": "", "no_log": True},
            "names": {"type": "list", "elements": "str", "default": []},
            "remove": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(**apply(module.params, module.check_mode, Front(module.params["instance"])))
    except (FrontError, _certificate.CertificateError) as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"The front could not be written: {error.strerror}: {error.filename}")


if __name__ == "__main__":
    main()
