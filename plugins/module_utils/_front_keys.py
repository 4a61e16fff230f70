# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keys of a front's clients: which are valid, and how nginx tells whose a request is.

A client has one valid key, and two while it changes from one to the next. Keys are in files of root; nothing here returns one.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterable, Mapping
from typing import Callable, NamedTuple

from ansible_collections.onprem.llamacpp.plugins.module_utils import _instance

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")
KEY = re.compile(r"[A-Za-z0-9._~+/-]{16,}=*$")
SHOWN = re.compile(r'^proxy_set_header Authorization "Bearer (.+)";$', re.MULTILINE)


class Client(NamedTuple):
    """A client with the keys that the inventory gives it, the newest first; none for keys that are made on the host."""

    name: str
    given: tuple[str, ...] = ()


def make() -> str:
    """A new key of 256 bits."""
    return secrets.token_hex(32)


def read(folder: str) -> dict[str, list[str]]:
    """The valid keys by client, the newest first."""
    try:
        names = sorted(name for name in os.listdir(folder) if NAME.match(name))
    except OSError:
        return {}
    return {name: (_instance.read_text(os.path.join(folder, name)) or "").split() for name in names}


def problems(clients: list[Client], rotate: Iterable[str], retire: Iterable[str]) -> list[str]:
    """What is wrong with a wish, in words that name no key."""
    found, names = [], [client.name for client in clients]
    if not clients:
        found.append("llama_server_front_keys is empty: name at least one client.")
    found += [f"llama_server_front_keys: '{name}' is no name: letters, digits and . _ - only." for name in names if not NAME.match(name)]
    found += [f"llama_server_front_keys: {name} is there twice." for name in sorted({name for name in names if names.count(name) > 1})]
    owners: dict[str, str] = {}
    for client in clients:
        for key in client.given:
            if not KEY.match(key):
                found.append(f"llama_server_front_keys: a key of {client.name} is no bearer token of 16 characters or more.")
            elif owners.setdefault(key, client.name) != client.name:
                found.append(f"llama_server_front_keys: {client.name} and {owners[key]} have the same key.")
    given = {client.name for client in clients if client.given}
    for variable, wish in (("llama_server_front_rotate", rotate), ("llama_server_front_retire", retire)):
        for name in wish:
            if name not in names:
                found.append(f"{variable}: {name} is not in llama_server_front_keys.")
            elif name in given:
                found.append(f"{variable}: the key of {name} is given: put the new one into key and the old one into previous_key.")
    return found


def wanted(
    clients: Iterable[Client],
    held: Mapping[str, list[str]],
    rotate: Iterable[str],
    retire: Iterable[str],
    new: Callable[[], str] = make,
) -> dict[str, list[str]]:
    """The keys that shall be valid, by client. A client that has two already gets no third: a second run changes nothing."""
    keys: dict[str, list[str]] = {}
    rotate, retire = set(rotate), set(retire)
    for client in clients:
        if client.given:
            keys[client.name] = list(client.given)
            continue
        mine = list(held.get(client.name) or [new()])
        if client.name in rotate and (len(mine) == 1 or client.name in retire):
            mine.insert(0, new())
        keys[client.name] = mine[:1] if client.name in retire else mine[:2]
    return keys


def variable(instance: str, name: str) -> str:
    """A variable of nginx that belongs to one instance."""
    return f"$llamacpp_{instance.replace('-', '_')}_{name}"


def callers(instance: str, keys: Mapping[str, list[str]]) -> str:
    """What nginx reads to tell whose a request is. Strings would be compared without regard to case, expressions are not."""
    bearer, key, client = (variable(instance, name) for name in ("bearer", "key", "client"))
    lines = [
        f"map $http_authorization {key} {{",
        "    default $http_x_api_key;",
        f'    "~^[Bb]earer +(?<{bearer[1:]}>[^ ]+)$" {bearer};',
        "}",
        f"map {key} {client} {{",
        '    default "";',
    ]
    lines += [f'    "~^{re.escape(each)}$" "{name}";' for name, held in sorted(keys.items()) for each in held]
    return "\n".join([*lines, "}", ""])


def engine_keys(text: str) -> list[str]:
    """The keys of the engine's key file."""
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def shown_key(text: str) -> str:
    """The key in what `engine_key` has written; empty without one."""
    found = SHOWN.search(text)
    return found[1] if found else ""


def engine_key(text: str) -> str:
    """What nginx shows the engine instead of what the client has shown, from the engine's key file; nothing when it needs no key."""
    held = engine_keys(text)
    return f'proxy_set_header Authorization "{"Bearer " + held[0] if held else ""}";\n'
