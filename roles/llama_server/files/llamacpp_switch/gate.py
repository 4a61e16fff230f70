# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate: asks a freshly started server the questions that decide whether it may stay."""

from __future__ import annotations

import contextlib
import http.client
import json
import pathlib
import re
import socket
import subprocess
import time
from typing import Any, Callable, Optional

from .files import SCHEMA_VERSION, Document, Layout, SwitchError, now, read_json, write_json
from .host import MIB, Systemd, death, process_progress

POLL_SECONDS = 0.5

BUFFER_LINE = re.compile(r"\b(?P<buffer>[\w.:\[\]-]+)\s+(?P<kind>\w+)\s+buffer size\s*=\s*(?P<mib>[0-9.]+) MiB")
DEVICE_LINE = re.compile(r"^\s*(?P<name>\w+): .*MiB free\)")
BUILD_INFO = re.compile(r"^b(?P<number>\d+)(?:-|$)")


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


def buffers(lines: list[str]) -> dict[str, dict[str, int]]:
    """Bytes for each buffer and kind (model, KV, compute, …) that the server's log reports."""
    found: dict[str, dict[str, int]] = {}
    for line in lines:
        match = BUFFER_LINE.search(line)
        if match:
            kinds = found.setdefault(match["buffer"], {})
            size = round(float(match["mib"]) * MIB)
            # Scratch memory is reserved anew when the graph changes, everything else once for each of its parts.
            kinds[match["kind"]] = size if match["kind"] == "compute" else kinds.get(match["kind"], 0) + size
    return found


def compared(planned: list[Document], found: dict[str, dict[str, int]]) -> list[Document]:
    """Bytes planned and taken on each device that the log tells of, and how far the plan was off in percent."""
    told = []
    for share in planned:
        taken = sum(sum(kinds.values()) for name, kinds in found.items() if sees(share["engine_name"], [name]))
        wanted = sum(int(share.get(part, 0)) for part in ("weights", "context", "compute"))
        if taken and wanted:
            error = round(100 * (taken - wanted) / wanted, 1)
            told.append({"engine_name": share["engine_name"], "planned": wanted, "actual": taken, "error_percent": error})
    return told


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
        folder = self.layout.recorded / self.deployment
        plan = read_json(folder / "plan.json")
        shares = [share for share in plan.get("memory", {}).get("devices", []) if share.get("engine_name") in request["devices"]]
        devices = compared(shares, found)
        document = {"schema_version": SCHEMA_VERSION, "deployment": self.deployment, "collected_at": now()}
        write_json(folder / "actual.json", {**document, "buffers": found, "devices": devices})
        for share in devices:
            self.tell(f"{share['engine_name']} takes {share['actual'] / 1e9:.2f} GB, {share['error_percent']:+.1f} % against the plan")
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
