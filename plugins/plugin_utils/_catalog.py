# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds a model in the catalogue, and tells what is wrong with an entry before a plan is built on it. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from ansible_collections.onprem.llamacpp.plugins.module_utils._quant import REPO_ID


class PlanError(ValueError):
    """A wish that cannot be planned at all, in one sentence for the user."""


def find_entry(model: str, catalog: Mapping[str, Any]) -> dict[str, Any]:
    """The catalogue entry of a model; C(org/repo) works without one.

    Raises:
        PlanError: the name is neither a key of the catalogue nor C(org/repo), or its entry is broken.
    """
    if model in catalog:
        check_entry(model, catalog[model])
        return {"alias": model, **catalog[model]}
    if REPO_ID.match(model):
        for key, entry in catalog.items():
            if isinstance(entry, Mapping) and entry.get("repo_id") == model:
                check_entry(key, entry)
                return {"alias": key, **entry}
        return {"alias": model.split("/")[1], "repo_id": model}
    near = difflib.get_close_matches(model, list(catalog), n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise PlanError(f"model {model!r} is not known: {hint}the catalogue has {', '.join(sorted(catalog))}; any repository works as org/repo")


def check_entry(key: str, entry: Any) -> None:
    """Raises PlanError for an entry that a plan could not be built on, with the field and what it should be."""

    def broken(what: str) -> PlanError:
        return PlanError(f"the catalogue entry {key!r} {what}; correct it in llama_plan_catalog (vars/catalog/kimi.yml shows the form)")

    if not isinstance(entry, Mapping):
        raise broken("is not a mapping")
    repo_id = entry.get("repo_id")
    if not repo_id:
        raise broken("has no repo_id")
    if not isinstance(repo_id, str) or not REPO_ID.match(repo_id):
        raise broken(f"has the repo_id {repo_id!r}, which is not org/repo")
    for field in ("layers", "experts", "experts_used", "context", "context_default", "disk_buffer"):
        if field in entry and not _count(entry[field]):
            raise broken(f"has {field} {entry[field]!r}, which is not a whole number above zero")
    share = entry.get("expert_share", 0.5)
    if not isinstance(share, float) or not 0 < share < 1:
        raise broken(f"has expert_share {share!r}, which is not a number between 0 and 1")
    rates = entry.get("context_bytes_per_token", {})
    if not isinstance(rates, Mapping) or not all(_count(rate) for rate in rates.values()):
        raise broken(f"has context_bytes_per_token {rates!r}, which is not whole bytes by cache type")
    cases = entry.get("use_cases", {})
    if not isinstance(cases, Mapping) or not all(isinstance(names, (list, tuple)) for names in cases.values()):
        raise broken("has use_cases that are not lists of quants by name")
    golden = entry.get("golden_prompts", [])
    if not isinstance(golden, (list, tuple)) or not all(isinstance(item, Mapping) and item.get("prompt") for item in golden):
        raise broken("has golden_prompts that are not a list of mappings with a prompt")
    if entry.get("experts_used") and not entry.get("experts"):
        raise broken("has experts_used without experts")
    quants = entry.get("quants", {})
    if not isinstance(quants, Mapping):
        raise broken("has quants that are not a mapping of names")
    for name, quant in quants.items():
        if not isinstance(quant, Mapping) or "bytes" not in quant:
            raise broken(f"has the quant {name} without its bytes")
        for field in ("bytes", "ram_streaming", "vram_offload"):
            if field in quant and not _count(quant[field]):
                raise broken(f"has {name}.{field} {quant[field]!r}, which is not a whole number of bytes")


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
