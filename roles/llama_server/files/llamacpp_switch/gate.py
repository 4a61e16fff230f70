# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate: asks a freshly started server the questions that decide whether it may stay."""

from __future__ import annotations

import contextlib
import pathlib
import re
import subprocess
import time
from typing import Callable, Optional

from . import devices, outside, questions
from .api import Api, first_key, keys, local_address, on_loopback
from .evidence import buffers, compared, compared_host, sees, too_much, why, without_secrets
from .files import SCHEMA_VERSION, Document, Layout, SwitchError, now, read_json, write_json
from .front import Front
from .host import Systemd, death, part, process_progress
from .questions import Answer

POLL_SECONDS = 0.5
LOG_LAST = 500  # lines, of which a backtrace may be most
LEAST_DISK = 1e6
SECONDS_BEFORE = 2  # clocks of the kernel's log and ours are read apart

DEVICE_LINE = re.compile(r"^\s*(?P<name>\w+): .*MiB free\)")
BUILD_INFO = re.compile(r"^b(?P<number>\d+)(?:-|$)")


class Gate:
    """Ask a freshly started server the questions that decide whether it may stay."""

    def __init__(
        self,
        layout: Layout,
        systemd: Systemd,
        deployment: str,
        tell: Callable[[str], None],
        speed: float = 0.0,
        beside: int = 0,
        back: bool = False,
    ) -> None:
        """:param beside: the port of a second server, which no client is told of; 0 for the instance's own
        :param back: it is a way back, which must be open whatever the front is like: its faults are only warnings. It is to be short
            too: what a deployment has shown of tools when it passed its gate is not asked for again
        """
        self.beside, self.back = beside, back
        self.layout, self.systemd, self.deployment, self.tell, self.speed = layout, systemd, deployment, tell, speed
        self.folder = layout.recorded / deployment
        self.memory = read_json(self.folder / "plan.json").get("memory", {})
        self.shares = self.memory.get("devices", [])
        self.proven = back and bool(read_json(self.folder / "gate.json").get("passed"))
        self.uuids = [str(share["uuid"]) for share in self.shares if str(share.get("uuid", "")).startswith(("GPU-", "MIG-"))]
        self.first: dict[str, str] = {}  # the unit's state as the server was started
        self.began, self.before = time.time() - SECONDS_BEFORE, devices.ask_health(self.uuids)
        # Asked now, because a device that is lost tells no more where it was.
        self.addresses = devices.ask_addresses(self.uuids)

    def run(self, gap: Callable[[], Optional[float]] = lambda: None) -> Document:
        """Gate the deployment, write gate.json and actual.json, and return what gate.json says.

        :param gap: tells, as soon as the server answers, for how many seconds nothing was served
        :raises SwitchError: it must not serve; gate.json holds the same reason.
        """
        request = self.layout.request(self.deployment)
        result: Document = {
            "schema_version": SCHEMA_VERSION,
            "deployment": self.deployment,
            "passed": False,
            "reason": "",
            "warnings": [],
            "notes": [],
            "started_at": now(),
            "tokens_per_second": None,
            "gap_seconds": None,
        }
        try:
            if not request:
                raise SwitchError(f"deployment {self.deployment} has no readable gate request")
            self._questions(request, result, gap)
            result["passed"] = True
        except SwitchError as error:
            result["reason"] = str(error)
            raise
        finally:
            result["finished_at"] = now()
            write_json(self.folder / "gate.json", result)
        return result

    def _questions(self, request: Document, result: Document, gap: Callable[[], Optional[float]]) -> None:
        key = first_key(self.layout.api_keys) if request["api_key"] else ""
        api = Api(local_address(request["host"]), self.beside or int(request["port"]), key)
        result["load_seconds"] = round(self._wait(api, request, result), 1)
        # From here on whoever asks is answered; the questions that follow take no service away.
        result["gap_seconds"] = gap()
        props = self._identity(api, request, result)
        self._memory(request, result)
        answers = self._prompts(api, request, result)
        self._tools(api, request, props, result)
        self._speed(request, answers, result)
        self._devices(result)
        if not self.beside:
            self._advertised(request, result)
        # One that has died since its last answer, or was started again, is none to keep.
        self._alive()

    def _warn(self, result: Document, text: str) -> None:
        """Something that is worth a word and no reason to go back."""
        result["warnings"].append(text)
        self.tell(text)

    def _runs(self, state: dict[str, str]) -> bool:
        """Whether the unit is still the process that was started."""
        return state.get("ActiveState") == "active" and all(state.get(name) == self.first.get(name) for name in ("NRestarts", "MainPID"))

    def _alive(self) -> dict[str, str]:
        """The unit's state.

        :raises SwitchError: the process that was started has ended.
        """
        state = self.systemd.show()
        if not self._runs(state):
            raise SwitchError(f"the server ended by itself: {self._death(state)}")
        return state

    def _death(self, state: dict[str, str]) -> str:
        """How the process that was started has ended, and what it gave as the reason."""
        # One that was killed had no time to say anything of it.
        killed = state.get("Result") == "oom-kill" or (state.get("ExecMainCode") in ("2", "3") and state.get("ExecMainStatus") == "9")
        reason = "" if killed else why(said(self.layout, self.systemd, self.first.get("InvocationID", "")))
        # What systemd says of the end is gone once it has started another.
        how = "systemd has started it again" if state.get("ActiveState") == "active" else death(state)
        return how + (f" ({reason})" if reason else "")

    def _disk(self, request: Document) -> float:
        """Bytes a second of the model's disk, as measured or else as assumed."""
        return self.speed or max(float(request["disk_floor"]), LEAST_DISK)

    def _read_seconds(self, request: Document) -> float:
        """What the disk takes to read the model once."""
        return int(request["model_bytes"]) / self._disk(request)

    def _answer_seconds(self, request: Document, tokens: int) -> float:
        """How long an answer of so many tokens may take at most."""
        told = read_json(self.folder / "benchmark.json").get("tokens_per_second"), request["speed"]["expected"]
        speeds = [float(value) for value in told if isinstance(value, (int, float)) and value > 0]
        read = self._read_seconds(request)
        # Where nothing is known of a model that is streamed, each token may need all of it.
        each = 1 / min(speeds) if speeds else read if read_json(self.folder / "plan.json").get("fit") == "streaming" else 0.0
        return questions.answer_seconds(float(request["answer_seconds"]), read, tokens, each)

    def _wait(self, api: Api, request: Document, result: Document) -> float:
        """Wait until the server is healthy; seconds that it took."""
        size = int(request["model_bytes"])
        # Weights may be read twice: load and warm-up.
        deadline = float(request["grace_seconds"]) + questions.SLACK * 2 * self._read_seconds(request)
        result.update(deadline_seconds=round(deadline), disk_bytes_per_second=round(self._disk(request)))
        self.first = self.systemd.show()
        started = time.monotonic()
        status = 0
        while True:
            state = self._alive()
            with contextlib.suppress(SwitchError):
                status, _body = api.ask("/health", timeout=5, key=False)
                if status == 200:
                    return time.monotonic() - started
            elapsed = time.monotonic() - started
            if elapsed > deadline:
                what = "still answers 503 (loading)" if status == 503 else f"does not answer on {api.address}:{api.port}"
                raise SwitchError(f"the server was not healthy after {deadline:.0f} s: /health {what}")
            taken = min(process_progress(int(state.get("MainPID", 0))), size)
            self.tell(f"loading, about {part(taken, size)} after {elapsed:.0f} s (limit {deadline:.0f} s)")
            # The gap is measured to two hundredths of itself.
            time.sleep(min(POLL_SECONDS, max(0.05, elapsed / 50)))

    def _identity(self, api: Api, request: Document, result: Document) -> Document:
        """The running process is the deployed build with the deployed model, and guards its door. What it says of itself."""
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
        return props

    def _memory(self, request: Document, result: Document) -> None:
        """Record the memory that the server took; the planned devices hold some of it, and none holds more than it may."""
        found = buffers(self.systemd.log(self.systemd.show().get("InvocationID", "")))
        if self.memory and not found:
            self._warn(result, "the server's log says nothing of its memory, so that is not compared with the plan")
        taken = compared([share for share in self.shares if share.get("engine_name") in request["devices"]], found)
        host = compared_host(self.memory.get("host", {}), found)
        document = {"schema_version": SCHEMA_VERSION, "deployment": self.deployment, "collected_at": now()}
        write_json(self.folder / "actual.json", {**document, "buffers": found, "devices": taken, "host": host})
        for share in taken + host:
            self.tell(f"{share['engine_name']} takes {share['actual'] / 1e9:.2f} GB, {share['error_percent']:+.1f} % against the plan")
        broken, missed = too_much(taken)
        if broken:
            raise SwitchError("; ".join(broken))
        for text in missed:
            self._warn(result, text)
        # The host's memory has a buffer for it; a device has what it has.
        result["notes"] += too_much(host)[1]
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

    def _prompts(self, api: Api, request: Document, result: Document) -> list[Answer]:
        """Real answers. Their time is recorded; only a server that hangs runs into the bound."""
        answers: list[Answer] = []
        for number, prompt in enumerate(request["prompts"], 1):
            self.tell(f"loaded, asking for completion {number} of {len(request['prompts'])}")
            started = time.monotonic()
            answer = self._ask(api, questions.prompt_body(prompt), request, "the completion")
            if not answers:
                result.update(answer=answer.text[:500], answer_seconds=round(time.monotonic() - started, 2))
            problem = questions.prompt_problem(prompt, answer)
            if problem:
                raise SwitchError(problem)
            answers.append(answer)
        return answers

    def _ask(self, api: Api, body: Document, request: Document, what: str) -> Answer:
        try:
            status, document = api.ask("/v1/chat/completions", body, timeout=self._answer_seconds(request, body["max_tokens"]))
        except SwitchError as error:
            state = self.systemd.show()
            raise SwitchError(str(error) + ("" if self._runs(state) else f"; the server ended by itself: {self._death(state)}")) from None
        if status != 200:
            message = document.get("error", {}).get("message", "") if isinstance(document.get("error"), dict) else ""
            raise SwitchError(f"{what} was answered with {status} {message}".rstrip())
        return questions.read_answer(document)

    def _tools(self, api: Api, request: Document, props: Document, result: Document) -> None:
        """A model whose template knows tools is offered one: what it says of it must be understood by the engine."""
        known = props.get("chat_template_caps")
        able = isinstance(known, dict) and bool(known.get("supports_tool_calls"))
        wish = request["tools"]
        if wish == "off" or (wish == "auto" and not able) or self.proven:
            return
        self.tell("offering a tool")
        answer = self._ask(api, questions.tool_body(), request, "the request with a tool")
        problem = questions.tool_problem(answer)
        if not problem and not answer.calls and wish == "required":
            problem = f"the model did not call the tool that it was offered: {answer.text[: questions.SHOWN]!r}"
        if problem:
            raise SwitchError(problem)
        result["tool_calls"] = len(answer.calls)

    def _speed(self, request: Document, answers: list[Answer], result: Document) -> None:
        """Too slow is a reason to go back only against a benchmark of this deployment or the user's own figure."""
        # The first tokens after a load are slow, so the best answer counts.
        fastest = max(answers, key=lambda answer: answer.speed or 0.0)
        result.update(tokens_per_second=fastest.speed, prompt_tokens_per_second=fastest.prompt_speed)
        benchmark = questions.rounded(read_json(self.folder / "benchmark.json").get("tokens_per_second"))
        slow, told = questions.speed_problem(request["speed"], benchmark, fastest.speed)
        if slow:
            raise SwitchError(slow)
        if told:
            # An estimate that was missed says as much of the estimate as of the server.
            result["notes"].append(told)
            self.tell(told)

    def _devices(self, result: Document) -> None:
        """None of the planned devices has shown an error since the server was started."""
        if not self.uuids:
            return
        after = devices.ask_health(self.uuids)
        bad, told = devices.problems(self.before, after, devices.ask_xids(self.began, self.addresses))
        silent = [uuid for uuid in self.uuids if uuid not in after]
        if silent:
            told.append(f"nvidia-smi says nothing of {', '.join(silent)}: errors of its memory and a slow clock would not be seen")
        if bad:
            raise SwitchError("; ".join(bad))
        for text in told:
            self._warn(result, text)

    def _advertised(self, request: Document, result: Document) -> None:
        """Whether clients can reach the server where they are told to."""
        result["reachable"] = "loopback"
        if request.get("front"):
            try:
                self._through_front(request["front"], result)
            except SwitchError as error:
                if not self.back:
                    raise
                self._warn(result, str(error))
            return
        if on_loopback(request["host"]):
            return
        with contextlib.suppress(SwitchError):
            status, _body = Api(request["advertised"], int(request["port"]), "").ask("/health", key=False)
            if status == 200:
                result["reachable"] = request["advertised"]
                return
        self._warn(result, f"only loopback answers: {request['advertised']} port {request['port']} does not, seen from this host")

    def _through_front(self, wanted: Document, result: Document) -> None:
        """Whether clients can reach the server through its front, and only with a key."""
        url, drained = wanted["url"], Front(self.layout).drained
        seen = outside.look(url, wanted["ca"])
        for text in seen.warnings:
            self._warn(result, text)
        if not seen.health:
            self._warn(result, f"the front does not answer at {url}, seen from this host")
        elif seen.health != (503 if drained else 200):
            raise SwitchError(f"{url}/health answers {seen.health}: the front does not reach the server")
        elif seen.keyless != 401:
            raise SwitchError(f"the front answered a request without a key with {seen.keyless} instead of 401")
        else:
            result["reachable"] = url


def said(layout: Layout, systemd: Systemd, invocation: str) -> list[str]:
    """The last lines that one run of the server wrote, backtraces included and those with its keys not."""
    secrets: list[str] = []
    with contextlib.suppress(SwitchError):
        secrets = keys(layout.api_keys)
    return without_secrets(systemd.log(invocation, LOG_LAST), secrets)


def brief(gate: Document) -> Document:
    """What the journal keeps of a gate."""
    return {
        key: gate.get(key)
        for key in (
            "load_seconds",
            "gap_seconds",
            "tokens_per_second",
            "prompt_tokens_per_second",
            "answer",
            "build_info",
            "reachable",
            "warnings",
            "notes",
        )
    }
