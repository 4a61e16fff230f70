# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a deployment is: its id, its documents and the questions of its gate, from results that are all known beforehand.

The id is a hash of the wish alone. No plan, no time and no secret goes into it, so the same wish is the same deployment.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.onprem.llamacpp.plugins.plugin_utils._canonical import digest
from ansible_collections.onprem.llamacpp.plugins.plugin_utils._environment import ARGUMENTS

SCHEMA_VERSION = 1
ID_LENGTH = 12

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*$")
_PLAIN = re.compile(r"[A-Za-z0-9_./:,=+@%-]+$")
# Readable by every local user, these files are no place for a secret.
_SECRET = re.compile(r"API_KEY|_TOKEN$|PASSWORD|SECRET", re.IGNORECASE)
_OWN = {
    "LLAMA_ARG_HOST": "llama_server_host",
    "LLAMA_ARG_PORT": "llama_server_port",
    "LLAMA_ARG_ALIAS": "llama_server_alias",
    "LLAMA_ARG_MODEL": "model and quant",
    # The plan counts with RPC devices, and a security floor looks at it.
    "LLAMA_ARG_RPC": "llama_plan_rpc_servers",
}


class DeploymentError(ValueError):
    """A wish that cannot become a deployment, in words for the user."""


def merge_environment(rendered: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, str]:
    """The engine's environment with the user's own additions, which win.

    :raises DeploymentError: an addition is a secret, or belongs to a variable of its own.
    """
    merged = {name: str(value) for name, value in rendered.items()}
    for name, value in extra.items():
        if not _NAME.match(str(name)):
            raise DeploymentError(f"llama_server_extra_environment: {name!r} is no name for an environment variable.")
        if _SECRET.search(name):
            raise DeploymentError(
                f"llama_server_extra_environment: {name} looks like a secret, and this environment is readable by every user of the host."
                " API keys belong into the instance's api-keys file."
            )
        if name in _OWN:
            raise DeploymentError(f"llama_server_extra_environment: {name} is set by {_OWN[name]}; set that instead.")
        merged[name] = _text(value)
        if name == ARGUMENTS and "--rpc" in merged[name].split():
            raise DeploymentError(f"llama_server_extra_environment: --rpc in {name} is set by {_OWN['LLAMA_ARG_RPC']}; set that instead.")
    return merged


def _text(value: Any) -> str:
    """A value as the engine reads it from its environment; booleans as it spells them."""
    return ("1" if value else "0") if isinstance(value, bool) else str(value)


def environment_file(environment: Mapping[str, str]) -> str:
    """An ``EnvironmentFile=`` of systemd, sorted by name.

    :raises DeploymentError: a value has a line break or another control character.
    """
    lines = []
    for name in sorted(environment):
        value = environment[name]
        if any(ord(character) < 32 or ord(character) == 127 for character in value):
            raise DeploymentError(f"The value of {name} has a control character, which an environment file cannot carry.")
        quoted = value if _PLAIN.match(value) else '"' + re.sub(r'([\\"$`])', r"\\\1", value) + '"'
        lines.append(f"{name}={quoted}\n")
    return "".join(lines)


def deployment_id(build_id: str, model: Mapping[str, Any], environment: Mapping[str, str], unit: str) -> str:
    """The first 12 hex digits of the sha256 of everything that the wish consists of."""
    wish = {
        "build_id": build_id,
        "repo_id": model["repo_id"],
        "commit": model["commit"],
        "quant": model["quant"],
        "shards": sorted(entry["sha256"] for entry in model["files"]),
        "environment": dict(environment),
        "unit": unit,
    }
    return digest(wish, ID_LENGTH)


def gate_prompt(prompt: Mapping[str, Any], max_tokens: int) -> dict[str, Any]:
    """A question of the gate with what its answer must contain (``expect``) or match (``pattern``).

    :raises DeploymentError: it is no question, or its pattern is no regular expression
    """
    text, pattern = str(prompt.get("prompt") or ""), str(prompt.get("pattern") or "")
    if not text:
        raise DeploymentError("llama_server_gate_prompts: an entry has no prompt.")
    try:
        re.compile(pattern)
    except re.error as error:
        raise DeploymentError(f"llama_server_gate_prompts: {pattern!r} is no regular expression: {error}.") from None
    tokens = int(prompt.get("max_tokens") or max_tokens)
    return {"prompt": text, "expect": str(prompt.get("expect") or ""), "pattern": pattern, "max_tokens": tokens}


def describe(
    engine: Mapping[str, Any],
    model: Mapping[str, Any],
    plan: Mapping[str, Any],
    environment: Mapping[str, Any],
    unit: str,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """The deployment of an engine and a model.

    :param engine: ``llama_engine_result`` of a host that has the engine
    :param model: ``llama_model_result``
    :param plan: ``llama_plan_result``; its devices and expected speed go into the gate's questions, nothing into the id
    :param environment: what ``server_environment`` rendered
    :param unit: the rendered unit.conf
    :param settings: instance, host, port, alias, api_key_required, extra_environment, advertised (an address), warm_seconds, keep,
        overlap, spare_port, drain_seconds, gate, and front (url and ca, a file) where clients come through one
    :raises DeploymentError: the wish is not one that can be served
    """
    build = engine["build"]
    merged = merge_environment(environment, settings.get("extra_environment") or {})
    identity = deployment_id(engine["build_id"], model, merged, unit)
    model_path = posixpath.join(model["path"], model["first_shard"])
    gate, expected = settings["gate"], plan.get("expected") or {}
    server_env = environment_file(merged)
    document = {
        "schema_version": SCHEMA_VERSION,
        "id": identity,
        "instance": settings["instance"],
        "build_id": engine["build_id"],
        "engine_path": engine["path"],
        "repo_id": model["repo_id"],
        "commit": model["commit"],
        "quant": model["quant"],
        "model_path": model_path,
        "shards": [
            {"name": posixpath.basename(entry["path"]), "size": int(entry["size"]), "sha256": entry["sha256"]} for entry in model["files"]
        ],
        "alias": settings["alias"],
        "host": settings["host"],
        "port": int(settings["port"]),
        "api_key_required": bool(settings["api_key_required"]),
        "files": {name: hashlib.sha256(text.encode()).hexdigest() for name, text in (("server.env", server_env), ("unit.conf", unit))},
    }
    request = {
        "schema_version": SCHEMA_VERSION,
        "deployment": identity,
        "host": settings["host"],
        "port": int(settings["port"]),
        "api_key": bool(settings["api_key_required"]),
        "model_path": model_path,
        "model_bytes": int(model["bytes"]),
        "build_number": int(build["number"]),
        "devices": [device["engine_name"] for device in plan.get("devices") or []],
        "advertised": settings["advertised"],
        "front": dict(settings.get("front") or {}),
        "prompts": [gate_prompt(prompt, int(gate["max_tokens"])) for prompt in gate["prompts"]],
        "tools": gate["tools"],
        "speed": {
            "minimum": float(gate["min_tokens_per_second"]),
            "benchmark_share": float(gate["benchmark_share"]),
            # What was estimated, also after a benchmark: that is read where it was recorded, and measuring changes no request.
            "expected": (expected.get("estimate") or expected).get("low"),
        },
        "answer_seconds": int(gate["answer_seconds"]),
        "grace_seconds": int(gate["grace_seconds"]),
        "disk_floor": int(gate["disk_floor_mb"]) * 1_000_000,
        "load_mode": merged.get("LLAMA_ARG_LOAD_MODE", ""),
        "warm_seconds": int(settings["warm_seconds"]),
        "keep": int(settings["keep"]),
        "overlap": settings["overlap"],
        "spare_port": int(settings["spare_port"]),
        "drain_seconds": int(settings["drain_seconds"]),
    }
    return {
        "id": identity,
        "document": document,
        "server_env": server_env,
        "unit_conf": unit,
        "engine_path": engine["path"],
        "model_path": model["path"],
        "request": request,
    }
