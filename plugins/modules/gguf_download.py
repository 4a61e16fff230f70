#!/usr/bin/python
# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation and wiring of the module; the work is done in module_utils."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: gguf_download
short_description: Bring a quant of a GGUF model to a host, verified
version_added: 0.1.0
description:
  - Downloads the given files of a model repository at a pinned commit, checks the SHA-256 of each and publishes them
    with one rename to C(<root>/<organisation>--<name>/<commit>/<quant>/), together with a C(manifest.json).
    Nothing is visible there before everything is verified.
  - The transfer is a transient systemd unit that runs as an unprivileged user. It does not stop when the connection to the
    host is lost or when Ansible is stopped; running the task again attaches to it. An interrupted transfer goes on
    where it was.
  - Run as a task, it waits for the end and shows a line of progress every few seconds.
  - The unit gets the proxies (E(http_proxy), E(https_proxy), E(all_proxy), E(no_proxy)) and the CA bundle (E(SSL_CERT_FILE),
    E(REQUESTS_CA_BUNDLE), E(CURL_CA_BUNDLE)) of the task's environment.
  - A model that is complete already is left alone, without any request and without reading it.
options:
  repo_id:
    description: Repository as C(organisation/name).
    type: str
    required: true
  commit:
    description: Commit of the repository, 40 hexadecimal digits.
    type: str
    required: true
  quant:
    description: Name of the quant, the last part of the directory's name.
    type: str
    required: true
  files:
    description:
      - Files of the quant, shards in order, as M(onprem.llamacpp.gguf_repo_info) returns them.
      - Required when O(state=present).
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Path inside the repository. The last part becomes the file's name.
        type: str
        required: true
      size:
        description: Size in bytes.
        type: int
        required: true
      sha256:
        description: SHA-256 in hexadecimal.
        type: str
        required: true
  state:
    description:
      - V(present) brings the model to the host.
      - V(absent) stops a transfer of it and removes what there is. It does not ask whether a server uses the model.
    type: str
    choices: [present, absent]
    default: present
  root:
    description: Directory that holds all models.
    type: path
    default: /var/lib/llamacpp/models
  endpoint:
    description: URL of the Hub or of a mirror that speaks its API.
    type: str
    default: https://huggingface.co
  token:
    description: Token for a private or gated repository. It is handed to the transfer as a systemd credential.
    type: str
  user:
    description: System user that runs the transfer. It must exist.
    type: str
    default: llamacpp-fetch
  timeout:
    description: Seconds without a byte after which a connection counts as broken.
    type: float
    default: 60
  retries:
    description: Attempts in a row that may bring nothing before the transfer fails.
    type: int
    default: 8
  wait:
    description: Seconds that one run of the module stays on the host. The task as a whole runs it as often as it takes.
    type: float
    default: 5
  run_id:
    description: Tells the runs of one task from those of another. Set by the task itself.
    type: str
    default: ""
attributes:
  check_mode:
    description: Can run in C(check_mode) and return changed status prediction without modifying target.
    support: full
  diff_mode:
    description: Will return details on what has changed, or possibly needs changing in C(check_mode), when in diff mode.
    support: full
requirements:
  - systemd 247 or newer on the host
seealso:
  - module: onprem.llamacpp.gguf_repo_info
author:
  - onprem.llamacpp contributors (@onprem)
"""

EXAMPLES = r"""
---
- name: See what the repository holds
  onprem.llamacpp.gguf_repo_info:
    repo_id: unsloth/Kimi-K2-Instruct-GGUF
  delegate_to: localhost
  register: repository

- name: Bring one quant to the host
  become: true
  onprem.llamacpp.gguf_download:
    repo_id: "{{ repository.repo_id }}"
    commit: "{{ repository.commit }}"
    quant: UD-Q2_K_XL
    files: "{{ repository.quants['UD-Q2_K_XL'].files }}"

- name: Remove it again
  become: true
  onprem.llamacpp.gguf_download:
    repo_id: "{{ repository.repo_id }}"
    commit: "{{ repository.commit }}"
    quant: UD-Q2_K_XL
    state: absent
"""

RETURN = r"""
---
finished:
  description: Whether the model is published, or gone for O(state=absent).
  returned: success
  type: bool
path:
  description: Directory of the published model.
  returned: success
  type: str
  sample: /var/lib/llamacpp/models/unsloth--Kimi-K2-Instruct-GGUF/0123456789abcdef0123456789abcdef01234567/UD-Q2_K_XL
bytes_total:
  description: Size of all files in bytes.
  returned: success
  type: int
bytes_done:
  description: Bytes that are on the host, verified or not.
  returned: success
  type: int
rate:
  description: Bytes a second over the last seconds. 0 when nothing is under way.
  returned: success
  type: int
eta_seconds:
  description: Seconds that the rest takes at this rate, or null.
  returned: success
  type: int
file:
  description: File that is under way.
  returned: success
  type: str
note:
  description: What the transfer is struggling with at the moment. Empty when all is well.
  returned: success
  type: str
unit:
  description: Name of the transient unit.
  returned: success
  type: str
  sample: llamacpp-fetch-0123abcd.service
"""

import contextlib
import fcntl
import inspect
import os
import pwd
import shutil
import sys
import time
import uuid
from collections.abc import Iterator
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.onprem.llamacpp.plugins.module_utils import _transfer
from ansible_collections.onprem.llamacpp.plugins.module_utils._model_store import Model, StoreError
from ansible_collections.onprem.llamacpp.plugins.module_utils._words import amount

RUNTIME = "/run/llamacpp-fetch"
POLL_SECONDS = 0.5
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


class Download:
    """One model on its way: the unit that fetches it, and what this module decides about it."""

    def __init__(self, module: AnsibleModule, model: Model) -> None:
        self.module = module
        self.params = module.params
        self.run_id = self.params["run_id"] or uuid.uuid4().hex
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
        return self.module.run_command(list(argv), environ_update={"LC_ALL": "C"})

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
        names = [name for known in _transfer.PROXY_NAMES for name in (known, known.upper())] + list(_transfer.CA_NAMES)
        private = {"token": self.params["token"] or "", "environment": {n: os.environ[n] for n in names if os.environ.get(n)}}
        with open(os.path.join(self.runtime, "transfer.py"), "w", encoding="utf-8") as stream:
            stream.write(inspect.getsource(_transfer))
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
        argv += ["--", sys.executable, "-I", "-B", os.path.join(self.runtime, "transfer.py"), os.path.join(self.runtime, "job.json")]
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


def require_systemd(module: AnsibleModule) -> None:
    if not os.path.isdir("/run/systemd/system") or not module.get_bin_path("systemd-run"):
        raise StoreError("The transfer needs systemd, which does not run this host (no /run/systemd/system, or no systemd-run).")


def fetch(module: AnsibleModule, model: Model) -> dict[str, Any]:
    """Publish the model, or stay with its transfer for O(wait) seconds."""
    download = Download(module, model)
    if model.complete():
        return dict(download.progress(finished=True), changed=False)
    if not model.files:
        raise StoreError(f"No files are given for {model.repo_id} {model.quant}.")
    change: dict[str, Any] = {"changed": True, "diff": {"before": "", "after": model.listing()}}
    if module.check_mode:
        found = download.progress()
        download.check_space(found["bytes_done"])
        left = model.bytes - found["bytes_done"]
        size = f"{amount(left)} of {amount(model.bytes)}"
        msg = f"Would download {len(model.files)} files, {size}, from {module.params['endpoint']} to {model.path}."
        return dict(found, msg=msg, **change)
    require_systemd(module)
    deadline = time.monotonic() + max(module.params["wait"], 0.0)
    while True:
        with download.lock():
            finished = download.step()
        if finished or time.monotonic() >= deadline:
            return dict(download.progress(finished), **change)
        time.sleep(POLL_SECONDS)


def remove(module: AnsibleModule, model: Model) -> dict[str, Any]:
    download = Download(module, model)
    changed = model.present()
    result = {"changed": changed, "finished": True, "path": model.path, "unit": download.unit}
    if changed:
        result["diff"] = {"before": f"{model.path}\n", "after": ""}
        if not module.check_mode:
            download.absent()
    return dict(result, bytes_total=0, bytes_done=0, rate=0, eta_seconds=None, file="", note="")


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "repo_id": {"type": "str", "required": True},
            "commit": {"type": "str", "required": True},
            "quant": {"type": "str", "required": True},
            "files": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "path": {"type": "str", "required": True},
                    "size": {"type": "int", "required": True},
                    "sha256": {"type": "str", "required": True},
                },
            },
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "root": {"type": "path", "default": "/var/lib/llamacpp/models"},
            "endpoint": {"type": "str", "default": "https://huggingface.co"},
            "token": {"type": "str", "no_log": True},
            "user": {"type": "str", "default": "llamacpp-fetch"},
            "timeout": {"type": "float", "default": 60},
            "retries": {"type": "int", "default": 8},
            "wait": {"type": "float", "default": 5},
            "run_id": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    params = module.params
    if not params["endpoint"].startswith(("http://", "https://")):
        module.fail_json(msg=f"endpoint {params['endpoint']!r} is not an http or https URL.")
    try:
        model = Model(params["root"], params["repo_id"], params["commit"], params["quant"], params["files"])
        result = fetch(module, model) if params["state"] == "present" else remove(module, model)
    except StoreError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename or params['root']}: {error.strerror}. The model was not published.")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
