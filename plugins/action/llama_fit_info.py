# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sends a model's headers to the host as one archive, so that the host needs no source for them, and runs the module."""

from __future__ import annotations

import os
import tempfile
from typing import Any, Optional

from ansible.plugins.action import ActionBase

from ansible_collections.onprem.llamacpp.plugins.module_utils._fit_info import pack


class ActionModule(ActionBase):
    """The task behind the module's name."""

    TRANSFERS_FILES = True
    _supports_check_mode = True

    def run(self, tmp: Any = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        args = dict(self._task.args)
        name = "onprem.llamacpp.llama_fit_info"
        if args.get("model"):
            return self._execute_module(module_name=name, module_args=args, task_vars=task_vars)
        files = (args.get("header") or {}).get("files", [])
        absent = [str(file.get("header")) for file in files if not os.path.isfile(str(file.get("header")))]
        if not files or absent:
            where = absent[0] if absent else "header.files"
            return {"changed": False, "asked": False, "seconds": 0.0, "reason": f"the model's header is not on the controller ({where})"}
        remote = self._make_tmp_path()
        try:
            with tempfile.NamedTemporaryFile(prefix="headers-", suffix=".zip") as archive:
                pack(files, archive.name)
                args["bundle"] = self._transfer_file(archive.name, self._connection._shell.join_path(remote, "headers.zip"))
            return self._execute_module(module_name=name, module_args=args, task_vars=task_vars)
        finally:
            self._remove_tmp_path(remote)
