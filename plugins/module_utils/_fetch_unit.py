# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The transient systemd unit that fetches a model: started, watched, and told from what it leaves behind.

The unit outlives the module that starts it, so everything that decides is read from the host each time. Sizes are bytes.
"""

from __future__ import annotations

import contextlib
import fcntl
import inspect
import os
import pwd
import shutil
import sys
import uuid
import zipfile
from collections.abc import Iterator
from typing import Any

from ansible_collections.onprem.llamacpp.plugins.module_utils import _source, _transfer
from ansible_collections.onprem.llamacpp.plugins.module_utils._host import Run
from ansible_collections.onprem.llamacpp.plugins.module_utils._model_store import Model, StoreError
from ansible_collections.onprem.llamacpp.plugins.module_utils._words import amount

RUNTIME = "/run/llamacpp-fetch"
PROGRAM = "transfer.pyz"
PACKAGE = "ansible_collections/onprem/llamacpp/plugins/module_utils"
LARGEST_DEATHS = 3  # unit deaths in a row that brought nothing

# The transfer reads the network and writes one directory; nothing else is left to it.
PROPERTIES = (
    "CapabilityBoundingSet=",
    "CPUWeight=50",
    "IOWeight=20",
    "LockPersonality=yes",
    "MemoryDenyWriteExecute=yes",
    "Nice=5",
    "NoNewPrivileges=yes",
    "OOMScoreAdjust=500",
    "PrivateDevices=yes",
    "PrivateTmp=yes",
    "ProtectClock=yes",
    "ProtectControlGroups=yes",
    "ProtectHostname=yes",
    "ProtectKernelLogs=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    "ProtectProc=invisible",
    "ProtectSystem=strict",
    "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service",
    "TasksMax=64",
    "UMask=0022",
)


def write_program(path: str) -> None:
    """The transfer as one file that Python runs: the modules that this host was sent, under the names they import each other by."""
    folders = PACKAGE.split("/")
    with zipfile.ZipFile(path, "w") as archive:
        for depth in range(1, len(folders) + 1):
            archive.writestr("/".join([*folders[:depth], "__init__.py"]), "")
        for part in (_source, _transfer):
            archive.writestr(f"{PACKAGE}/{part.__name__.rpartition('.')[2]}.py", inspect.getsource(part))
        archive.writestr("__main__.py", f"import sys\n\nfrom {'.'.join(folders)} import _transfer\n\nsys.exit(_transfer.main(sys.argv))\n")


class Download:
    """One model on its way: the unit that fetches it, and what this module decides about it."""

    def __init__(self, model: Model, params: dict[str, Any], run: Run) -> None:
        self.params = params
        self.run = run
        self.run_id = params["run_id"] or uuid.uuid4().hex
        self.model = model
        self.unit = f"llamacpp-fetch-{model.key}.service"
        self.runtime = os.path.join(RUNTIME, model.key)
        self.attempt_file = os.path.join(self.runtime, "attempt.json")
        self.status_file = os.path.join(model.staging, _transfer.STATUS)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Two controllers may run this at once; only one at a time decides."""
        os.makedirs(self.runtime, mode=0o755, exist_ok=True)
        with open(self.runtime + ".lock", "w", encoding="ascii") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    def command(self, *argv: str) -> tuple[int, str, str]:
        return self.run(list(argv))

    def unit_properties(self) -> dict[str, str]:
        _code, out, _err = self.command("systemctl", "show", "-p", "ActiveState,Result,ExecMainStatus", self.unit)
        return dict(line.split("=", 1) for line in out.splitlines() if "=" in line)

    def progress(self, finished: bool = False) -> dict[str, Any]:
        """What the task returns; a status file of the unprivileged user is read with suspicion."""
        status = {} if finished else _transfer.read_json(self.status_file)
        total = self.model.bytes
        done = total if finished else _number(status.get("bytes_done"), _transfer.bytes_present(self.model.staging, self.model.files))
        return {
            "finished": finished,
            "path": self.model.path,
            "unit": self.unit,
            "bytes_total": total,
            "bytes_done": min(done, total),
            "rate": _number(status.get("rate"), 0),
            "eta_seconds": _number(status["eta_seconds"], 0) if status.get("eta_seconds") is not None else None,
            "file": str(status.get("file") or "")[:500],
            "note": str(status.get("note") or "")[:500],
        }

    def step(self) -> bool:
        """Bring things one step on; True when the model is published. Raises StoreError when it cannot be."""
        if self.model.complete():
            return True
        attempt = _transfer.read_json(self.attempt_file)
        mine = attempt.get("run_id") == self.run_id
        if self.unit_properties().get("ActiveState") in ("active", "activating", "deactivating", "reloading"):
            if not mine:
                _transfer.write_json(self.attempt_file, dict(attempt, run_id=self.run_id))
            return False
        status = _transfer.read_json(self.status_file)
        if attempt.get("digest") != self.model.digest():
            attempt, status, mine = {}, {}, False
        if status.get("state") == "done":
            self.model.publish(self.params["endpoint"])
            self.forget()
            return True
        if mine and status.get("state") == "failed":
            # Told here and kept in the journal; a failed unit would leave the whole system "degraded".
            self.command("systemctl", "reset-failed", self.unit)
            raise StoreError(str(status.get("error") or "The transfer failed without saying why.")[:2000])
        present = _transfer.bytes_present(self.model.staging, self.model.files)
        deaths = 0
        if mine:
            deaths = _number(attempt.get("deaths"), 0) + 1 if present <= _number(attempt.get("bytes"), 0) else 0
            if deaths >= LARGEST_DEATHS:
                cause = self.cause_of_death(deaths)
                self.command("systemctl", "reset-failed", self.unit)
                raise StoreError(cause)
        self.start(present, deaths)
        return False

    def cause_of_death(self, deaths: int) -> str:
        found = self.unit_properties()
        _code, out, _err = self.command("journalctl", "--unit", self.unit, "--no-pager", "--output=cat", "--lines=5")
        return (
            f"The transfer's unit {self.unit} ended {deaths} times without bringing a byte (result {found.get('Result')}, status "
            f"{found.get('ExecMainStatus')}): {' / '.join(out.split(chr(10))).strip(' /')}. See journalctl -u {self.unit} on the host."
        )

    def check_space(self, present: int) -> None:
        free, where = self.model.free_bytes()
        needed = self.model.bytes - present
        if needed > free:
            raise StoreError(
                f"{self.model.quant} needs {amount(needed)} more at {self.model.root}, "
                f"but the file system of {where} has {amount(free)} free. "
                "Free space there, choose a smaller quant, or set llama_model_root to a larger disk."
            )

    def start(self, present: int, deaths: int) -> None:
        """Start the unit, with a fresh staging directory when other files are wanted than the last time."""
        try:
            user = pwd.getpwnam(self.params["user"])
        except KeyError:
            raise StoreError(f"The user {self.params['user']} does not exist on this host. The role llama_model makes it.") from None
        attempt = {"run_id": self.run_id, "bytes": present, "deaths": deaths, "digest": self.model.digest()}
        if _transfer.read_json(self.attempt_file).get("digest", attempt["digest"]) != attempt["digest"]:
            self.model.remove_staging()
            present = 0
        self.check_space(present)
        self.model.make_staging(user.pw_uid, user.pw_gid)
        with contextlib.suppress(FileNotFoundError):
            os.remove(self.status_file)
        self.write_runtime(attempt)
        self.command("systemctl", "reset-failed", self.unit)
        self.launch()

    def write_runtime(self, attempt: dict[str, Any]) -> None:
        """What the unit runs: a program and its job for all to read, its secrets for root and the unit only."""
        job = {
            "endpoint": self.params["endpoint"],
            "repo_id": self.model.repo_id,
            "commit": self.model.commit,
            "files": self.model.files,
            "staging": self.model.staging,
            "timeout": self.params["timeout"],
            "retries": self.params["retries"],
        }
        names = [name for known in _source.PROXY_NAMES for name in (known, known.upper())] + list(_source.CA_NAMES)
        private = {"token": self.params["token"] or "", "environment": {n: os.environ[n] for n in names if os.environ.get(n)}}
        write_program(os.path.join(self.runtime, PROGRAM))
        _transfer.write_json(os.path.join(self.runtime, "job.json"), job)
        _transfer.write_json(os.path.join(self.runtime, "private"), private, mode=0o600)
        _transfer.write_json(self.attempt_file, attempt)

    def launch(self) -> None:
        root = self.model.root
        home = any(root == top or root.startswith(top + "/") for top in ("/home", "/root", "/run/user"))
        properties = [
            *PROPERTIES,
            f"ProtectHome={'read-only' if home else 'yes'}",
            f"ReadWritePaths={self.model.staging}",
            f"RequiresMountsFor={root}",
            f"LoadCredential=private:{self.runtime}/private",
        ]
        argv = ["systemd-run", "--quiet", "--no-ask-password", f"--unit={self.unit}", f"--uid={self.params['user']}", "--service-type=exec"]
        argv += [f"--description=Fetches {self.model.repo_id} {self.model.quant}"]
        argv += [f"--property={value}" for value in properties]
        # -I: neither the environment nor the current directory decides what is imported.
        argv += ["--", sys.executable, "-I", "-B", os.path.join(self.runtime, PROGRAM), os.path.join(self.runtime, "job.json")]
        code, out, err = self.command(*argv)
        # The unit holds its own copy by now.
        os.remove(os.path.join(self.runtime, "private"))
        if code != 0:
            said = " ".join((err or out).split())[:500] or f"exit status {code}"
            raise StoreError(f"systemd would not start the transfer as {self.unit}: {said}. It needs systemd 247 or newer as PID 1.")

    def forget(self) -> None:
        """Remove the program and its job; the unit is gone by itself unless it failed."""
        self.command("systemctl", "reset-failed", self.unit)
        shutil.rmtree(self.runtime, ignore_errors=True)

    def absent(self) -> None:
        with self.lock():
            self.command("systemctl", "stop", self.unit)
            self.model.remove()
            self.forget()


def _number(value: Any, otherwise: int) -> int:
    return int(value) if isinstance(value, (int, float)) and 0 <= value < 1 << 62 else otherwise
