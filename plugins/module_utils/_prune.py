# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which models may leave a host, in which order, and what that frees. Pure; sizes are bytes.

Models are those of ``_installed.models``: identity, C(path), C(bytes), C(used_by), and either C(held), the names and sizes of
their files, or C(frees), what the removal of this one alone frees. One of which it is not known who uses it is in use.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Optional

IDENTITY = ("repo_id", "commit", "quant")
# The order in which models go: what nothing uses, then what an instance served before, then what it serves.
UNUSED, PREVIOUS, CURRENT = range(3)
REASONS = {
    UNUSED: "no deployment uses it",
    PREVIOUS: "only the deployment before the current one uses it",
    CURRENT: "the current deployment uses it",
}

Model = Mapping[str, Any]


class Choice(NamedTuple):
    """What goes, in order, and what stays, each with C(why); what is still missing then, and what is free."""

    remove: list[dict[str, Any]]
    keep: list[dict[str, Any]]
    missing: int
    free: int


def identity(model: Model) -> dict[str, Any]:
    """What a model is, where it is and how large."""
    return {key: model[key] for key in (*IDENTITY, "path", "bytes")}


def is_named(model: Model, names: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a list of wishes names a model; a wish without commit or quant stands for all of them."""
    return any(all(not name.get(key) or name[key] == model[key] for key in IDENTITY) for name in names)


def choose(
    models: Sequence[Model],
    free: int,
    target: Optional[int] = None,
    keep: Sequence[Mapping[str, Any]] = (),
    busy: Optional[Mapping[str, str]] = None,
    unused: bool = True,
    release: str = "",
) -> Choice:
    """The models to remove so that a target is reached, and no more; without a target all that nothing uses.

    Args:
        models: those of the store.
        free: what the filesystem has free.
        target: what it shall have free.
        keep: models that stay whatever uses them, by C(repo_id), C(commit) and C(quant).
        busy: why a model cannot go now, by its path.
        unused: whether models go that no deployment uses.
        release: the instance whose own models may go too, when that reaches the target.
    """
    candidates, stay = [], []
    for model in models:
        rank, why = _standing(model, keep, busy or {}, unused, release if target is not None else "")
        if rank is None:
            stay.append({**identity(model), "why": why})
        else:
            candidates.append((rank, str(model.get("manifest", {}).get("published_at", "")), model["path"], model))
    candidates.sort(key=lambda candidate: candidate[:3])
    remove: list[dict[str, Any]] = []
    gone: Counter[Any] = Counter()
    enough = target is None or free + _all_of(candidates) >= target
    for rank, _published, _path, model in candidates:
        if target is not None and free >= target:
            stay.append({**identity(model), "why": "there is room enough"})
        elif rank != UNUSED and not enough:
            stay.append({**identity(model), "why": f"{REASONS[rank]}, and without it there is too little room too"})
        else:
            free += _frees(model, gone)
            gone.update(entry[0] for entry in model.get("held", []))
            remove.append({**identity(model), "why": REASONS[rank]})
    return Choice(remove, stay, max(0, (target or 0) - free), free)


def _standing(
    model: Model, keep: Sequence[Mapping[str, Any]], busy: Mapping[str, str], unused: bool, release: str
) -> tuple[Optional[int], str]:
    """When a model may go, or None and why it stays."""
    if is_named(model, keep):
        return None, "it is to be kept"
    users = model.get("used_by")
    if users is None:
        return None, "it is not known who uses it"
    others = [user for user in users if user["instance"] != release]
    if others:
        return None, "; ".join(f"{user['instance']} {'serves it' if user['link'] == 'current' else 'can go back to it'}" for user in others)
    if model["path"] in busy:
        return None, busy[model["path"]]
    if not users:
        return (UNUSED, "") if unused else (None, "models that nothing uses stay")
    return (CURRENT if any(user["link"] == "current" for user in users) else PREVIOUS), ""


def _frees(model: Model, gone: Counter[Any]) -> int:
    """What goes with a model: a file that other models share goes with the last of them."""
    if "held" not in model:
        return int(model.get("frees", model["bytes"]))
    return sum(size for inode, links, size in model["held"] if links - gone[inode] <= 1)


def _all_of(candidates: list[Any]) -> int:
    gone: Counter[Any] = Counter()
    total = 0
    for *_order, model in candidates:
        total += _frees(model, gone)
        gone.update(entry[0] for entry in model.get("held", []))
    return total


def abandoned(partial: Sequence[Mapping[str, Any]], before: str, keep: Sequence[Mapping[str, Any]] = ()) -> list[Mapping[str, Any]]:
    """Transfers that have left nothing since a moment (UTC, as in C(modified_at)) and that nobody wants kept."""
    return [entry for entry in partial if entry.get("modified_at", before) < before and not is_named(entry, keep)]


def after_switch(models: Sequence[Model], instance: str) -> list[dict[str, Any]]:
    """The models as they will be used once an instance has switched: what it serves becomes what it can go back to."""

    def users(model: Model) -> list[dict[str, Any]]:
        others = [user for user in model["used_by"] if user["instance"] != instance]
        own = any(user["instance"] == instance and user["link"] == "current" for user in model["used_by"])
        return [*others, *([{"instance": instance, "link": "previous"}] if own else [])]

    return [{**model, "used_by": users(model)} if model.get("used_by") else dict(model) for model in models]
