# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which smaller quants may be tried when the gate refused the planned one. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def smaller_quants(plan: Mapping[str, Any], models: Sequence[Mapping[str, Any]], download: bool, limit: int) -> list[str]:
    """Quants of the plan's model that are smaller than the planned one and would fit, the largest first, ``limit`` at most.

    :param plan: ``llama_plan_result`` of the deployment that failed
    :param models: the host's, as in its facts; what is complete on the host needs no download
    :param download: whether others may be fetched
    """
    known = ("repo_id", "commit")
    present = {model["quant"] for model in models if model.get("complete") and all(model.get(key) == plan[key] for key in known)}
    size = next((other["bytes"] for other in plan["alternatives"] if other["quant"] == plan["quant"]), 0)
    fitting = [
        other
        for other in plan["alternatives"]
        if other["verdict"] == "accept" and other["bytes"] < size and (download or other["quant"] in present)
    ]
    return [other["quant"] for other in sorted(fitting, key=lambda other: -other["bytes"])][:limit]
