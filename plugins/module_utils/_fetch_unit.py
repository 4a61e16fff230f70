# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The transient systemd unit that fetches a model: started, watched, and told from what it leaves behind.

The unit outlives the module that starts it, so everything that decides is read from the host each time. Sizes are bytes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import shutil
import sys
import uuid
from collections.abc import Iterator
from typing import Any

from ansible_collections.onprem.llamacpp.plugins.module_utils import _http, _journal, _progress, _source, _units
from ansible_collections.onprem.llamacpp.plugins.module_utils._copies import Copy
from ansible_collections.onprem.llamacpp.plugins.module_utils._files import read_json, write_json
from ansible_collections.onprem.llamacpp.plugins.module_utils._host import Run
from ansible_collections.onprem.llamacpp.plugins.module_utils._model_store import Model, StoreError
from ansible_collections.onprem.llamacpp.plugins.module_utils._part import is_whole
from ansible_collections.onprem.llamacpp.plugins.module_utils._program import write_program
from ansible_collections.onprem.llamacpp.plugins.module_utils._words import amount

RUNTIME = "/run/llamacpp-fetch"
PROGRAM = "transfer.pyz"
SELINUX = "/sys/fs/selinux/enforce"
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
    "TasksMax=256",
    "UMask=0022",
)


def protect_home(root: str, directories: list[str]) -> str:
    """How much of users' homes the unit sees: all where models are kept there, what is bound into it, or nothing at all."""

    def at_home(path: str) -> bool:
        return any(path == top or path.startswith(top + "/") for top in ("/home", "/root", "/run/user"))

    if at_home(root):
        return "read-only"
    return "tmpfs" if any(at_home(path) for path in directories) else "yes"


class Download:
    """One model on its way: the unit that fetches it, and what this module decides about it."""

    def __init__(self, model: Model, params: dict[str, Any], run: Run) -> None:
        self.params = params
        self.run = run
        self.run_id = params["run_id"] or uuid.uuid4().hex
        self.model = model
        self.unit = _units.fetch_unit(model.key)
        self.runtime = os.path.join(RUNTIME, model.key)
        self.attempt_file = os.path.join(self.runtime, "attempt.json")
        self.status_file = os.path.join(model.staging, _progress.STATUS)
        self.verify = params["verify"]
        self.repaired = False

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

    def copies(self) -> dict[str, Copy]:
        """What is published on this host already: good enough to be linked as it is, or to be read again before that."""
        return self.model.copies()

    def doubted(self, copies: dict[str, Copy]) -> set[str]:
        """Paths of copies that are read and compared before they are used."""
        return {path for path, copy in copies.items() if self.verify == "full" or copy.touched}

    def replaced(self, copies: dict[str, Copy]) -> bool:
        """Whether one of the copies is not the model's own, or not as it was published."""
        return any(copy.touched or os.path.dirname(copy.path) != self.model.path for copy in copies.values())

    def satisfied(self) -> bool:
        """Whether the model is there as it is wanted, without reading it."""
        if not self.model.complete() or self.verify == "full":
            return False
        return self.verify == "none" or not self.replaced(self.copies())

    def progress(self, finished: bool = False) -> dict[str, Any]:
        """What the task returns; a status file of the unprivileged user is read with suspicion."""
        status = {} if finished else read_json(self.status_file)
        total = done = self.model.bytes
        adopted = 0
        if not finished:
            copies = self.copies()
            wanted = self.job_files(copies)
            adopted = total - sum(item["size"] for item in wanted)
            done = adopted + _number(status.get("bytes_done"), _journal.bytes_present(self.model.staging, wanted))
        return {
            "finished": finished,
            "path": self.model.path,
            "unit": self.unit,
            "bytes_total": total,
            "bytes_done": min(done, total),
            "bytes_adopted": adopted,
            "rate": _number(status.get("rate"), 0),
            "eta_seconds": _number(status["eta_seconds"], 0) if status.get("eta_seconds") is not None else None,
            "file": str(status.get("file") or "")[:500],
            "source": str(status.get("source") or "")[:500],
            "note": str(status.get("note") or "")[:500],
        }

    def job_files(self, copies: dict[str, Copy]) -> list[dict[str, Any]]:
        """What the unit has to do: files that are not on the host, and those whose copy is doubted."""
        doubted = self.doubted(copies)
        found = []
        for item in self.model.files:
            copy = copies.get(item["path"])
            if copy and item["path"] in doubted:
                found.append({**item, "published": copy.path, **({"blocks": copy.blocks} if copy.blocks else {})})
            elif not copy:
                found.append(item)
        return found

    def step(self) -> bool:
        """Bring things one step on; True when the model is published as it is wanted. Raises StoreError when it cannot be."""
        if self.satisfied():
            return True
        attempt = read_json(self.attempt_file)
        mine = attempt.get("run_id") == self.run_id
        if self.unit_properties().get("ActiveState") in _units.ACTIVE:
            if not mine:
                write_json(self.attempt_file, dict(attempt, run_id=self.run_id))
            return False
        status = read_json(self.status_file)
        if attempt.get("digest") != self.model.digest() or attempt.get("verify") != self.verify:
            status, mine = {}, False
        # A verification that nobody waited for may be of long ago; a download that is whole stays whole.
        if status.get("state") == "done" and (mine or not self.model.complete()) and self.publish(status):
            return True
        if mine and status.get("state") == "failed":
            # Told here and kept in the journal; a failed unit would leave the whole system "degraded".
            self.command("systemctl", "reset-failed", self.unit)
            raise StoreError(str(status.get("error") or "The transfer failed without saying why.")[:2000])
        present = _journal.bytes_present(self.model.staging, self.model.files)
        deaths = 0
        if mine:
            deaths = _number(attempt.get("deaths"), 0) + 1 if present <= _number(attempt.get("bytes"), 0) else 0
            if deaths >= LARGEST_DEATHS:
                cause = self.cause_of_death(deaths)
                self.command("systemctl", "reset-failed", self.unit)
                raise StoreError(cause)
        self.start(present, deaths)
        return False

    def publish(self, status: dict[str, Any]) -> bool:
        """Make what the unit has brought visible; False when something is missing, as when another model was removed meanwhile."""
        intact = [path for path in status.get("intact") or () if isinstance(path, str)]
        copies = self.copies()
        fetched = {path for item in self.model.files for path in [item["path"]] if self.fetched(item)}
        if any(item["path"] not in fetched and item["path"] not in copies for item in self.model.files):
            return False
        if any(path not in fetched and path not in intact for path in self.doubted(copies)):
            return False
        # The same files with the same times: there is nothing to replace.
        self.repaired = bool(fetched) or not self.model.complete() or self.replaced(copies)
        if self.repaired:
            self.model.publish(self.described_source(str(status.get("source"))), copies)
            if os.path.exists(SELINUX):
                self.command("restorecon", "-R", self.model.path)
        else:
            self.model.remove_staging()
        self.forget()
        return True

    def fetched(self, item: dict[str, Any]) -> bool:
        return is_whole(os.path.join(self.model.staging, os.path.basename(item["path"])), item)

    def described_source(self, label: str) -> str:
        """Where the files came from, for the manifest; the status file may only choose among the sources that were given."""
        for entry in self.params["sources"]:
            if entry["url"].rstrip("/") == label.rstrip("/"):
                if entry["transport"] == "directory":
                    return str(entry["url"])
                return _source.file_url(entry["url"], self.model.repo_id, self.model.commit, "").rstrip("/")
        return "this host"

    def cause_of_death(self, deaths: int) -> str:
        found = self.unit_properties()
        _code, out, _err = self.command("journalctl", "--unit", self.unit, "--no-pager", "--output=cat", "--lines=5")
        return (
            f"The transfer's unit {self.unit} ended {deaths} times without bringing a byte (result {found.get('Result')}, status "
            f"{found.get('ExecMainStatus')}): {' / '.join(out.split(chr(10))).strip(' /')}. See journalctl -u {self.unit} on the host."
        )

    def check_space(self, wanted: list[dict[str, Any]]) -> None:
        """``wanted`` as job_files() gives them: a copy that is only to be read takes no room unless it is damaged."""
        free, where = self.model.free_bytes()
        needed = sum(item["size"] for item in wanted if "published" not in item) - self.model.room_taken()
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
        if self.params["ca_file"] and not os.path.isfile(self.params["ca_file"]):
            raise StoreError(f"The CA file {self.params['ca_file']} does not exist on this host. Correct llama_model_ca_file.")
        attempt = {"run_id": self.run_id, "bytes": present, "deaths": deaths, "digest": self.model.digest(), "verify": self.verify}
        if read_json(self.attempt_file).get("digest", attempt["digest"]) != attempt["digest"]:
            self.model.remove_staging()
        wanted = self.job_files(self.copies())
        self.check_space(wanted)
        self.model.make_staging(user.pw_uid, user.pw_gid)
        with contextlib.suppress(FileNotFoundError):
            os.remove(self.status_file)
        self.write_runtime(attempt, wanted)
        self.command("systemctl", "reset-failed", self.unit)
        self.launch()

    def write_runtime(self, attempt: dict[str, Any], wanted: list[dict[str, Any]]) -> None:
        """What the unit runs: a program and its job for all to read, its secrets for root and the unit only."""
        job = {
            "sources": [{"transport": entry["transport"], "url": entry["url"]} for entry in self.params["sources"]],
            "repo_id": self.model.repo_id,
            "commit": self.model.commit,
            "quant": self.model.quant,
            "files": wanted,
            "staging": self.model.staging,
            **{name: self.params[name] for name in ("timeout", "retries", "connections", "files_at_once", "rate_limit", "window")},
        }
        names = [name for known in _http.PROXY_NAMES for name in (known, known.upper())] + list(_http.CA_NAMES)
        private = {
            "tokens": {entry["url"]: entry["token"] for entry in self.params["sources"] if entry.get("token")},
            "environment": {name: os.environ[name] for name in names if os.environ.get(name)},
        }
        write_program(os.path.join(self.runtime, PROGRAM))
        write_json(os.path.join(self.runtime, "job.json"), job)
        write_json(os.path.join(self.runtime, "private"), private, mode=0o600)
        write_json(self.attempt_file, attempt)

    def launch(self) -> None:
        directories = [entry["url"] for entry in self.params["sources"] if entry["transport"] == "directory"]
        properties = [
            *PROPERTIES,
            f"ProtectHome={protect_home(self.model.root, directories)}",
            f"ReadWritePaths={self.model.staging}",
            f"RequiresMountsFor={self.model.root}",
            f"LoadCredential=private:{self.runtime}/private",
            # Below /home or /tmp the unit would not see it otherwise.
            *(f"BindReadOnlyPaths=-{path}" for path in directories),
            *([f"LoadCredential=ca:{self.params['ca_file']}"] if self.params["ca_file"] else []),
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
            _units.stop_swarm(self.run, self.model.key)
            self.command("systemctl", "stop", self.unit)
            self.model.remove()
            self.forget()


def _number(value: Any, otherwise: int) -> int:
    return int(value) if isinstance(value, (int, float)) and 0 <= value < 1 << 62 else otherwise
