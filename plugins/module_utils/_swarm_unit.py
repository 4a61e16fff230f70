# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The transient units that exchange a model's pieces with peers: one fills the staging directory, one seeds what is published.

Both run as the user that fetches, as closed in as a transfer. Sizes are bytes.
"""

from __future__ import annotations

import os
import pwd
import sys
from typing import Any, Optional

from ansible_collections.onprem.llamacpp.plugins.module_utils import _swarm, _units
from ansible_collections.onprem.llamacpp.plugins.module_utils._fetch_unit import PROPERTIES
from ansible_collections.onprem.llamacpp.plugins.module_utils._files import read_json, remove, write_json
from ansible_collections.onprem.llamacpp.plugins.module_utils._host import Run
from ansible_collections.onprem.llamacpp.plugins.module_utils._model_store import Model, StoreError
from ansible_collections.onprem.llamacpp.plugins.module_utils._program import write_program
from ansible_collections.onprem.llamacpp.plugins.module_utils._words import amount

STATUS = "swarm.json"
SPARE_SECONDS = 60
# The exchange and everything that it imports.
PARTS = ("_files", "_journal", "_pace", "_quant", "_ranges", "_swarm", "_swarm_share", "_swarm_source", "_torrent")


class Swarm:
    """One model's part in a swarm, as far as this host is concerned."""

    def __init__(self, model: Model, params: dict[str, Any], run: Run) -> None:
        self.model, self.params, self.run = model, params, run
        self.status_file = os.path.join(model.staging, STATUS)

    def unit(self, mode: str) -> str:
        return _units.swarm_unit(mode, self.model.key)

    def active(self, unit: str) -> bool:
        return _units.is_active(self.run, unit)

    def python(self) -> Optional[str]:
        """A Python of this host that has libtorrent; distributions bring it for their own."""
        for path in dict.fromkeys((sys.executable, "/usr/bin/python3")):
            if os.access(path, os.X_OK) and self.run([path, "-I", "-c", "import libtorrent"])[0] == 0:
                return path
        return None

    def hindrance(self) -> str:
        """Why this host cannot take part now; empty when it can."""
        if self.python() is None:
            return "no Python of this host has libtorrent (package python3-libtorrent; of EPEL: rb_libtorrent-python3)"
        if self.active(_units.fetch_unit(self.model.key)):
            return "a transfer of the model is under way already"
        free, where = self.model.free_bytes()
        if not os.path.isdir(self.model.staging) and self.model.bytes > free:
            return f"the file system of {where} has {amount(free)} free, and the model has {amount(self.model.bytes)}"
        return ""

    def progress(self) -> dict[str, Any]:
        """What the unit that fills says; its file is an unprivileged user's and read with suspicion."""
        status = read_json(self.status_file)
        counts = {name: _number(status.get(name)) for name in ("bytes_done", "bytes_from_mirror", "peers")}
        return {"state": str(status.get("state") or "")[:20], "note": str(status.get("note") or "")[:500], **counts}

    def fill(self) -> None:
        """Start filling the staging directory. Raises StoreError."""
        user = self._user()
        self.model.make_staging(user.pw_uid, user.pw_gid)
        remove(self.status_file)
        job = {"folder": self.model.staging, "status": self.status_file}
        job.update({name: self.params[name] for name in ("number", "sharers")})
        self._start("fill", job, [f"ReadWritePaths={self.model.staging}"])

    def seed(self) -> None:
        """Give the published files to peers until the policy is met. Raises StoreError."""
        self._user()
        job = {"folder": self.model.path, **{name: self.params[name] for name in ("seconds", "ratio")}}
        self._start("seed", job, [f"RuntimeMaxSec={self.params['seconds'] + SPARE_SECONDS}"])

    def forget(self, mode: str) -> None:
        _units.forget_swarm(self.run, mode, self.model.key)

    def _user(self) -> pwd.struct_passwd:
        try:
            return pwd.getpwnam(self.params["user"])
        except KeyError:
            raise StoreError(f"The user {self.params['user']} does not exist on this host. The role llama_model makes it.") from None

    def _start(self, mode: str, job: dict[str, Any], properties: list[str]) -> None:
        self.forget(mode)
        runtime, model = _units.swarm_runtime(mode, self.model.key), self.model
        os.makedirs(runtime, mode=0o755)
        names = ("peers", "port", "upload_limit", "mirror", "ca_file", "timeout", "rate_limit")
        job = {"mode": mode, "repo_id": model.repo_id, "commit": model.commit, "quant": model.quant, "files": model.files, **job}
        job.update({name: self.params[name] for name in names})
        program, private = os.path.join(runtime, "swarm.pyz"), os.path.join(runtime, "private")
        write_program(program, PARTS, _swarm.__name__.rpartition(".")[2])
        write_json(os.path.join(runtime, "job.json"), job)
        write_json(private, {"token": self.params["token"] or ""}, mode=0o600)
        home = any(model.root == top or model.root.startswith(top + "/") for top in ("/home", "/root", "/run/user"))
        properties = [
            *PROPERTIES,
            # libtorrent looks at the interfaces before it listens; this adds to the families above.
            "RestrictAddressFamilies=AF_NETLINK",
            *properties,
            f"ProtectHome={'read-only' if home else 'yes'}",
            f"RequiresMountsFor={model.root}",
            f"LoadCredential=private:{private}",
            *([f"LoadCredential=ca:{self.params['ca_file']}"] if self.params["ca_file"] else []),
        ]
        argv = ["systemd-run", "--quiet", "--no-ask-password", "--collect", f"--unit={self.unit(mode)}", f"--uid={self.params['user']}"]
        argv += ["--service-type=exec", f"--description={mode.capitalize()}s {model.repo_id} {model.quant} with its peers"]
        argv += [f"--property={value}" for value in properties]
        argv += ["--", str(self.python()), "-I", "-B", program, os.path.join(runtime, "job.json")]
        code, out, err = self.run(argv)
        os.remove(private)  # the unit holds its own copy by now
        if code != 0:
            said = " ".join((err or out).split())[:500] or f"exit status {code}"
            raise StoreError(f"systemd would not start {self.unit(mode)}: {said}. It needs systemd 247 or newer as PID 1.")


def _number(value: Any) -> int:
    return int(value) if isinstance(value, (int, float)) and 0 <= value < 1 << 62 else 0
