# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Replace what a llama.cpp instance serves, prove that it answers, or put the old deployment back.

One switch is one transaction with a journal on disk.  Its states:

    prepared -> switched -> gating -> committed
                    \\         \\
                     `---------`--> undoing -> undone | failed

``committed`` in the journal always names the last deployment that passed its gate, so whatever
interrupts a switch, the way back is known: ``recover`` runs at boot, before any server starts.

Installed by the role llama_server; standard library only, Python 3.9 and newer.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import fcntl
import http.client
import ipaddress
import json
import mmap
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from typing import Any, Callable, Optional

SCHEMA_VERSION = 1
UNFINISHED = ("prepared", "switched", "gating", "undoing")
LOG_LINES = 12
LOG_LINE_LENGTH = 300
LOG_BYTES = 16 * 2**20
MIB = 2**20
POLL_SECONDS = 0.5

BUFFER_LINE = re.compile(r"\b(?P<buffer>[\w.:\[\]-]+)\s+(?P<kind>\w+)\s+buffer size\s*=\s*(?P<mib>[0-9.]+) MiB")
DEVICE_LINE = re.compile(r"^\s*(?P<name>\w+): .*MiB free\)")
BUILD_INFO = re.compile(r"^b(?P<number>\d+)(?:-|$)")

Document = dict[str, Any]


class SwitchError(Exception):
    """A reason, in a sentence or two, why a deployment cannot or must not serve."""


class Busy(Exception):
    """Another switch of this instance holds the lock."""


# --------------------------------------------------------------------------------------------
# Files: everything that decides survives a power loss


def now() -> str:
    """The time as the journal writes it: UTC, whole seconds."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def sync_directory(path: pathlib.Path) -> None:
    """Make renames and new names in a directory durable."""
    handle = os.open(str(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: pathlib.Path, document: Document, durable: bool = True) -> None:
    """Replace a JSON file in one step, so that a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name("." + path.name + ".new")
    with open(temporary, "w", encoding="utf-8") as handle:
        json.dump(document, handle, indent=2, sort_keys=True)
        handle.write("\n")
        handle.flush()
        if durable:
            os.fsync(handle.fileno())
    os.replace(temporary, path)
    if durable:
        sync_directory(path.parent)


def read_json(path: pathlib.Path) -> Document:
    """A JSON object from a file; empty when there is none or it is not readable as one."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def set_link(path: pathlib.Path, target: str) -> None:
    """Point a symbolic link somewhere (or remove it when the target is empty) in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not target:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
    elif not path.is_symlink() or os.readlink(path) != target:
        temporary = path.with_name("." + path.name + ".new")
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        temporary.symlink_to(target)
        os.replace(temporary, path)
    sync_directory(path.parent)


class Layout:
    """Where the files of one instance are."""

    def __init__(self, instance: str, root: pathlib.Path = pathlib.Path("/")) -> None:
        self.instance = instance
        self.declared = root / "etc/llamacpp/instances" / instance
        self.recorded = root / "var/lib/llamacpp/instances" / instance
        self.journal = self.recorded / "switch.json"
        self.lock = self.recorded / "switch.lock"
        self.api_keys = self.declared / "api-keys"
        self.drop_in = root / "etc/systemd/system" / f"llamacpp@{instance}.service.d" / "50-deployment.conf"
        self.wants = root / "etc/systemd/system/multi-user.target.wants"

    def linked(self, name: str) -> str:
        """The id that the link ``current`` or ``previous`` points to, or an empty string."""
        link = self.declared / name
        return os.path.basename(os.readlink(link)) if link.is_symlink() else ""

    def link(self, name: str, deployment: str) -> None:
        """Point ``current`` or ``previous`` to a deployment; an empty id removes the link."""
        set_link(self.declared / name, f"deployments/{deployment}" if deployment else "")

    def link_drop_in(self, wanted: bool) -> None:
        """Put the deployment's unit.conf into the unit, or take it out."""
        if wanted or self.drop_in.parent.is_dir():
            set_link(self.drop_in, str(self.declared / "current" / "unit.conf") if wanted else "")
        if not wanted:
            with contextlib.suppress(OSError):  # somebody else's drop-ins may be there
                self.drop_in.parent.rmdir()

    def deployment(self, deployment: str) -> pathlib.Path:
        return self.declared / "deployments" / deployment

    def request(self, deployment: str) -> Document:
        """What the gate of a deployment asks for."""
        return read_json(self.recorded / deployment / "request.json")


# --------------------------------------------------------------------------------------------
# The host: systemd, the journal, sockets


class Systemd:
    """The few things a switch asks of systemd, for one instance's unit."""

    def __init__(self, instance: str) -> None:
        self.unit = f"llamacpp@{instance}.service"

    @staticmethod
    def call(*argv: str, timeout: float = 300) -> str:
        """Run a command and return its output.

        :raises SwitchError: it failed; the reason is its last line.
        """
        try:
            done = subprocess.run(argv, capture_output=True, timeout=timeout, check=False, errors="replace")
        except subprocess.TimeoutExpired:
            raise SwitchError(f"{argv[0]} {argv[1]} did not return within {timeout:.0f} s") from None
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            raise SwitchError(f"{argv[0]} {argv[1]}: {lines[-1]}")
        return done.stdout

    def show(self) -> dict[str, str]:
        """The unit's run-time properties."""
        names = "ActiveState,SubState,MainPID,Result,ExecMainCode,ExecMainStatus,NRestarts,InvocationID"
        lines = self.call("systemctl", "show", "--property", names, self.unit, timeout=30).splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def reload(self) -> None:
        self.call("systemctl", "daemon-reload")

    def restart(self) -> None:
        # Clears the start limit too: starts that failed earlier must not count against this one.
        with contextlib.suppress(SwitchError):
            self.call("systemctl", "reset-failed", self.unit)
        try:
            self.call("systemctl", "restart", self.unit)
        except SwitchError as error:
            raise SwitchError(f"the server did not start ({death(self.show())}); {error}") from None

    def stop(self) -> None:
        self.call("systemctl", "stop", self.unit)
        with contextlib.suppress(SwitchError):
            self.call("systemctl", "reset-failed", self.unit)

    def enable(self, wanted: bool) -> None:
        self.call("systemctl", "--quiet", "enable" if wanted else "disable", self.unit)

    def log(self, invocation: str) -> list[str]:
        """What one run of the unit's process wrote, or what systemd said about it when it wrote nothing."""
        with contextlib.suppress(SwitchError):
            self.call("journalctl", "--sync", timeout=10)
        for field in ("_SYSTEMD_INVOCATION_ID", "INVOCATION_ID") if invocation else ():
            try:
                output = self.call("journalctl", "--quiet", "--no-pager", "--output=cat", f"{field}={invocation}", timeout=60)
            except SwitchError as error:
                return [str(error)]
            if output.strip():
                return output[-LOG_BYTES:].splitlines()
        return []


def bound_address(text: str) -> str:
    """An address as /proc/net/tcp writes it (32-bit words in host order), in the usual form."""
    words = [int(text[index : index + 8], 16).to_bytes(4, sys.byteorder) for index in range(0, len(text), 8)]
    return str(ipaddress.ip_address(b"".join(words)))


def listening(host: str, port: int, proc: pathlib.Path = pathlib.Path("/proc")) -> list[tuple[int, str]]:
    """The processes that stand in the way of listening on host and port, as (process id, program); id 0 when unseen."""
    everywhere = ("0.0.0.0", "::")
    wanted = [address.strip(" []") or "0.0.0.0" for address in host.split(",")]
    inodes = set()
    for table in ("net/tcp", "net/tcp6"):
        with contextlib.suppress(OSError):
            for line in (proc / table).read_text().splitlines()[1:]:
                fields = line.split()
                address, _colon, number = fields[1].rpartition(":")
                if fields[3] == "0A" and int(number, 16) == port:
                    bound = bound_address(address)
                    if bound in everywhere or bound in wanted or any(name in everywhere for name in wanted):
                        inodes.add(f"socket:[{fields[9]}]")
    if not inodes:
        return []
    found = []
    for process in proc.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if any(os.readlink(handle) in inodes for handle in (process / "fd").iterdir()):
                found.append((int(process.name), (process / "comm").read_text().strip()))
    return sorted(found) or [(0, "an unknown program")]


def process_progress(pid: int, proc: pathlib.Path = pathlib.Path("/proc")) -> int:
    """About how many bytes of its model a loading server has taken in, from what the kernel counts."""
    values = [0]
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in (proc / str(pid) / "status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                values.append(int(line.split()[1]) * 1024)
        for line in (proc / str(pid) / "io").read_text().splitlines():
            if line.startswith(("rchar:", "read_bytes:")):
                values.append(int(line.split()[1]))
    return max(values)


def disk_speed(path: str, seconds: float = 2.0, limit: int = 256 * MIB) -> float:
    """Bytes a second that the disk under a file gives, past the page cache; 0.0 when that cannot be measured."""
    block = 4 * MIB
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECT)
    except (OSError, AttributeError):
        return 0.0
    total, started = 0, time.monotonic()
    try:
        with mmap.mmap(-1, block) as buffer:
            while total < limit and time.monotonic() - started < seconds:
                count = os.preadv(handle, [buffer], total)
                if count < block:
                    break
                total += count
    except OSError:
        return 0.0
    finally:
        os.close(handle)
    elapsed = time.monotonic() - started
    return total / elapsed if total >= 4 * block and elapsed > 0 else 0.0


# --------------------------------------------------------------------------------------------
# The server's HTTP interface


class Api:
    """The server as a client sees it.  The key is read from its file and goes nowhere but the header."""

    def __init__(self, address: str, port: int, key: str) -> None:
        self.address, self.port, self._key = address, port, key

    def ask(self, path: str, body: Optional[Document] = None, timeout: float = 10, key: bool = True) -> tuple[int, Document]:
        """Status and JSON of one request; status 0 when nobody answered.

        :raises SwitchError: the server took the request and did not answer in time, or broke off.
        """
        headers = {"Content-Type": "application/json"}
        if key and self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        connection = http.client.HTTPConnection(self.address, self.port, timeout=timeout)
        try:
            try:
                connection.connect()
            except OSError:
                return 0, {}
            connection.request("POST" if body else "GET", path, json.dumps(body) if body else None, headers)
            response = connection.getresponse()
            text = response.read(4 * MIB)
        except socket.timeout:
            raise SwitchError(f"{path} did not answer within {timeout:.0f} s") from None
        except (OSError, http.client.HTTPException) as error:
            raise SwitchError(f"{path}: the connection broke ({type(error).__name__})") from None
        finally:
            connection.close()
        try:
            document = json.loads(text)
        except ValueError:
            document = {}
        return response.status, document if isinstance(document, dict) else {}


def first_key(path: pathlib.Path) -> str:
    """The first key of a key file.

    :raises SwitchError: the file holds none.
    """
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.strip() and not line.startswith("#"):
                return line.strip()
    except OSError as error:
        raise SwitchError(f"the key file {path} cannot be read: {error.strerror}") from None
    raise SwitchError(f"the key file {path} holds no key")


def local_address(host: str) -> str:
    """An address to reach a server on its own host, from the one that it binds."""
    first = host.split(",", maxsplit=1)[0].strip()
    return {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1", "[::]": "::1"}.get(first, first)


# --------------------------------------------------------------------------------------------
# The gate


def buffers(lines: list[str]) -> dict[str, dict[str, int]]:
    """Bytes for each buffer and kind (model, KV, compute, …) that the server's log reports."""
    found: dict[str, dict[str, int]] = {}
    for line in lines:
        match = BUFFER_LINE.search(line)
        if match:
            kinds = found.setdefault(match["buffer"], {})
            kinds[match["kind"]] = kinds.get(match["kind"], 0) + round(float(match["mib"]) * MIB)
    return found


def sees(name: str, seen: list[str]) -> bool:
    """Whether a device is among names such as ``CUDA0``, ``CUDA0_Split`` or ``RPC0[127.0.0.1:50052]``."""
    return any(re.match(re.escape(name) + r"(?!\w*\d)", other) for other in seen)


def answer_text(document: Document) -> str:
    """What a chat completion said, reasoning included; empty for anything that is not one."""
    try:
        message = document["choices"][0]["message"]
        return "".join(str(message.get(key) or "") for key in ("reasoning_content", "content")).strip()
    except (KeyError, IndexError, TypeError, AttributeError):
        return ""


def gibberish(text: str) -> bool:
    """The kind of nonsense that a broken kernel or a damaged file makes: one character over and over, or no letter at all."""
    return (len(text) >= 8 and len(set(text)) == 1) or not any(character.isalnum() for character in text)


class Gate:
    """Ask a freshly started server the questions that decide whether it may stay."""

    def __init__(self, layout: Layout, systemd: Systemd, deployment: str, tell: Callable[[str], None], speed: float = 0.0) -> None:
        self.layout, self.systemd, self.deployment, self.tell, self.speed = layout, systemd, deployment, tell, speed

    def run(self) -> Document:
        """Gate the deployment, write gate.json and actual.json, and return what gate.json says.

        :raises SwitchError: it must not serve; gate.json holds the same reason.
        """
        request = self.layout.request(self.deployment)
        result: Document = {
            "schema_version": SCHEMA_VERSION,
            "deployment": self.deployment,
            "passed": False,
            "reason": "",
            "started_at": now(),
            "tokens_per_second": None,
        }
        try:
            if not request:
                raise SwitchError(f"deployment {self.deployment} has no readable gate request")
            self._questions(request, result)
            result["passed"] = True
        except SwitchError as error:
            result["reason"] = str(error)
            raise
        finally:
            result["finished_at"] = now()
            write_json(self.layout.recorded / self.deployment / "gate.json", result)
        return result

    def _questions(self, request: Document, result: Document) -> None:
        key = first_key(self.layout.api_keys) if request["api_key"] else ""
        api = Api(local_address(request["host"]), int(request["port"]), key)
        result["load_seconds"] = round(self._wait(api, request, result), 1)
        self._identity(api, request, result)
        self._memory(request, result)
        self._completion(api, request, result)

    def _alive(self, first: dict[str, str]) -> dict[str, str]:
        """The unit's state, as long as it is the process that was started."""
        state = self.systemd.show()
        if state.get("ActiveState") != "active" or any(state.get(name) != first.get(name) for name in ("NRestarts", "MainPID")):
            raise SwitchError(f"the server ended by itself: {death(state)}")
        return state

    def _wait(self, api: Api, request: Document, result: Document) -> float:
        """Wait until the server is healthy; seconds that it took."""
        size = int(request["model_bytes"])
        speed = self.speed or float(request["disk_floor"])
        # Weights may be read twice (load and warm-up), and never on an otherwise idle disk.
        deadline = float(request["grace_seconds"]) + 3 * 2 * size / speed
        result.update(deadline_seconds=round(deadline), disk_bytes_per_second=round(speed))
        first = self.systemd.show()
        started = time.monotonic()
        status = 0
        while True:
            state = self._alive(first)
            with contextlib.suppress(SwitchError):
                status, _body = api.ask("/health", timeout=5, key=False)
                if status == 200:
                    return time.monotonic() - started
            elapsed = time.monotonic() - started
            if elapsed > deadline:
                what = "still answers 503 (loading)" if status == 503 else f"does not answer on {api.address}:{api.port}"
                raise SwitchError(f"the server was not healthy after {deadline:.0f} s: /health {what}")
            taken = min(process_progress(int(state.get("MainPID", 0))), size)
            scale, unit = (1e9, "GB") if size >= 1e9 else (1e6, "MB")
            self.tell(f"loading, about {taken / scale:.1f} of {size / scale:.1f} {unit} after {elapsed:.0f} s (limit {deadline:.0f} s)")
            time.sleep(POLL_SECONDS)

    def _identity(self, api: Api, request: Document, result: Document) -> None:
        """The running process is the deployed build with the deployed model, and guards its door."""
        if request["api_key"]:
            status, _body = api.ask("/props", key=False)
            if status != 401:
                raise SwitchError(f"the server answered a request without a key with {status} instead of 401")
        status, props = api.ask("/props")
        if status == 401:
            raise SwitchError("the server does not accept the key of its key file")
        if status != 200:
            raise SwitchError(f"/props answered {status}")
        result.update(model_path=props.get("model_path"), build_info=props.get("build_info"))
        if props.get("model_path") != request["model_path"]:
            raise SwitchError(f"the server loaded {props.get('model_path')}, the deployment names {request['model_path']}")
        match = BUILD_INFO.match(str(props.get("build_info")))
        if not match or int(match["number"]) != int(request["build_number"]):
            raise SwitchError(f"the server is build {props.get('build_info')}, the deployment names b{request['build_number']}")

    def _memory(self, request: Document, result: Document) -> None:
        """Record the memory that the server took, and check that the planned devices hold some of it."""
        found = buffers(self.systemd.log(self.systemd.show().get("InvocationID", "")))
        document = {"schema_version": SCHEMA_VERSION, "deployment": self.deployment, "collected_at": now(), "buffers": found}
        write_json(self.layout.recorded / self.deployment / "actual.json", document)
        if request["devices"]:
            seen = list(found) or self._listed()
            missing = [name for name in request["devices"] if not sees(name, seen)]
            if missing:
                raise SwitchError(f"planned devices are not in use: {', '.join(missing)} (the engine uses {', '.join(seen) or 'none'})")
        result["devices"] = sorted(found)

    def _listed(self) -> list[str]:
        """The devices that the engine sees in the server's own environment."""
        pid = self.systemd.show().get("MainPID", "0")
        environment: dict[str, str] = {}
        with contextlib.suppress(OSError):
            text = pathlib.Path("/proc", pid, "environ").read_text(errors="replace")
            environment = dict(entry.split("=", 1) for entry in text.split("\0") if "=" in entry)
        program = self.layout.deployment(self.deployment) / "engine/bin/llama-server"
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(
                [str(program), "--list-devices"],
                env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=120, check=False, errors="replace",
                user="llamacpp", group="llamacpp", extra_groups=[],
            )  # fmt: skip
            return [match["name"] for match in map(DEVICE_LINE.match, done.stdout.splitlines()) if match]
        return []

    def _completion(self, api: Api, request: Document, result: Document) -> None:
        """One real answer.  Its time is recorded, not judged; only a server that hangs runs into the bound."""
        self.tell("loaded, asking for one completion")
        body = {
            "messages": [{"role": "user", "content": request["prompt"]}],
            "max_tokens": int(request["max_tokens"]),
            "temperature": 0,
            "seed": 42,
            "cache_prompt": False,
        }
        started = time.monotonic()
        try:
            status, document = api.ask("/v1/chat/completions", body, timeout=float(request["answer_seconds"]))
        except SwitchError as error:
            state = self.systemd.show()
            raise SwitchError(str(error) + ("" if state.get("ActiveState") == "active" else f"; {death(state)}")) from None
        if status != 200:
            message = document.get("error", {}).get("message", "") if isinstance(document.get("error"), dict) else ""
            raise SwitchError(f"the completion was answered with {status} {message}".rstrip())
        text = answer_text(document)
        result["answer"] = text[:500]
        if not text:
            raise SwitchError("the completion was empty")
        if gibberish(text):
            raise SwitchError(f"the completion is gibberish: {text[:40]!r}")
        timings = document["timings"] if isinstance(document.get("timings"), dict) else {}
        result["answer_seconds"] = round(time.monotonic() - started, 2)
        result["tokens_per_second"] = rounded(timings.get("predicted_per_second"))
        result["prompt_tokens_per_second"] = rounded(timings.get("prompt_per_second"))


def rounded(value: Any) -> Optional[float]:
    return round(float(value), 2) if isinstance(value, (int, float)) else None


def death(state: dict[str, str]) -> str:
    """How a unit's main process ended, in words."""
    status, result = state.get("ExecMainStatus", "?"), state.get("Result", "")
    if result == "oom-kill":
        return "killed because memory ran out"
    if state.get("ExecMainCode") in ("2", "3"):
        return f"killed by signal {status}" + (" (often memory that ran out)" if status == "9" else "")
    return f"exit status {status}" + (f", systemd says {result}" if result not in ("", "success", "exit-code") else "")


# --------------------------------------------------------------------------------------------
# The transaction


class Switch:
    """One instance's switch: its lock, its journal and the steps."""

    def __init__(self, layout: Layout, systemd: Systemd) -> None:
        self.layout, self.systemd = layout, systemd
        self.journal: Document = read_json(layout.journal)
        self._told = 0.0

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the instance's lock; the kernel drops it with the process.

        :raises Busy: another process holds it.
        """
        self.layout.recorded.mkdir(parents=True, exist_ok=True)
        with open(self.layout.lock, "w", encoding="utf-8") as handle:
            # Someone who asks whether a switch is running holds the lock for an instant.
            for _attempt in range(10):
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError:
                    time.sleep(0.05)
            else:
                raise Busy()
            self.journal = read_json(self.layout.journal)
            yield

    def running(self) -> bool:
        """Whether some process is inside a switch of this instance."""
        try:
            with open(self.layout.lock, encoding="utf-8") as handle:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return False

    def record(self, durable: bool = True, **changes: Any) -> None:
        """Write the journal; a change of state is on disk before this returns."""
        self.journal.update(changes, seq=int(self.journal.get("seq", 0)) + 1, updated_at=now())
        if "state" in changes:
            self.journal.setdefault("states", []).append({"state": changes["state"], "at": now()})
        write_json(self.layout.journal, self.journal, durable)

    def tell(self, progress: str) -> None:
        """Leave a progress line for whoever polls, at most one a second."""
        if time.monotonic() - self._told >= 1:
            self._told = time.monotonic()
            self.record(durable=False, progress=progress)

    # -- steps

    def run(self, to: str, run_id: str, restart: bool = False) -> Document:
        """Switch to a deployment, and back when it fails.  Returns the final journal.

        :raises Busy: another switch is running.
        """
        with self.locked():
            self.recover_locked()
            old = self.layout.linked("current")
            self.journal = {
                "schema_version": SCHEMA_VERSION,
                "instance": self.layout.instance,
                "run": run_id,
                "to": to,
                "from": old,
                "previous_before": self.layout.linked("previous"),
                "committed": self.journal.get("committed", ""),
                "serving": "",
                "restarted": False,
                "reason": "",
                "log_tail": [],
                "gate": {},
                "started_at": now(),
                "seq": self.journal.get("seq", 0),
                "states": [],
            }
            self.record(state="prepared", progress="checking the host")
            try:
                speed = self._preflight(to)
            except SwitchError as error:
                serving = old if self.systemd.show().get("ActiveState") == "active" else ""
                self.record(state="undone", reason=str(error), serving=serving, progress="refused before anything was changed")
                return self.journal
            try:
                self._change(to, old, restart)
                self.record(state="gating", progress="waiting for the server")
                gate = Gate(self.layout, self.systemd, to, self.tell, speed).run()
                self.systemd.enable(True)
                if self.layout.wants.is_dir():
                    sync_directory(self.layout.wants)
            except Exception as error:  # whatever it was, the old deployment must come back
                self._undo(to, old, explain(error))
                return self.journal
            self.record(state="committed", committed=to, serving=to, gate=brief(gate), progress="committed")
        return self.journal

    def _preflight(self, to: str) -> float:
        """Everything that can be known before the running server is touched; the disk's speed in bytes a second.

        :raises SwitchError: the switch would fail.
        """
        request = self.layout.request(to)
        if not request or not (self.layout.deployment(to) / "deployment.json").is_file():
            raise SwitchError(f"there is no deployment {to} on this host")
        needed = {"engine": self.layout.deployment(to) / "engine/bin/llama-server", "model": pathlib.Path(request["model_path"])}
        for name, path in needed.items():
            if not path.exists():
                raise SwitchError(f"the {name} of deployment {to} is not on this host: {path}")
        if request["api_key"]:
            first_key(self.layout.api_keys)
        port, own = int(request["port"]), int(self.systemd.show().get("MainPID", 0) or 0)
        others = [f"{program} (PID {pid})" for pid, program in listening(request["host"], port) if not own or pid != own]
        if others:
            raise SwitchError(f"port {port} is held by {', '.join(others)}: stop it or choose another port")
        return disk_speed(request["model_path"])

    def _change(self, to: str, old: str, restart: bool) -> None:
        """Let ``current`` name the deployment and start the server from it."""
        if old != to:
            if old:
                self.layout.link("previous", old)
            self.layout.link("current", to)
        self.layout.link_drop_in(True)
        self.record(state="switched", progress="restarting the server")
        self.systemd.reload()
        # The same deployment that is already running only has to prove itself again.
        if old != to or restart or self.systemd.show().get("ActiveState") != "active":
            self.record(durable=False, restarted=True)
            self.systemd.restart()

    def _restore_links(self) -> str:
        """Take the links back to what they were before the switch; the id that ``current`` names then."""
        old: str = self.journal.get("from", "")
        self.layout.link("current", old)
        self.layout.link("previous", self.journal.get("previous_before", ""))
        self.layout.link_drop_in(bool(old))
        return old

    def _undo(self, to: str, old: str, reason: str) -> None:
        """Put the old deployment back and gate it; without one, stop."""
        self.record(state="undoing", reason=reason, log_tail=self._tail(), progress="undoing: " + reason)
        try:
            if old == to:
                raise SwitchError("there is no other deployment to go back to")
            self._restore_links()
            self.systemd.reload()
            if not old:
                self.systemd.stop()
                self.systemd.enable(False)
                self.record(state="undone", committed="", serving="", progress="undone: nothing was served before, the unit is stopped")
                return
            self.systemd.restart()
            gate = Gate(self.layout, self.systemd, old, self.tell).run()
        except Exception as error:  # the journal has to end with what it came to
            serving = old if self.systemd.show().get("ActiveState") == "active" else ""
            self.record(state="failed", serving=serving, undo_reason=explain(error), progress=f"failed: {explain(error)}")
            return
        self.record(state="undone", serving=old, gate=brief(gate), progress=f"undone: {old} serves again")

    def recover(self) -> bool:
        """Undo a switch that nobody is working on any more; whether there was one."""
        try:
            with self.locked():
                return self.recover_locked()
        except Busy:
            return False

    def recover_locked(self) -> bool:
        state = self.journal.get("state")
        if state not in UNFINISHED:
            return False
        old = self._restore_links()
        self.systemd.reload()
        active = self.systemd.show().get("ActiveState") == "active"
        if not old:
            if active:
                self.systemd.stop()
            self.systemd.enable(False)
        elif active:
            self.systemd.restart()
        reason = self.journal.get("reason") or f"the switch was interrupted in state {state}"
        self.record(state="undone", reason=reason, serving=old, progress=f"undone: interrupted in state {state}")
        return True

    def _tail(self) -> list[str]:
        """The last lines of the server's log, without anything that looks like its key."""
        secret = ""
        with contextlib.suppress(SwitchError):
            secret = first_key(self.layout.api_keys)
        lines = self.systemd.log(self.systemd.show().get("InvocationID", ""))
        lines = [line for line in lines if "api_keys:" not in line and not (secret and secret in line)]
        return [line[:LOG_LINE_LENGTH] for line in lines[-LOG_LINES:]]

    def status(self) -> Document:
        """The journal, with whether a switch is running now and what the unit does."""
        running = self.running()
        self.journal = read_json(self.layout.journal)
        document = {"state": "none", "seq": 0, "committed": "", **self.journal}
        document.update(running=running, current=self.layout.linked("current"), previous=self.layout.linked("previous"))
        document["active_state"] = self.systemd.show().get("ActiveState", "unknown")
        return document

    def wait(self, after: int, seconds: float) -> Document:
        """The status as soon as the journal has moved past a sequence number, or after some seconds."""
        end = time.monotonic() + seconds
        while True:
            document = self.status()
            if not document["running"] or document["seq"] > after or time.monotonic() >= end:
                return document
            time.sleep(POLL_SECONDS)


def explain(error: Exception) -> str:
    """The reason that an exception stands for."""
    return str(error) if isinstance(error, SwitchError) else f"the switch itself failed: {error!r}"


def brief(gate: Document) -> Document:
    """What the journal keeps of a gate."""
    return {key: gate.get(key) for key in ("load_seconds", "tokens_per_second", "prompt_tokens_per_second", "answer", "build_info")}


# --------------------------------------------------------------------------------------------
# Command line


def start(switch: Switch, to: str, restart: bool) -> Document:
    """Start a switch that outlives this session, and wait until it has written its journal.

    :raises SwitchError: it could not be started.
    """
    name = switch.layout.instance
    if switch.running():
        raise SwitchError(f"a switch of {name} is already running, to {read_json(switch.layout.journal).get('to')}")
    run_id = uuid.uuid4().hex[:12]
    own = [sys.executable, "-I", os.path.abspath(__file__), "run", "--instance", name, "--to", to, "--run", run_id]
    Systemd.call(
        "systemd-run", "--quiet", "--collect", f"--unit=llamacpp-switch-{name}", "--property=OOMScoreAdjust=-900",
        f"--description=Switch of llama.cpp instance {name} to {to}", *own, *(["--restart"] if restart else []),
        timeout=60,
    )  # fmt: skip
    end = time.monotonic() + 30
    while time.monotonic() < end:
        document = switch.status()
        if document.get("run") == run_id:
            return document
        time.sleep(0.1)
    raise SwitchError(f"the switch did not begin: see journalctl -u llamacpp-switch-{name}")


def show(document: Document) -> None:
    print(json.dumps(document, indent=2, sort_keys=True))


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="llamacpp-switch", description="Switch a llama.cpp instance to a deployment, or back.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("switch", "start a switch in the background and print its journal"),
        ("run", "switch and wait"),
        ("status", "print the journal"),
        ("recover", "undo switches that were interrupted"),
    ):
        command = commands.add_parser(name, help=text)
        if name != "recover":
            command.add_argument("--instance", required=True)
        if name in ("switch", "run"):
            command.add_argument("--to", required=True, metavar="ID")
            command.add_argument("--restart", action="store_true", help="restart even when the deployment runs already")
        if name == "run":
            command.add_argument("--run", default="", help=argparse.SUPPRESS)
        if name == "status":
            command.add_argument("--after", type=int, default=-1, help="wait until the journal is past this sequence number")
            command.add_argument("--wait", type=float, default=0, metavar="SECONDS")
    return parser


def main(argv: Optional[list[str]] = None) -> int:
    options = arguments().parse_args(argv)
    try:
        if options.command == "recover":
            root = pathlib.Path("/var/lib/llamacpp/instances")
            for path in sorted(root.iterdir()) if root.is_dir() else []:
                if Switch(Layout(path.name), Systemd(path.name)).recover():
                    print(f"{path.name}: an interrupted switch was undone")
            return 0
        if shutil.which("systemctl") is None:
            raise SwitchError("this host has no systemd")
        switch = Switch(Layout(options.instance), Systemd(options.instance))
        if options.command == "status":
            show(switch.wait(options.after, options.wait))
            return 0
        if options.command == "switch":
            show(start(switch, options.to, options.restart))
            return 0
        final = switch.run(options.to, options.run or uuid.uuid4().hex[:12], options.restart)
        print(final["progress"])
        return 0 if final["state"] == "committed" else 1
    except Busy:
        print("another switch of this instance is running", file=sys.stderr)
    except SwitchError as error:
        print(error, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
