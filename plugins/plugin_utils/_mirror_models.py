# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which models a mirror is to hold, what of it is missing, and what may go. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.onprem.llamacpp.plugins.module_utils._quant import COMMIT, QUANT_NAME, QuantError, find_quant
from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _catalog


class MirrorError(ValueError):
    """A wish that a mirror cannot meet, in one sentence for the user."""


def wishes(models: Iterable[Mapping[str, Any]], catalog: Mapping[str, Any], served: Iterable[str]) -> list[dict[str, Any]]:
    """``llama_mirror_models`` as {repo_id, revision, quants}, without repositories that are served from directories.

    Raises:
        MirrorError: an entry names no model or no quant, or something that cannot be one.
    """
    found = []
    for item in models:
        named = item.get("repo_id") or item.get("model")
        if not named:
            raise MirrorError(f"An entry of llama_mirror_models names no model: {dict(item)!r}. Give it model or repo_id.")
        try:
            repo_id = _catalog.find_entry(str(named), catalog)["repo_id"]
        except _catalog.PlanError as error:
            raise MirrorError(f"llama_mirror_models: {error}.") from None
        quants = list(item.get("quants") or [])
        if not quants:
            raise MirrorError(f"llama_mirror_models names no quants of {named}. List them by their whole names.")
        for quant in quants:
            if not QUANT_NAME.match(str(quant)) or quant == "auto":
                raise MirrorError(f"llama_mirror_models has the quant {quant!r} of {named}. A mirror needs the whole name of each.")
        commit = str(item.get("commit") or "")
        if commit and not COMMIT.match(commit):
            raise MirrorError(f"llama_mirror_models has the commit {commit!r} of {named}. It is written with 40 hexadecimal digits.")
        if repo_id not in served:
            found.append({"repo_id": repo_id, "revision": commit or str(item.get("revision") or "main"), "quants": quants})
    return found


def missing(wished: Iterable[Mapping[str, Any]], index: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The wishes, each with those quants only that the index does not offer under its revision."""
    held: dict[tuple[str, str], set[str]] = {}
    for item in index:
        for name in [*item["revisions"], item["commit"]]:
            held[item["repo_id"], name] = {quant.lower() for quant in item["quants"]}
    found = []
    for wish in wished:
        there = held.get((wish["repo_id"], wish["revision"]), set())
        quants = [quant for quant in wish["quants"] if quant.lower() not in there]
        if quants:
            found.append({**wish, "quants": quants})
    return found


def downloads(answers: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What must be fetched: {repo_id, revision, commit, quant, files, header} for each quant.

    Args:
        answers: what gguf_repo_info returned, each with its wish as ``__llama_mirror_ask``.

    Raises:
        MirrorError: says of every repository and quant that cannot be had why.
    """
    found, problems = [], []
    for answer in answers:
        wish = answer["__llama_mirror_ask"]
        if "quants" not in answer:
            problems.append(str(answer.get("msg") or f"{wish['repo_id']} gave no answer."))
            continue
        for wanted in wish["quants"]:
            try:
                name, quant = find_quant(answer["quants"], wanted, wish["repo_id"])
            except QuantError as error:
                problems.append(str(error))
                continue
            fetched = {"files": quant["files"], "header": quant.get("header")}
            found.append({"repo_id": wish["repo_id"], "revision": wish["revision"], "commit": answer["commit"], "quant": name, **fetched})
    if problems:
        raise MirrorError(" ".join(problems))
    return found


def revisions(fetched: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Which commit each branch or tag stands for, as hub_index wants to be told, from what downloads() returned."""
    found = {(item["repo_id"], item["revision"]): item["commit"] for item in fetched}
    return [{"repo_id": repo_id, "name": name, "commit": commit} for (repo_id, name), commit in found.items()]


def kept(
    index: Iterable[Mapping[str, Any]], wished: Iterable[Mapping[str, Any]], keep: Iterable[Mapping[str, Any]], commits: int
) -> list[dict[str, str]]:
    """What pruning must spare, as {repo_id, commit, quant}: what is wished, what was named, and the newest commits.

    Args:
        index: what the mirror serves, as hub_index returns it.
        keep: {repo_id, commit, quant}; commit or quant that is left out stands for all.
        commits: how many of the newest commits of each repository stay; 0 for none beyond those that are named.
    """
    wanted = {(wish["repo_id"], wish["revision"], quant.lower()) for wish in wished for quant in wish["quants"]}
    rank: dict[str, int] = {}
    spared = []
    for item in sorted(index, key=lambda item: str(item["published_at"]), reverse=True):
        rank[item["repo_id"]] = rank.get(item["repo_id"], 0) + 1
        for quant in item["quants"]:
            names = [*item["revisions"], item["commit"]]
            if (
                rank[item["repo_id"]] <= commits
                or any((item["repo_id"], name, quant.lower()) in wanted for name in names)
                or any(_named(entry, item, quant) for entry in keep)
            ):
                spared.append({"repo_id": item["repo_id"], "commit": item["commit"], "quant": quant})
    return spared


def _named(entry: Mapping[str, Any], item: Mapping[str, Any], quant: str) -> bool:
    said = {"repo_id": item["repo_id"], "commit": item["commit"], "quant": quant}
    return bool(entry.get("repo_id")) and all(str(said[key]).lower() == str(value).lower() for key, value in entry.items() if value)
