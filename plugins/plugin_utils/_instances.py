# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The further instances of a host (C(llama_instances)): which keys one has, what each stands for, and what is wrong with them. Pure.

What speaks of a model is an instance's own, and has the role's default where the instance does not say it: what was said for
C(main) is never meant for another model. What speaks of the host (addresses, the front, mirrors, disks) is the same for all.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Optional

from ansible_collections.onprem.llamacpp.plugins.module_utils._instance import NAME, NAME_RULE
from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _plan_settings

VARIABLE = "llama_instances"
MAIN = "main"
WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false", list: "a list", dict: "a mapping"}


class InstancesError(ValueError):
    """Instances that cannot be planned, in one sentence for the user."""


class Key(NamedTuple):
    """What a key stands for: the role's variable, its default there, and whether roles read it after the plan was made."""

    variable: str
    kind: type
    default: Any = None
    lasting: bool = False

    @property
    def setting(self) -> str:
        """What the planner calls it; empty for what concerns the server alone."""
        return self.variable.removeprefix("llama_plan_") if self.variable.startswith("llama_plan_") else ""


REQUIRED = ("name", "port")
KEYS = {
    "name": Key("llama_plan_instance", str, lasting=True),
    "port": Key("llama_plan_port", int, lasting=True),
    "model": Key("llama_plan_model", str, "kimi-k2-instruct"),
    "quant": Key("llama_plan_quant", str, "UD-Q2_K_XL"),
    "quant_policy": Key("llama_plan_quant_policy", str, "refuse"),
    "use_case": Key("llama_plan_use_case", str, ""),
    "revision": Key("llama_plan_revision", str, "main"),
    "devices": Key("llama_plan_devices", list, []),
    "require_gpu": Key("llama_plan_require_gpu", bool, False),
    "vram_margin": Key("llama_plan_vram_margin", int, 2**30),
    "ctx_size": Key("llama_plan_ctx_size", int, 0),
    "parallel": Key("llama_plan_parallel", int, 1),
    "cache_type_k": Key("llama_plan_cache_type_k", str, "f16"),
    "cache_type_v": Key("llama_plan_cache_type_v", str, "f16"),
    "ubatch_size": Key("llama_plan_ubatch_size", int, 512),
    "threads": Key("llama_plan_threads", int, 0),
    "placement": Key("llama_plan_placement", dict, {}, lasting=True),
    "alias": Key("llama_server_alias", str, "", lasting=True),
    "gate_prompts": Key("llama_server_gate_prompts", list, [], lasting=True),
    "gate_min_tokens_per_second": Key("llama_server_gate_min_tokens_per_second", float, 0, lasting=True),
    "spare_port": Key("llama_server_spare_port", int, 0, lasting=True),
    "front_port": Key("llama_server_front_port", int, 8443, lasting=True),
    "front_metrics_port": Key("llama_server_front_metrics_port", int, 9464, lasting=True),
}
# Variables of the role llama_server that follow a key which the plan has a name of its own for.
ALSO = {"name": "llama_server_instance", "port": "llama_server_port"}


def lasting() -> list[str]:
    """The variables that roles read of each instance after the plan; given with C(-e) they would be the same for all."""
    return sorted([key.variable for key in KEYS.values() if key.lasting] + list(ALSO.values()))


def read(declared: Any, extra: Iterable[str] = ()) -> list[dict[str, Any]]:
    """The instances with every key that they may have.

    Args:
        declared: C(llama_instances) as the inventory has it.
        extra: names of variables given with C(-e).

    Raises:
        InstancesError: names everything that is wrong.
    """
    if not isinstance(declared, (list, tuple)):
        raise InstancesError(f"{VARIABLE} is {reprlib.repr(declared)}, expected a list of mappings")
    found, wrong = [], []
    for number, entry in enumerate(declared):
        if not isinstance(entry, Mapping):
            wrong.append(f"{VARIABLE}[{number}] is {reprlib.repr(entry)}, expected a mapping")
            continue
        wrong += _problems(entry, str(entry.get("name") or f"number {number + 1}"))
        found.append({name: entry.get(name, key.default) for name, key in KEYS.items()})
    names = [entry["name"] for entry in found]
    wrong += [f"{VARIABLE} has {name} twice" for name in dict.fromkeys(names) if name and names.count(name) > 1]
    for variable in sorted(set(extra) & set(lasting())) if found else []:
        wrong.append(
            f"{variable} is given with -e, which would make it the same for every instance of a host with {VARIABLE}: "
            "put it into the inventory, where it is main's alone"
        )
    if wrong:
        raise InstancesError("; ".join(wrong))
    return found


def _problems(entry: Mapping[str, Any], who: str) -> list[str]:
    """What is wrong with one instance by itself."""
    wrong = [f"{VARIABLE}: {who} has no {key}" for key in REQUIRED if not entry.get(key)]
    for key in entry:
        if key not in KEYS:
            near = difflib.get_close_matches(str(key), list(KEYS), n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            wrong.append(f"{VARIABLE}: {who} has {key}, which is not known: {hint}it may have {', '.join(KEYS)}")
    for key, known in KEYS.items():
        value = entry.get(key)
        if value is not None and not _is_a(value, known.kind):
            wrong.append(f"{VARIABLE}: {key} of {who} is {reprlib.repr(value)}, expected {WORDS[known.kind]}")
    name = entry.get("name")
    if name == MAIN:
        wrong.append(f"{VARIABLE} has {MAIN}, which is what the other variables describe: take another name")
    elif isinstance(name, str) and name and not NAME.match(name):
        wrong.append(f"{VARIABLE}: {name!r} is not a valid instance name: {NAME_RULE}")
    return wrong


def _is_a(value: Any, kind: type) -> bool:
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind is list:
        return isinstance(value, Sequence) and not isinstance(value, str)
    return isinstance(value, Mapping if kind is dict else kind)


def settings(instance: Mapping[str, Any], main: Mapping[str, Any]) -> dict[str, Any]:
    """What the planner is told of an instance: its own keys, and the host's settings as they are main's.

    Raises:
        InstancesError: a value cannot be planned with.
    """
    own = {key.setting: instance[name] for name, key in KEYS.items() if key.setting}
    try:
        checked = _plan_settings.check({**main, **own})
    except _plan_settings.SettingsError as error:
        raise InstancesError(f"{VARIABLE}: {instance['name']}: {str(error).replace('llama_plan_', '')}") from None
    # What stands in the way of the host is told once, of main.
    return {**checked, "threads": own["threads"] or None, "further": True, "problems": [], "cuda_problems": []}


def ports(wish: Mapping[str, Any], serving: Mapping[str, Any]) -> dict[str, int]:
    """The ports that one instance takes on its host, by what sets them.

    Args:
        wish: the instance's own C(port), C(spare_port), C(front_port) and C(front_metrics_port).
        serving: C(fronted), C(metrics) and C(overlap) of the host.
    """
    taken = {"port": int(wish["port"])}
    if serving.get("fronted"):
        taken["front_port"] = int(wish["front_port"])
        if serving.get("metrics"):
            taken["front_metrics_port"] = int(wish["front_metrics_port"])
        if serving.get("overlap", "auto") == "auto":
            port = taken["port"]
            taken["spare_port"] = int(wish["spare_port"]) or port + (10000 if port < 55536 else -10000)
    return taken


def clashes(taken: Mapping[str, Mapping[str, int]]) -> dict[str, list[str]]:
    """The ports that are wanted twice, for the later instance of the two.

    Args:
        taken: what C(ports) returned for each instance, in their order, main first.
    """
    holders: dict[int, tuple[str, str]] = {}
    found: dict[str, list[str]] = {name: [] for name in taken}
    for name, own in taken.items():
        for key, port in own.items():
            if not 1 <= port <= 65535:
                found[name].append(f"port: {key} of {name} is {port}, expected a port from 1 to 65535")
            elif port in holders:
                other, others_key = holders[port]
                whose = f"the {others_key} of {other}" if other != name else f"its {others_key}"
                found[name].append(f"port: {port} is the {key} of {name} and {whose} too: give one of them another port")
            else:
                holders[port] = (name, key)
    return found


def chosen(device: Mapping[str, Any], number: int, name: Any) -> bool:
    """Whether a device goes by a name: its number, UUID, address on the bus, or the engine's name for it."""
    known = (str(number), device["uuid"], device.get("pci_address", ""), device["engine_name"])
    return str(name) != "" and str(name).lower() in {word.lower() for word in known}


class Share(NamedTuple):
    """The devices that an instance may use, None for any, and what is wrong with its wish for them."""

    uuids: Optional[list[str]]
    problems: list[str]


def identity(device: Mapping[str, Any]) -> str:
    """What a plan knows a device by."""
    return str(device["uuid"] or device.get("pci_address", ""))


def share_out(devices: Sequence[Mapping[str, Any]], wishes: Mapping[str, Sequence[Any]]) -> dict[str, Share]:
    """Which devices each instance may use: those that it names, which nobody else may, or those that nobody names.

    Args:
        devices: those of the host.
        wishes: names of devices by instance, none for an instance that takes what is left.
    """
    owners: dict[str, str] = {}
    own: dict[str, list[str]] = {name: [] for name in wishes}
    problems: dict[str, list[str]] = {name: [] for name in wishes}
    for name, wanted in wishes.items():
        for word in wanted:
            found = [identity(device) for number, device in enumerate(devices) if chosen(device, number, word)]
            if not found:
                there = ", ".join(f"{device['engine_name']} ({device.get('name', '')}, {identity(device)})" for device in devices) or "none"
                problems[name].append(f"device: {name} is to use {word}, which this host does not have: it has {there}")
            for uuid in found:
                if owners.setdefault(uuid, name) != name:
                    problems[name].append(f"device: {name} is to use {word}, which is for {owners[uuid]} alone: take it out of one of them")
                elif uuid not in own[name]:
                    own[name].append(uuid)
    free = [identity(device) for device in devices if identity(device) not in owners]
    return {name: Share(own[name] if wishes[name] else (free if owners else None), problems[name]) for name in wishes}
