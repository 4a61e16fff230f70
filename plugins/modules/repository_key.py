#!/usr/bin/python
# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: repository_key
short_description: Installs the public key of a package repository when it has the fingerprint that is expected
version_added: 0.1.0
description:
  - Takes an armored OpenPGP public key from a URL or a text, compares the fingerprints of its primary keys, and writes it.
  - A file that holds keys with these fingerprints already costs no request.
  - Installs none where the host's sources of apt have the repository already (O(repository)), with a key of their own.
  - Needs nothing but the host's Python; no gpg.
author:
  - onprem.llamacpp contributors (@onprem)
extends_documentation_fragment:
  - onprem.llamacpp.attributes
attributes:
  diff_mode:
    support: none
    details: The file is a key.
options:
  url:
    description: Where the key is fetched from when O(content) is empty.
    type: str
    default: ""
  content:
    description: The key itself.
    type: str
    default: ""
  fingerprints:
    description: Fingerprints that the keys may have, 40 hexadecimal digits each. Any key is taken from O(content) when empty.
    type: list
    elements: str
    default: []
  path:
    description: File to write.
    type: path
    required: true
  repository:
    description: The repository that the key is for, to be looked for among the host's sources of apt.
    type: str
    default: ""
  timeout:
    description: Seconds after which a server that does not answer is given up.
    type: int
    default: 30
"""

EXAMPLES = r"""
- name: Install the key of NVIDIA's repository for Debian 12
  onprem.llamacpp.repository_key:
    url: https://developer.download.nvidia.com/compute/cuda/repos/debian12/x86_64/3bf863cc.pub
    fingerprints: [EB693B3035CD5710E231E123A4B469963BF863CC]
    path: /etc/apt/keyrings/nvidia.asc
  become: true
"""

RETURN = r"""
fingerprints:
  description: Fingerprints of the keys in the file.
  type: list
  elements: str
  returned: success
source:
  description: The file of apt's sources that has the repository already, else empty.
  type: str
  returned: success
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.text.converters import to_native
from ansible.module_utils.urls import open_url

from ansible_collections.onprem.llamacpp.plugins.module_utils import _apt_sources, _openpgp
from ansible_collections.onprem.llamacpp.plugins.module_utils._host import read_text


def known(path: str, wanted: set[str]) -> list[str]:
    """The fingerprints in a file, when they are all wanted."""
    try:
        found = _openpgp.fingerprints(read_text(path))
    except _openpgp.PublicKeyError:
        return []
    return found if wanted and set(found) <= wanted else []


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "default": ""},
            "content": {"type": "str", "default": "", "no_log": False},
            "fingerprints": {"type": "list", "elements": "str", "default": []},
            "path": {"type": "path", "required": True},
            "repository": {"type": "str", "default": ""},
            "timeout": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    options = module.params
    source = _apt_sources.file_of(options["repository"]) if options["repository"] else ""
    if source:
        module.exit_json(changed=False, fingerprints=[], source=source)
    wanted = {_openpgp.plain(item) for item in options["fingerprints"]}
    present = known(options["path"], wanted)
    if present and not options["content"]:
        module.exit_json(changed=False, fingerprints=present, source="")
    text, origin = options["content"], options["url"] or "the given text"
    if not text:
        try:
            text = to_native(open_url(options["url"], timeout=options["timeout"]).read(1 << 20), errors="surrogate_or_strict")
        except Exception as error:  # whatever a network or a server may do
            reason = to_native(error).rstrip(".")
            module.fail_json(
                msg=f"The repository's key cannot be fetched from {options['url']}: {reason}. Let this host reach it, name a mirror of"
                " your own as the repository, or give the key itself."
            )
    try:
        found = _openpgp.fingerprints(text)
    except _openpgp.PublicKeyError as error:
        module.fail_json(msg=f"What {origin} gives is no key for a repository: {error}.")
    if (wanted and not set(found) <= wanted) or not (wanted or options["content"]):
        expected = f"{' or '.join(sorted(wanted))} is expected" if wanted else "no fingerprint is given to compare it with"
        module.fail_json(msg=f"The key from {origin} has the fingerprint {', '.join(found)}, but {expected}. Nothing was installed.")
    changed = read_text(options["path"]) != text
    if changed and not module.check_mode:
        os.makedirs(os.path.dirname(options["path"]), mode=0o755, exist_ok=True)
        fresh = options["path"] + ".new"
        with open(fresh, "w", encoding="utf-8") as handle:
            handle.write(text)
        os.chmod(fresh, 0o644)
        os.rename(fresh, options["path"])
    module.exit_json(changed=changed, fingerprints=found, source="")


if __name__ == "__main__":
    main()
