# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings files of a bundle to the controller, verified, from a directory of the controller or of the host."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from typing import Any, Optional

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.onprem.llamacpp.plugins.module_utils import _bundle
from ansible_collections.onprem.llamacpp.plugins.module_utils._files import sha256_of
from ansible_collections.onprem.llamacpp.plugins.module_utils._quant import QuantError, check_path


class ActionModule(ActionBase):
    """Weights and packages stay where they are: they are for the host, and too many."""

    TRANSFERS_FILES = True
    _supports_check_mode = True

    def run(self, tmp: Any = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        args = self._task.args
        path, kinds, inputs = str(args["path"]), list(args["kinds"]), dict(args.get("inputs") or {})
        here = args.get("at", "host") == "controller"
        try:
            if here:
                files = _bundle.files_of(path, kinds, inputs)
                _bundle.refuse(path, _bundle.damages(path, files))
            else:
                checked = self._execute_module(
                    module_name="onprem.llamacpp.bundle_check",
                    module_args={"path": path, "kinds": kinds, "inputs": inputs},
                    task_vars=task_vars,
                )
                if checked.get("failed") or checked.get("unreachable"):
                    return dict(checked)
                # What a host answers does not decide where the controller writes.
                files = {check_path(name): digest for name, digest in checked["files"].items()}
            if here and not args.get("dest"):
                return {"changed": False, "folder": path, "files": files}
            flat = bool(args.get("dest"))
            folder = str(args["dest"]) if flat else view(str(args["cache"]), files)
            fetched = [self._bring(path, name, digest, folder, flat, here) for name, digest in files.items()]
        except (_bundle.BundleError, QuantError) as error:
            raise AnsibleActionFail(str(error)) from None
        except OSError as error:
            raise AnsibleActionFail(f"{error.filename or path} on the controller: {error.strerror}.") from error
        # What the controller keeps changes no host.
        return {"changed": False, "folder": folder, "files": files, "fetched": [name for name in fetched if name]}

    def _bring(self, path: str, name: str, digest: str, folder: str, flat: bool, here: bool) -> str:
        """Put one file below ``folder`` unless it is there already; it appears whole and verified, or not at all."""
        target = os.path.join(folder, os.path.basename(name) if flat else name)
        if os.path.isfile(target) and sha256_of(target) == digest:
            return ""
        os.makedirs(os.path.dirname(target), exist_ok=True)
        part = f"{target}.{os.getpid()}.part"
        try:
            if here:
                shutil.copyfile(os.path.join(path, name), part)
            else:
                self._connection.fetch_file(os.path.join(path, name), part)
            if sha256_of(part) != digest:
                raise _bundle.BundleError(f"{name} of the bundle {path} changed on its way to the controller. Run again.")
            os.replace(part, target)
        finally:
            if os.path.exists(part):
                os.remove(part)
        return name


def view(cache: str, files: dict[str, str]) -> str:
    """A folder of the cache that belongs to just these files."""
    return os.path.join(os.path.expanduser(cache), hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:12])
