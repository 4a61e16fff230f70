# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings the packages that a connected machine has collected to the controller's bundle."""

from __future__ import annotations

import os
from typing import Any, Optional

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.onprem.llamacpp.plugins.module_utils._files import sha256_of


def plain(name: str) -> str:
    """A file's name as the machine gave it: it does not decide where the controller writes."""
    if os.path.basename(name) != name or not name.endswith(".deb"):
        raise AnsibleActionFail(f"{name!r} is not the name of a package. Nothing was fetched.")
    return name


class ActionModule(ActionBase):
    """Only what the bundle lacks is downloaded and fetched; the index is written last."""

    TRANSFERS_FILES = True

    def run(self, tmp: Any = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        dest = str(self._task.args["dest"])
        work = self._make_tmp_path()
        try:
            os.makedirs(dest, exist_ok=True)
            held = {sha256_of(os.path.join(dest, name)): name for name in os.listdir(dest) if name.endswith(".deb")}
            result = self._execute_module(
                module_name="onprem.llamacpp.bundle_packages",
                module_args=dict(self._task.args, have=list(held), work=self._connection._shell.join_path(work, "packages")),
                task_vars=task_vars,
            )
            if result.get("failed") or result.get("unreachable"):
                return dict(result)
            wanted = {plain(item["file"]): item["sha256"] for item in result["packages"]}
            for name in sorted(set(result["downloaded"]) & wanted.keys()):
                self._bring(self._connection._shell.join_path(work, "packages", name), os.path.join(dest, name), wanted[name])
            changed = self._tidy(dest, wanted) or bool(result["downloaded"])
            changed = self._index(os.path.join(dest, "Packages"), result["index"]) or changed
        except OSError as error:
            raise AnsibleActionFail(f"{error.filename or dest} on the controller: {error.strerror}.") from error
        finally:
            self._remove_tmp_path(work)
        return {"changed": changed, "packages": result["packages"], "downloaded": result["downloaded"]}

    def _bring(self, remote: str, local: str, digest: str) -> None:
        self._connection.fetch_file(remote, local + ".part")
        if sha256_of(local + ".part") != digest:
            os.remove(local + ".part")
            raise AnsibleActionFail(f"{os.path.basename(local)} changed on its way to the controller. Run again.")
        os.replace(local + ".part", local)

    @staticmethod
    def _tidy(dest: str, wanted: dict[str, str]) -> bool:
        """Remove what an earlier set has left."""
        old = [name for name in os.listdir(dest) if name not in wanted and name != "Packages"]
        for name in old:
            os.remove(os.path.join(dest, name))
        return bool(old)

    @staticmethod
    def _index(path: str, text: str) -> bool:
        if os.path.isfile(path):
            with open(path, encoding="utf-8") as stream:
                if stream.read() == text:
                    return False
        with open(path + ".part", "w", encoding="utf-8") as stream:
            stream.write(text)
        os.replace(path + ".part", path)
        return True
