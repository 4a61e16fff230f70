# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts that were recorded earlier: as a file of an inventory, and whether they can still be planned with."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, NamedTuple, Optional

import yaml

# What hardware_facts collects and the planner reads.
SCHEMA_VERSION = 2
TEMPLATE_MARKS = ("{{", "{%", "{#")


class RecordedError(ValueError):
    """Recorded facts that cannot be used, in one sentence for the user."""


class Kind(NamedTuple):
    """What a fact must be: its type, for a number the least value, and whether facts can do without it."""

    kind: type
    least: int = 0
    optional: bool = False

    def takes(self, value: Any) -> bool:
        if self.kind is not int:
            return isinstance(value, self.kind)
        return isinstance(value, int) and not isinstance(value, bool) and value >= self.least

    @property
    def words(self) -> str:
        return {str: "text", bool: "true or false", list: "a list", Mapping: "a mapping"}.get(
            self.kind, f"a whole number from {self.least} on"
        )


# What the planner takes for granted. Facts are files that people edit, and one host's must not end the plan of a fleet.
MEMORY = {"total": Kind(int, least=1), "cgroup_limit": Kind(int, optional=True), "bandwidth": Kind(Mapping, optional=True)}
BANDWIDTH = {"bytes_per_second": Kind(int, optional=True)}
PROCESS = {"pid": Kind(int), "name": Kind(str), "bytes": Kind(int), "ours": Kind(bool), "unit": Kind(str, optional=True)}
DEVICE = {
    **{key: Kind(str) for key in ("uuid", "kind", "engine_name", "name")},
    **{"total": Kind(int), "foreign": Kind(int, optional=True), "bandwidth": Kind(int, optional=True)},
    **{"pci_address": Kind(str, optional=True), "processes": Kind(list, optional=True)},
}
DISK = {"path": Kind(str), "free": Kind(int), "sequential_read": Kind(int, optional=True)}


def check(facts: Any, host: str) -> dict[str, Any]:
    """Recorded facts of a host, when they can be planned with.

    Raises:
        RecordedError: they are no facts, or of another schema than today's.
    """
    again = "record them again with ansible-playbook onprem.llamacpp.plan -e llama_plan_record=DIRECTORY"
    if not isinstance(facts, Mapping) or not facts:
        raise RecordedError(
            f"{host} has no recorded facts: llama_plan_use_recorded is set, but llama_hardware_recorded holds none: {again}"
        )
    found = facts.get("schema_version", "no schema_version")
    if found != SCHEMA_VERSION:
        raise RecordedError(f"the recorded facts of {host} have schema_version {found}, {SCHEMA_VERSION} is wanted: {again}")
    missing = [key for key in ("memory", "devices", "disks") if key not in facts]
    if missing:
        raise RecordedError(f"the recorded facts of {host} are incomplete, they lack {', '.join(missing)}: {again}")
    wrong = _wrong(facts)
    if wrong:
        raise RecordedError(f"the recorded facts of {host} cannot be planned with: {'; '.join(wrong)}: {again}")
    return dict(facts)


def _wrong(facts: Mapping[str, Any]) -> list[str]:
    """Every fact that the planner would stumble over: where it is, what was found and what is wanted."""
    wrong = [
        *_entry("memory", facts["memory"], MEMORY),
        *_entries("devices", facts["devices"], DEVICE),
        *_entries("disks", facts["disks"], DISK),
    ]
    if wrong:
        return wrong
    wrong += _entry("memory.bandwidth", facts["memory"].get("bandwidth") or {}, BANDWIDTH)
    for number, device in enumerate(facts["devices"]):
        wrong += _entries(f"devices[{number}].processes", device.get("processes") or [], PROCESS)
    return wrong


def _entry(where: str, entry: Any, kinds: Mapping[str, Kind]) -> list[str]:
    """What is wrong with one part of the facts."""
    if not isinstance(entry, Mapping):
        return [f"{where} is {reprlib.repr(entry)}, expected a mapping"]
    wrong = []
    for key, kind in kinds.items():
        value = entry.get(key)
        if value is None and kind.optional:
            continue
        if not kind.takes(value):
            found = f"is {reprlib.repr(value)}" if key in entry else "is missing"
            wrong.append(f"{where}.{key} {found}, expected {kind.words}")
    return wrong


def _entries(where: str, listed: Any, kinds: Mapping[str, Kind]) -> list[str]:
    if not isinstance(listed, list):
        return [f"{where} is {reprlib.repr(listed)}, expected a list of mappings"]
    return [words for number, entry in enumerate(listed) for words in _entry(f"{where}[{number}]", entry, kinds)]


def age(collected_at: str, now: Optional[datetime] = None) -> str:
    """How long ago facts were collected, as in V(19 days ago); nothing when that is not known."""
    try:
        moment = datetime.strptime(collected_at, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    except (TypeError, ValueError):
        return ""
    minutes = int(((now or datetime.now(timezone.utc)) - moment).total_seconds() // 60)
    for unit, size in (("day", 1440), ("hour", 60), ("minute", 1)):
        if minutes >= 2 * size:
            return f"{minutes // size} {unit}s ago"
    return "just now"


class _Dumper(yaml.SafeDumper):
    """Writes what a host said so that no inventory takes it for a template."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    if any(mark in value for mark in TEMPLATE_MARKS):
        return dumper.represent_scalar("!unsafe", value, style="'")
    return dumper.represent_str(value)


_Dumper.add_representer(str, _text)


def _plain(value: Any) -> Any:
    """The same data in plain types: what comes out of templates carries tags of its own."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    for kind in (str, bool, int, float):
        if isinstance(value, kind):
            return value if kind is bool else kind(value)
    return value


def document(facts: Mapping[str, Any]) -> str:
    """A host_vars file with the facts of a host."""
    head = "---\n# Recorded by onprem.llamacpp; used where llama_plan_use_recorded is true.\n"
    return head + yaml.dump({"llama_hardware_recorded": _plain(facts)}, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
