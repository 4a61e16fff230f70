# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small load on a running server, as its clients see it. Times are seconds; the key goes nowhere but into a header."""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import statistics
import time
from typing import Any, NamedTuple, Optional

PATH = "/v1/chat/completions"
PROMPT = "Explain step by step how a steam engine turns heat into motion, and name its parts."


class LoadError(Exception):
    """Why a server could not be measured, in words for the user."""


class Answer(NamedTuple):
    """One streamed answer: tokens a second as the server counts them, its tokens, when the first came, and when it was done."""

    speed: Optional[float]
    prompt_speed: Optional[float]
    tokens: int
    first: float
    seconds: float


class Server(NamedTuple):
    """Where to ask; ``key`` is empty for none, ``timeout`` is for each silence."""

    address: str
    port: int
    key: str
    timeout: float


def ask(server: Server, tokens: int, salt: str) -> Answer:
    """One answer of just so many tokens, streamed.

    :param salt: begins the prompt, so that no answer profits from another one's cache
    :raises LoadError: the server refused, broke off or fell silent.
    """
    body = {
        "messages": [{"role": "user", "content": f"({salt}) {PROMPT}"}],
        "max_tokens": tokens,
        "temperature": 0,
        "seed": 42,
        "cache_prompt": False,
        "ignore_eos": True,
        "stream": True,
        "timings_per_token": False,
    }
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {server.key}"} if server.key else {})}
    connection = http.client.HTTPConnection(server.address, server.port, timeout=server.timeout)
    started = time.monotonic()
    try:
        connection.request("POST", PATH, json.dumps(body), headers)
        response = connection.getresponse()
        if response.status != 200:
            raise LoadError(f"{PATH} answered with {response.status}")
        return _read(response, started)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise LoadError(f"{PATH}: {type(error).__name__}: {error}") from None
    finally:
        connection.close()


def _read(response: http.client.HTTPResponse, started: float) -> Answer:
    """The answer from its server-sent events."""
    first: float = 0.0
    timings: dict[str, Any] = {}
    for line in response:
        if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
            continue
        event = json.loads(line[len(b"data: ") :])
        if "error" in event:
            raise LoadError(f"{PATH} broke off: {event['error']}")
        delta = (event.get("choices") or [{}])[0].get("delta") or {}
        first = first or (time.monotonic() - started if delta.get("content") or delta.get("reasoning_content") else 0.0)
        timings = event.get("timings") or timings
    seconds = time.monotonic() - started
    if not timings:
        raise LoadError(f"{PATH} ended without figures")
    return Answer(
        _rounded(timings.get("predicted_per_second")),
        _rounded(timings.get("prompt_per_second")),
        int(timings["predicted_n"]),
        first or seconds,
        seconds,
    )


def _rounded(value: Any) -> Optional[float]:
    return round(float(value), 2) if isinstance(value, (int, float)) else None


def one_user(server: Server, tokens: int, repetitions: int) -> dict[str, Any]:
    """Tokens a second for one user at a time, the middle of some answers after one that does not count.

    :raises LoadError: the server did not answer each time.
    """
    ask(server, 8, "warm-up")
    answers = [ask(server, tokens, f"alone {number}") for number in range(repetitions)]
    speeds = [answer.speed for answer in answers if answer.speed is not None]
    if not speeds:
        raise LoadError(f"{PATH} tells no speed")
    prompts = [answer.prompt_speed for answer in answers if answer.prompt_speed is not None]
    return {
        "tokens_per_second": round(statistics.median(speeds), 2),
        "prompt_tokens_per_second": round(statistics.median(prompts), 2) if prompts else None,
    }


def many_users(server: Server, tokens: int, clients: int, requests: int) -> dict[str, Any]:
    """What some clients get that ask at the same time, each again as soon as it is answered; requests that fail are counted."""

    def attempt(number: int) -> Optional[Answer]:
        try:
            return ask(server, tokens, f"together {number}")
        except LoadError:
            return None

    started = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        attempts = list(pool.map(attempt, range(requests)))
    seconds = time.monotonic() - started
    answers = [answer for answer in attempts if answer]
    firsts = [answer.first for answer in answers] or [0.0]
    return {
        "clients": clients,
        "requests": requests,
        "failed": requests - len(answers),
        "tokens_per_second": round(sum(answer.tokens for answer in answers) / seconds, 2),
        "first_token_seconds": {"median": round(statistics.median(firsts), 2), "worst": round(max(firsts), 2)},
    }
