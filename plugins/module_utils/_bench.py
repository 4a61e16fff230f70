# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How ``llama-bench`` is run beside a server: with its flags, in its surroundings, and only where memory allows. Pure; bytes."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from typing import Any, Optional

GIB = 2**30
# Beside what a second load takes, the host keeps this much of its memory, or this share.
RESERVE, RESERVE_SHARE = GIB, 0.02
# All experts: more layers than any model has.
EVERY_LAYER = "999"

# The server's variables that decide its speed, and the options of llama-bench that mean the same.
OPTIONS = {
    "LLAMA_ARG_THREADS": "--threads",
    "LLAMA_ARG_BATCH": "--batch-size",
    "LLAMA_ARG_UBATCH": "--ubatch-size",
    "LLAMA_ARG_CACHE_TYPE_K": "--cache-type-k",
    "LLAMA_ARG_CACHE_TYPE_V": "--cache-type-v",
    "LLAMA_ARG_FLASH_ATTN": "--flash-attn",
    "LLAMA_ARG_N_GPU_LAYERS": "--n-gpu-layers",
    "LLAMA_ARG_N_CPU_MOE": "--n-cpu-moe",
    "LLAMA_ARG_CPU_MOE": "--n-cpu-moe",
    "LLAMA_ARG_OVERRIDE_TENSOR": "--override-tensor",
    "LLAMA_ARG_TENSOR_SPLIT": "--tensor-split",
    "LLAMA_ARG_SPLIT_MODE": "--split-mode",
    "LLAMA_ARG_MAIN_GPU": "--main-gpu",
    "LLAMA_ARG_DEVICE": "--device",
    "LLAMA_ARG_LOAD_MODE": "--load-mode",
    "LLAMA_ARG_REPACK": "--repack",
    "LLAMA_ARG_NUMA": "--numa",
}
# llama-bench takes a comma for the next value to try.
SEPARATORS = {"--override-tensor": ";", "--tensor-split": "/", "--device": "/"}
DEVICE_LINE = re.compile(r"^\s*(?P<name>\w+): .*\((?:\d+) MiB, (?P<free>\d+) MiB free\)")


def environment(text: str) -> dict[str, str]:
    """The variables of an environment file as systemd reads those that this collection writes."""
    lines = (line.partition("=") for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {name: "".join(shlex.split(value)[:1]) for name, _equals, value in lines}


def arguments(variables: Mapping[str, str], usage: str) -> tuple[list[str], list[str]]:
    """Arguments for ``llama-bench`` that place the model as the server does, and the variables that it has no option for.

    :param variables: the server's environment
    :param usage: what ``llama-bench --help`` prints
    """
    known = set(re.findall(r"--[a-z][a-z0-9-]+", usage))
    found, missing = ["--model", variables["LLAMA_ARG_MODEL"]], []
    for variable, option in OPTIONS.items():
        value = variables.get(variable, "")
        if not value or (variable == "LLAMA_ARG_CPU_MOE" and value == "0"):
            continue
        if option not in known:
            missing.append(variable)
            continue
        value = EVERY_LAYER if variable == "LLAMA_ARG_CPU_MOE" else value
        value = {"true": "1", "false": "0"}.get(value, value) if option == "--repack" else value
        found += [option, value.replace(",", SEPARATORS.get(option, ","))]
    return found, missing


def device_memory(text: str) -> dict[str, int]:
    """Free bytes by device from what ``--list-devices`` prints."""
    found = (DEVICE_LINE.match(line) for line in text.splitlines())
    return {match["name"]: int(match["free"]) * 2**20 for match in found if match}


def obstacle(plan: Mapping[str, Any], available: int, total: int, free: Mapping[str, int]) -> str:
    """Why the model may not be loaded a second time beside the server, in a sentence; empty when it may.

    :param plan: of the deployment that serves
    :param available: bytes of the host's memory that can be had without swapping; mapped weights count as such
    :param total: bytes of the host's memory
    :param free: free bytes by device, as the engine lists them now
    """
    memory = plan.get("memory") or {}
    if not memory.get("host"):
        return "the plan of the deployment is not known"
    if (plan.get("placement") or {}).get("rpc_servers"):
        return "an RPC server has one client at a time"
    if plan.get("fit") == "streaming":
        return "the model streams from disk, and a second load would take the memory that the server reads it through"
    for share in memory.get("devices") or []:
        wanted = sum(int(share.get(part, 0)) for part in ("weights", "context", "compute"))
        there = free.get(share["engine_name"], 0)
        if wanted > there:
            return f"{share['engine_name']} has {there / 1e9:.1f} GB free, a second load takes {wanted / 1e9:.1f} GB"
    host = memory["host"]
    wanted = sum(int(host.get(part, 0)) for part in ("weights", "context", "compute"))
    there = available - max(RESERVE, int(total * RESERVE_SHARE))
    if wanted > there:
        return f"the host can give {max(there, 0) / 1e9:.1f} GB of memory, a second load takes {wanted / 1e9:.1f} GB"
    return ""


def figures(text: str) -> dict[str, Any]:
    """Tokens a second for reading a prompt and for generating, from the JSON that ``llama-bench`` prints.

    :raises ValueError: it is not that.
    """
    found: dict[str, Any] = {}
    for test in json.loads(text):
        for count, name in (("n_gen", "tokens_per_second"), ("n_prompt", "prompt_tokens_per_second")):
            if test[count] and not test["n_prompt" if count == "n_gen" else "n_gen"]:
                found[name] = round(float(test["avg_ts"]), 2)
                found[f"{name}_deviation"] = round(float(test["stddev_ts"]), 2)
                found[count] = int(test[count])
    if "tokens_per_second" not in found:
        raise ValueError("llama-bench has measured no generation")
    return found


def words(result: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """A benchmark in lines for people, measured figures beside what the plan expected."""
    estimate = expected.get("estimate") or expected
    one, low, high = result["tokens_per_second"], estimate.get("low"), estimate.get("high")
    lines = [f"one user: {one:g} tokens/s{_against(low, high)}, prompts {_shown(result['prompt_tokens_per_second'])} tokens/s"]
    load = result["load"]
    lines.append(
        f"{load['clients']} users at once: {load['tokens_per_second']:g} tokens/s together,"
        f" first token after {load['first_token_seconds']['median']:g} s (worst {load['first_token_seconds']['worst']:g} s),"
        f" {load['failed']} of {load['requests']} requests failed"
    )
    engine = result["engine"]
    if engine:
        lines.append(
            f"llama-bench: {engine['tokens_per_second']:g} tokens/s, prompts {_shown(engine.get('prompt_tokens_per_second'))} tokens/s"
        )
    return lines + list(result["notes"])


def _against(low: Optional[float], high: Optional[float]) -> str:
    if low is None or high is None:
        return ""
    return f" (the plan expected {low:g})" if low == high else f" (the plan expected {low:g} to {high:g})"


def _shown(value: Optional[float]) -> str:
    return "-" if value is None else f"{value:g}"
