# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What apt would install as an engine, and whether it may be used, known before anything is installed. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cmp_to_key
from typing import Any

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _floors

# The package whose version is llama.cpp's, and its releases whose build is known.
ENGINE_PACKAGE = "llama.cpp-tools"
RELEASES = {
    (0, 1, 2): 10485,
    (0, 3, 0): 10621,
    (0, 4, 0): 10878,
    (0, 4, 1): 11063,
    (0, 6, 0): 11429,
    (0, 7, 0): 11669,
    (0, 9, 0): 12110,
}

_ENTRY = re.compile(r"^(\S+):\n  Installed: (\S+)\n  Candidate: (\S+)$", re.MULTILINE)
_UPSTREAM = re.compile(r"(?:\d+:)?(\d+(?:\.\d+)*)")


def parse_policy(text: str) -> dict[str, str]:
    """Versions that an installation ends with, by package, from ``apt-cache policy`` in English; none where there is none to have.

    What is installed stays: nothing is upgraded that was not asked for, and engines are held.
    """
    found = {name: candidate if installed == "(none)" else installed for name, installed, candidate in _ENTRY.findall(text)}
    return {name: "" if version == "(none)" else version for name, version in found.items()}


def least_build(version: str) -> int:
    """The least build that a package of this version can hold; 0 when the version does not tell.

    Packages were numbered by builds at first (``9721+dfsg-1``) and by releases later (``1:0.7.0+dfsg-2``).
    """
    match = _UPSTREAM.match(version)
    if not match:
        return 0
    parts = tuple(int(part) for part in match.group(1).split("."))
    if len(parts) == 1:
        return parts[0]
    return max((build for release, build in RELEASES.items() if release <= parts), default=_floors.UNNUMBERED + 1)


def compare(left: str, right: str) -> int:
    """Negative, zero or positive as a Debian version is older than another, the same or newer."""
    for one, other in zip(_split(left), _split(right)):
        difference = _compare_part(one, other)
        if difference:
            return difference
    return 0


def _split(version: str) -> tuple[str, str, str]:
    epoch, _colon, rest = version.rpartition(":")
    upstream, _dash, revision = rest.rpartition("-") if "-" in rest else (rest, "", "")
    return epoch or "0", upstream, revision


def _compare_part(left: str, right: str) -> int:
    """Parts of letters and parts of digits in turn; a tilde comes before the end, letters before other signs."""
    rows = [re.findall(r"(\D*)(\d*)", part) for part in (left, right)]
    for index in range(max(map(len, rows))):
        (text, digits), (other_text, other_digits) = (row[index] if index < len(row) else ("", "") for row in rows)
        orders = [[_order(character) for character in part] + [0] for part in (text, other_text)]
        if orders[0] != orders[1]:
            return -1 if orders[0] < orders[1] else 1
        difference = int(digits or 0) - int(other_digits or 0)
        if difference:
            return difference
    return 0


def _order(character: str) -> int:
    if character == "~":
        return -1
    return ord(character) if character.isalpha() else ord(character) + 256


def problems(
    policy: Mapping[str, str], names: Sequence[str], uses_rpc: bool, force: Sequence[str], engines: Iterable[Mapping[str, Any]]
) -> list[str]:
    """Why these packages may not become an engine: not to be had, below a floor, or older than an engine made of them before.

    Args:
        policy: what ``parse_policy`` found.
        names: the packages that are wanted.
        uses_rpc: whether the deployment uses RPC.
        force: floors that are not enforced.
        engines: releases of the host with their ``build``.
    """
    missing = [name for name in names if not policy.get(name)]
    if missing:
        names_of = ", ".join(missing)
        return [f"No repository of this host has the packages {names_of}. Add one that has them, or take another llama_engine_source."]
    version = policy[ENGINE_PACKAGE]
    least = least_build(version)
    found = _floors.refusals(least, uses_rpc, force, f"{ENGINE_PACKAGE} {version}") if least else []
    for name in names:
        newest = max(_versions(engines, name), key=cmp_to_key(compare), default="")
        if newest and compare(policy[name], newest) < 0:
            found.append(
                f"{name} is {policy[name]}, but an engine of this host was made of {newest}. Packages do not go back: two versions never"
                " stand side by side. Install the newer version again, or build the older engine with llama_engine_source git or archive."
            )
    return found


def _versions(engines: Iterable[Mapping[str, Any]], name: str) -> list[str]:
    return [packages[name] for engine in engines if name in (packages := engine.get("build", {}).get("packages") or {})]
