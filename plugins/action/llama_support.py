# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lets the host collect and redact, and packs on the controller what came back."""

from __future__ import annotations

import io
import os
import re
import tarfile
import tempfile
import time
from collections.abc import Mapping
from typing import Any, Optional

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase


def pack(path: str, folder: str, documents: Mapping[str, str]) -> None:
    """Write a tarball with the documents in a folder, readable for its owner only, and in one step."""
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".support.")
    try:
        with os.fdopen(handle, "wb") as stream, tarfile.open(fileobj=stream, mode="w:gz") as archive:
            for name, text in sorted(documents.items()):
                content = text.encode()
                entry = tarfile.TarInfo(f"{folder}/{name}")
                entry.size, entry.mode, entry.mtime = len(content), 0o600, int(time.time())
                archive.addfile(entry, io.BytesIO(content))
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


class ActionModule(ActionBase):
    """Collect there, pack here."""

    _requires_connection = True
    _supports_check_mode = True
    TRANSFERS_FILES = False

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        variables = task_vars or {}
        arguments = dict(self._task.args)
        name = re.sub(r"[^A-Za-z0-9._-]", "_", str(variables.get("inventory_hostname", "host")))
        path = os.path.join(os.path.abspath(os.path.expanduser(str(arguments.get("destination") or "."))), f"{name}.tar.gz")
        result = self._execute_module(module_name="onprem.llamacpp.llama_support", module_args=arguments, task_vars=variables)
        documents = result.pop("collected", None)
        if documents is None:
            return dict(result)
        if self._task.check_mode:
            return {"changed": False, "path": path, "msg": f"would write {path}"}
        try:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            pack(path, name, documents)
        except OSError as error:
            raise AnsibleActionFail(f"{path} could not be written on the controller: {error.strerror}") from None
        return {"changed": False, "path": path, "files": sorted(documents)}
