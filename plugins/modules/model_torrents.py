#!/usr/bin/python
# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation and wiring of the module; the work is done in module_utils."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: model_torrents
short_description: Make torrents of the models that a mirror serves
version_added: 0.1.0
description:
  - Makes a private torrent of every whole quant in an index of M(onprem.llamacpp.hub_index), and removes those of quants that it no
    longer holds.
  - A quant is read once for it. A torrent of the same files is left alone, without reading them.
  - A torrent names neither a tracker nor a peer. Its web seed (BEP 19) is the mirror itself.
options:
  root:
    description: Directory of the index. Torrents are written to C(torrents/<commit>/<quant>.torrent) in it.
    type: path
    required: true
  url:
    description: URL at which the mirror answers, for other BitTorrent clients. Empty for torrents without a web seed.
    type: str
    default: ""
extends_documentation_fragment:
  - onprem.llamacpp.attributes
seealso:
  - module: onprem.llamacpp.hub_index
  - module: onprem.llamacpp.gguf_swarm
author:
  - onprem.llamacpp contributors (@onprem)
"""

EXAMPLES = r"""
---
- name: Make torrents of what the mirror serves
  become: true
  onprem.llamacpp.model_torrents:
    root: /var/lib/llamacpp/mirror
    url: http://mirror.example.com
"""

RETURN = r"""
---
torrents:
  description: Names of all torrents below C(torrents).
  returned: success
  type: list
  elements: str
made:
  description: Names of those that were made in this run.
  returned: success
  type: list
  elements: str
removed:
  description: Names of those that were removed in this run.
  returned: success
  type: list
  elements: str
hashed_bytes:
  description: Bytes that were read for hashing in this run.
  returned: success
  type: int
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.onprem.llamacpp.plugins.module_utils import _torrent_index as index
from ansible_collections.onprem.llamacpp.plugins.module_utils._quant import QuantError
from ansible_collections.onprem.llamacpp.plugins.module_utils._torrent import TorrentError


def main() -> None:
    module = AnsibleModule(
        argument_spec={"root": {"type": "path", "required": True}, "url": {"type": "str", "default": ""}},
        supports_check_mode=True,
    )
    root, url = module.params["root"], module.params["url"]
    try:
        wanted = index.wishes(root)
        missing, stray = index.missing(root, wanted), index.stray(root, wanted)
        hashed = 0
        if not module.check_mode:
            hashed = sum(index.write(root, wish, url) for wish in missing)
            index.remove(root, stray)
    except (QuantError, TorrentError) as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename or root}: {error.strerror}. Check that the index at {root} is that of this mirror.")
    module.exit_json(
        changed=bool(missing or stray),
        torrents=sorted(wish.name for wish in wanted),
        made=[wish.name for wish in missing],
        removed=stray,
        hashed_bytes=hashed,
    )


if __name__ == "__main__":
    main()
