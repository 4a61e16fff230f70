# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the transfer of a model in this very process, for a controller that has neither systemd nor root, and shows how far it is."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import Any, Optional

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.onprem.llamacpp.plugins.module_utils import _http, _transfer
from ansible_collections.onprem.llamacpp.plugins.module_utils._arguments import MODEL, TRANSFER
from ansible_collections.onprem.llamacpp.plugins.module_utils._files import read_json
from ansible_collections.onprem.llamacpp.plugins.module_utils._model_store import MANIFEST, Model, StoreError
from ansible_collections.onprem.llamacpp.plugins.module_utils._progress import STATUS
from ansible_collections.onprem.llamacpp.plugins.module_utils._words import amount
from ansible_collections.onprem.llamacpp.plugins.plugin_utils._following import SECONDS_BETWEEN_LINES, transfer_line

display = Display()

ARGUMENTS = {
    **MODEL,
    **TRANSFER,
    "root": {"type": "path", "required": True},
    "endpoint": {"type": "str", "required": True},
    "token": {"type": "str", "no_log": True},
}


class ActionModule(ActionBase):
    """The same files, the same checks and the same journal as on a host."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: Any = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _validation, args = self.validate_argument_spec(ARGUMENTS)
        try:
            if not args["files"]:
                raise StoreError(f"No files are given for {args['repo_id']} {args['quant']}.")
            model = Model(args["root"], args["repo_id"], args["commit"], args["quant"], args["files"], args["header"])
            model.owner = (os.getuid(), os.getgid())
            result = {"path": model.path, "bytes_total": model.bytes}
            if model.complete():
                return {"changed": False, **result}
            if self._task.check_mode:
                return {"changed": True, "msg": f"Would download {amount(model.bytes)} to {model.path}.", **result}
            self._fetch(model, args)
        except StoreError as error:
            raise AnsibleActionFail(str(error)) from None
        except OSError as error:
            raise AnsibleActionFail(f"{error.filename or args['root']}: {error.strerror}. The model was not published.") from error
        return {"changed": True, **result}

    def _fetch(self, model: Model, args: dict[str, Any]) -> None:
        """Fetch what is missing and publish the whole. Raises StoreError."""
        reopen(model)
        present = model.room_taken()
        free, where = model.free_bytes()
        if model.bytes - present > free:
            raise StoreError(
                f"{model.quant} needs {amount(model.bytes - present)} more in the bundle, but the file system of {where} has "
                f"{amount(free)} free. Use a larger disk, or bundle a smaller quant."
            )
        model.make_staging(*model.owner)
        names = [name for known in _http.PROXY_NAMES for name in (known, known.upper())] + list(_http.CA_NAMES)
        given = {**os.environ, **self._environment()}
        source = {"transport": "directory" if args["endpoint"].startswith("/") else "hub", "url": args["endpoint"]}
        private = {
            "tokens": {source["url"]: args["token"]} if args["token"] else {},
            "environment": {name: given[name] for name in names if given.get(name)},
        }
        job = {
            "sources": [source],
            "repo_id": model.repo_id,
            "commit": model.commit,
            "quant": model.quant,
            "files": model.files,
            "staging": model.staging,
            "connections": 4,
            "files_at_once": 2,
            **{name: args[name] for name in ("timeout", "retries", "rate_limit", "window")},
        }
        failures: list[Exception] = []

        def transfer() -> None:
            try:
                _transfer.run_job(job, private)
            except (_http.TransferError, OSError) as error:
                failures.append(error)

        worker = threading.Thread(target=transfer, daemon=True)
        worker.start()
        while worker.is_alive():
            worker.join(SECONDS_BETWEEN_LINES)
            if worker.is_alive():
                status = read_json(os.path.join(model.staging, STATUS))
                display.display(transfer_line("bundle", model.quant, status))
        if failures:
            raise StoreError(str(failures[0]))
        model.publish(f"{args['endpoint']}/{model.repo_id}")

    def _environment(self) -> dict[str, str]:
        """The task's environment, which no module gets here."""
        found: dict[str, str] = {}
        for entry in self._task.environment or []:
            values = self._templar.template(entry)
            found.update(values if isinstance(values, dict) else {})
        return found


def reopen(model: Model) -> None:
    """Take a published model of which shards were removed as damaged back to the staging directory: the others need not come again."""
    if os.path.isdir(model.path) and not os.path.lexists(model.staging):
        with contextlib.suppress(FileNotFoundError):
            os.remove(os.path.join(model.path, MANIFEST))
        os.rename(model.path, model.staging)
