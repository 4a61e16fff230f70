# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The questions of the gate and what counts as an answer. Nothing here asks; it reads what was said."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple, Optional

from .files import Document

SEED = 42
SHOWN = 40
# What a template's own marks look like when the engine did not take them out of the text.
CALL_MARKS = re.compile(r"<\|?/?tool[_▁]calls?|\[TOOL_CALLS\]|<function=|<\|python_tag\|>")
REASONING_MARKS = re.compile(r"</?think(?:ing)?>|[◁<]/?think[▷>]|<\|channel\|>")
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city at this moment.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
TOOL_PROMPT = "What is the weather in Paris? Ask the tool."
TOOL_TOKENS = 256
SLACK = 3  # no disk is otherwise idle, and no plan exact


class Answer(NamedTuple):
    """A chat completion. ``calls`` are its tool calls, ``speed`` and ``prompt_speed`` tokens a second as the server counts them."""

    content: str
    reasoning: str
    calls: list[Document]
    finish: str
    tokens: int
    speed: Optional[float]
    prompt_speed: Optional[float]

    @property
    def text(self) -> str:
        """All that was said, reasoning first."""
        return (self.reasoning + self.content).strip()


def read_answer(document: Document) -> Answer:
    """A chat completion as the API gives it; an empty answer for anything that is not one."""
    try:
        choice = document["choices"][0]
        message = choice["message"]
        calls = [call for call in message.get("tool_calls") or [] if isinstance(call, dict)]
        content, reasoning = (str(message.get(key) or "") for key in ("content", "reasoning_content"))
        finish = str(choice.get("finish_reason") or "")
    except (KeyError, IndexError, TypeError, AttributeError):
        return Answer("", "", [], "", 0, None, None)
    told = document.get("timings")
    timings = told if isinstance(told, dict) else {}
    tokens = timings.get("predicted_n")
    return Answer(
        content,
        reasoning,
        calls,
        finish,
        tokens if isinstance(tokens, int) else 0,
        rounded(timings.get("predicted_per_second")),
        rounded(timings.get("prompt_per_second")),
    )


def rounded(value: Any) -> Optional[float]:
    return round(float(value), 2) if isinstance(value, (int, float)) else None


def prompt_body(prompt: Document) -> Document:
    """A request that gets the same answer each time."""
    return {
        "messages": [{"role": "user", "content": prompt["prompt"]}],
        "max_tokens": int(prompt["max_tokens"]),
        "temperature": 0,
        "seed": SEED,
        "cache_prompt": False,
    }


def tool_body() -> Document:
    return {**prompt_body({"prompt": TOOL_PROMPT, "max_tokens": TOOL_TOKENS}), "tools": [TOOL], "tool_choice": "auto"}


def answer_seconds(least: float, read: float, tokens: int, each: float) -> float:
    """How long an answer may take: it is for a server that hangs, so a slow one has all the time that it can need.

    :param least: seconds that any answer has
    :param read: seconds in which the disk gives the model once
    :param each: seconds that a token is known to take; 0 when that is not known
    """
    return max(least, SLACK * (read + tokens * each))


def prompt_problem(prompt: Document, answer: Answer) -> str:
    """Why this is no answer to the prompt; empty when it is one."""
    text = answer.text
    if not text:
        return "the completion was empty"
    if gibberish(text):
        return f"the completion is gibberish: {text[:SHOWN]!r}"
    expected, pattern = str(prompt.get("expect") or ""), str(prompt.get("pattern") or "")
    if expected and expected.casefold() not in text.casefold():
        return f"the answer to {prompt['prompt'][:SHOWN]!r} lacks {expected!r}: {text[:SHOWN]!r}"
    if pattern and not re.search(pattern, text):
        return f"the answer to {prompt['prompt'][:SHOWN]!r} does not match {pattern!r}: {text[:SHOWN]!r}"
    marks = REASONING_MARKS.search(answer.content)
    if marks:
        return f"the engine does not understand the model's reasoning: {marks.group()!r} stands in the answer"
    return ""


def tool_problem(answer: Answer) -> str:
    """What is wrong with the way the engine handled a tool; empty when it was called rightly, or not called."""
    for call in answer.calls:
        function = call["function"] if isinstance(call.get("function"), dict) else {}
        if function.get("name") != TOOL["function"]["name"]:  # type: ignore[index]
            return f"the engine names a tool that was not offered: {str(function.get('name'))[:SHOWN]!r}"
        try:
            right = isinstance(json.loads(str(function.get("arguments"))), dict)
        except ValueError:
            right = answer.finish == "length"  # it was cut short, which says nothing
        if not right:
            return f"the arguments of a tool call are no JSON object: {str(function.get('arguments'))[:SHOWN]!r}"
    marks = CALL_MARKS.search(answer.content)
    if marks:
        return f"the engine does not understand the model's tool calls: {marks.group()!r} stands in the answer"
    return ""


def gibberish(text: str) -> bool:
    """The kind of nonsense that a broken kernel or a damaged file makes: one character over and over, or no letter at all."""
    return (len(text) >= 8 and len(set(text)) == 1) or not any(character.isalnum() for character in text)


def speed_problem(speed: Document, benchmark: Optional[float], measured: Optional[float]) -> tuple[str, str]:
    """Why the server is too slow to stay, and what is only worth a word; both empty when neither.

    All in tokens a second. ``speed`` has the user's own ``minimum`` (0 for none), the ``benchmark_share`` of this very deployment's
    benchmark that must be reached (0 for none), and what the plan ``expected`` at least (None for nothing).
    """
    if measured is None:
        return "", ""
    minimum, basis = speed["minimum"], "llama_server_gate_min_tokens_per_second"
    if not minimum and benchmark and speed["benchmark_share"]:
        minimum = round(speed["benchmark_share"] * benchmark, 2)
        basis = f"{speed['benchmark_share']:.0%} of the {benchmark:g} that a benchmark of this deployment has shown"
    if minimum:
        return (f"{measured:g} tokens/s are fewer than {minimum:g}: {basis}", "") if measured < minimum else ("", "")
    if speed["expected"] and measured < speed["expected"]:
        return "", f"{measured:g} tokens/s, the plan expected at least {speed['expected']:g}"
    return "", ""
