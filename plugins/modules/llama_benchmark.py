#!/usr/bin/python
# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: llama_benchmark
short_description: Measures a server that runs, and records how fast it is
version_added: 0.1.0
description:
  - Asks the running server for answers, one user at a time and some at once, and then runs C(llama-bench) with the flags of the
    deployment, in the surroundings of its unit.
  - C(llama-bench) loads the model a second time. Where memory does not allow that beside the server it is left out, and RV(notes)
    says why. The server goes on serving in any case.
  - The figures are recorded as C(benchmark.json) of the deployment. Later plans show them, and the gate holds later starts of the
    same deployment to them.
options:
  instance:
    description: The name of the instance.
    type: str
    default: main
  engine:
    description: Whether C(llama-bench) is run at all.
    type: bool
    default: true
  tokens:
    description: Length of every answer, in tokens.
    type: int
    default: 64
  repetitions:
    description: How often one user asks, and how often C(llama-bench) repeats its tests.
    type: int
    default: 3
  clients:
    description: Users that ask at the same time.
    type: int
    default: 4
  requests:
    description: How often they ask altogether.
    type: int
    default: 8
  timeout:
    description: Seconds of silence after which a request is given up, and seconds that C(llama-bench) may take.
    type: int
    default: 3600
extends_documentation_fragment:
  - onprem.llamacpp.attributes
attributes:
  check_mode:
    support: full
    details: Measures nothing, and says whether C(llama-bench) would run.
  diff_mode:
    support: none
    details: Figures differ every time.
seealso:
  - module: onprem.llamacpp.llama_server_info
author:
  - onprem.llamacpp contributors (@onprem)
"""

EXAMPLES = r"""
- name: Measure the server
  onprem.llamacpp.llama_benchmark:
    clients: 8
    requests: 32
  become: true
  async: 7200
  poll: 10
"""

RETURN = r"""
benchmark:
  description:
    - What was recorded. C(tokens_per_second) is the middle of what one user gets, and what plan and gate read.
    - C(load) has what C(clients) get at once, C(engine) the figures and arguments of C(llama-bench), empty where it was left out.
  returned: when not in check mode
  type: dict
  sample: {"tokens_per_second": 5.2}
notes:
  description: What was left out, and why.
  returned: always
  type: list
  elements: str
summary:
  description: The figures in lines for people, beside what the plan expected.
  returned: when not in check mode
  type: list
  elements: str
"""

import os
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.onprem.llamacpp.plugins.module_utils import _bench, _instance, _load, _memory, _server
from ansible_collections.onprem.llamacpp.plugins.module_utils._host import Run, read_json, read_text, run_command

SCHEMA_VERSION = 1
# Prompts of llama-bench are so many times as long as its answers.
PROMPT_LENGTH = 4
# What the server's own unit has, as far as every backend can live with it.
PROPERTIES = (
    "User=llamacpp",
    "Group=llamacpp",
    "CacheDirectoryMode=0700",
    "CapabilityBoundingSet=",
    # The engine would silently merge this file into its settings.
    "InaccessiblePaths=-/etc/llama.cpp",
    "IPAddressDeny=any",
    "MemorySwapMax=0",
    "Nice=5",
    "NoNewPrivileges=yes",
    # Before the server, it is this that goes when memory runs out.
    "OOMScoreAdjust=1000",
    "PrivateTmp=yes",
    "ProtectHome=read-only",
    "ProtectSystem=strict",
    "RestrictAddressFamilies=AF_UNIX",
    "SystemCallArchitectures=native",
)
# Where the unit's part of a deployment has put the server.
SURROUNDINGS = ("Environment", "NUMAPolicy", "NUMAMask", "SupplementaryGroups", "LimitMEMLOCK")


class BenchmarkError(Exception):
    """Why nothing was measured, in words for the user."""


class Benchmark:
    """One instance, measured."""

    def __init__(self, instance: _instance.Instance, params: dict[str, Any], run: Run, proc: str = "/proc") -> None:
        self.instance, self.params, self.run, self.proc = instance, params, run, proc
        self.current = instance.current()
        if not instance.proven():
            raise BenchmarkError(f"Instance {instance.name} serves no deployment that has passed its gate. Deploy it first.")
        self.document = read_json(os.path.join(instance.deployment(self.current), "deployment.json"))
        health = _server.health(self.document["host"], int(self.document["port"]))
        if health != "ok":
            raise BenchmarkError(f"The server of instance {instance.name} is not healthy ({health}), so it cannot be measured.")
        self.plan = read_json(instance.record(self.current, "plan.json"))
        self.programs = os.path.join(instance.deployment(self.current), "engine/bin")

    def surroundings(self) -> list[str]:
        """Properties of the server's unit that decide what an engine sees."""
        unit = f"llamacpp@{self.instance.name}.service"
        _status, out, _err = self.run(["systemctl", "show", *(f"--property={name}" for name in SURROUNDINGS), unit])
        shown = [line for line in out.splitlines() if line.partition("=")[2] not in ("", "n/a")]
        return [f"CacheDirectory=llamacpp/{self.instance.name}", *shown]

    def engine(self, *arguments: str) -> tuple[int, str, str]:
        """Run a program of the engine as the server is run, without a network."""
        unit = f"llamacpp-benchmark-{self.instance.name}"
        properties = [f"--property={text}" for text in (*PROPERTIES, *self.surroundings(), f"RuntimeMaxSec={self.params['timeout']}")]
        program = [os.path.join(self.programs, arguments[0]), *arguments[1:]]
        return self.run(["systemd-run", "--quiet", "--wait", "--pipe", "--collect", f"--unit={unit}", *properties, *program])

    def obstacle(self) -> str:
        """Why ``llama-bench`` is not run; empty when it is."""
        if not self.params["engine"]:
            return "llama_benchmark_engine is false"
        if not os.access(os.path.join(self.programs, "llama-bench"), os.X_OK):
            return "this engine has no such program"
        free: dict[str, int] = {}
        if (self.plan.get("memory") or {}).get("devices"):
            free = _bench.device_memory(self.engine("llama-server", "--list-devices")[1])
        memory = _memory.parse_meminfo(read_text(os.path.join(self.proc, "meminfo")))
        return _bench.obstacle(self.plan, memory["available"], memory["total"], free)

    def measure(self) -> dict[str, Any]:
        """The benchmark, recorded.

        :raises BenchmarkError: the server could not be measured.
        """
        params = self.params
        key = next((line for line in read_text(self.instance.api_keys).splitlines() if line.strip() and not line.startswith("#")), "")
        server = _load.Server(
            _server.local_address(self.document["host"]),
            int(self.document["port"]),
            key if self.document["api_key_required"] else "",
            params["timeout"],
        )
        result: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "deployment": self.current,
            **{name: self.document[name] for name in ("build_id", "repo_id", "commit", "quant")},
            "measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        try:
            result.update(_load.one_user(server, params["tokens"], params["repetitions"]))
        except _load.LoadError as error:
            raise BenchmarkError(f"The server of instance {self.instance.name} could not be measured: {error}.") from None
        result["load"] = _load.many_users(server, params["tokens"], params["clients"], params["requests"])
        result["engine"], result["notes"] = self._bench()
        if self.instance.current() != self.current:
            raise BenchmarkError(
                f"Another deployment was switched to meanwhile, so nothing was recorded. Run again for {self.instance.current()}."
            )
        _instance.write_file(self.instance.record(self.current, "benchmark.json"), _instance.to_json(result))
        return result

    def _bench(self) -> tuple[dict[str, Any], list[str]]:
        """The figures of ``llama-bench``, and what there is to say of it."""
        obstacle = self.obstacle()
        if obstacle:
            return {}, [f"llama-bench was not run: {obstacle}"]
        variables = _bench.environment(read_text(os.path.join(self.instance.deployment(self.current), "server.env")))
        arguments, missing = _bench.arguments(variables, self.engine("llama-bench", "--help")[1])
        arguments += ["--n-prompt", str(PROMPT_LENGTH * self.params["tokens"]), "--n-gen", str(self.params["tokens"])]
        arguments += ["--repetitions", str(self.params["repetitions"]), "--output", "json"]
        notes = [f"llama-bench was not told what it has no option for: {', '.join(missing)}"] if missing else []
        status, out, err = self.engine("llama-bench", *arguments)
        try:
            found = _bench.figures(out)
        except (ValueError, KeyError, TypeError):
            said = (err.strip() or out.strip() or "nothing").splitlines()[-1]
            return {}, [f"llama-bench failed with status {status}: {said[:300]}"]
        return {**found, "arguments": arguments}, notes


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "instance": {"type": "str", "default": "main"},
            "engine": {"type": "bool", "default": True},
            "tokens": {"type": "int", "default": 64, "no_log": False},
            "repetitions": {"type": "int", "default": 3},
            "clients": {"type": "int", "default": 4},
            "requests": {"type": "int", "default": 8},
            "timeout": {"type": "int", "default": 3600},
        },
        supports_check_mode=True,
    )
    params = module.params

    def run(argv: list[str]) -> tuple[int, str, str]:
        return run_command(argv, timeout=params["timeout"] + 60)

    try:
        benchmark = Benchmark(_instance.Instance(params["instance"]), params, run)
        if module.check_mode:
            obstacle = benchmark.obstacle()
            said = f"llama-bench would not be run: {obstacle}" if obstacle else "llama-bench would be run beside the server"
            module.exit_json(changed=True, notes=["The server would be asked for answers", said])
        result = benchmark.measure()
    except BenchmarkError as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=True, benchmark=result, notes=result["notes"], summary=_bench.words(result, benchmark.plan.get("expected") or {})
    )


if __name__ == "__main__":
    main()
