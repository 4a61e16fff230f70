# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes out of texts what nobody else may read: keys, tokens, and what users asked and were answered. Pure.

Rather too much goes than too little: a line that may hold a prompt goes as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

GONE = "[redacted]"
# Shorter words of a secret file may be any word; who has such a key has other worries.
SHORTEST_KEY = 12
SEPARATORS = re.compile(r"[\s:=,;\"'{}\[\]]+")

SECRETS = (
    re.compile(r"\bhf_[A-Za-z0-9]{16,}"),
    re.compile(r"\bsk-[A-Za-z0-9_-]{16,}"),
    re.compile(r"(?<=\bBearer )[^\s\"',;]+", re.IGNORECASE),
    re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"),
    re.compile(r"(?:(?<=[?&]key=)|(?<=[?&]token=)|(?<=[?&]api_key=))[^\s&\"']+", re.IGNORECASE),
)
NAMED = re.compile(
    r"(?P<name>(?<![A-Za-z])(?:[A-Za-z0-9]*[_-])?(?:api[_-]?key|token|password|passwd|secret)s?[\"']?\s*[=:]\s*[\"']?)(?P<value>[^\s\"',]{8,})",
    re.IGNORECASE,
)
# What a server says of requests when its log was made more talkative than it is by default.
TALK = re.compile(
    r"[\"'](?:messages|prompt|content|input|text|suffix|reasoning_content)[\"']\s*:"
    r"|\b(?:request|response|prompt|generated text|next token|grammar|parsed message):",
    re.IGNORECASE,
)
# Of our own documents: questions and answers.
PRIVATE = ("answer", "prompts", "golden_prompts", "log_tail", "api_key_file")


def keys_of(secret: str) -> set[str]:
    """The words of a file that nobody may read, each of which may be a key."""
    return {word for word in SEPARATORS.split(secret) if len(word) >= SHORTEST_KEY}


def text(words: str, keys: Iterable[str]) -> str:
    """A text without the keys that are known, and without what looks like one."""
    for key in sorted(keys, key=len, reverse=True):
        words = words.replace(key, GONE)
    for pattern in SECRETS:
        words = pattern.sub(GONE, words)
    return NAMED.sub(lambda match: match["name"] + GONE, words)


def log(words: str, keys: Iterable[str]) -> str:
    """A log, redacted, without the lines in which users may speak or be answered."""
    lines = (f"{GONE} a line about a request" if TALK.search(line) else line for line in words.splitlines())
    return text("\n".join(lines) + "\n", keys)


def document(value: Any) -> Any:
    """A document of ours without questions and answers."""
    if isinstance(value, dict):
        return {name: GONE if name in PRIVATE and inner else document(inner) for name, inner in value.items()}
    return [document(inner) for inner in value] if isinstance(value, list) else value
