# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What speaks against building a CUDA engine for a host, told in its plan, before a driver or anything else is installed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _cuda_toolkit, _engine


def driver_versions(found: list[str], driver: Mapping[str, Any]) -> list[str]:
    """Versions of the driver that the engine will meet: those found, or the one that comes; none where that is not known yet."""
    if driver.get("action") not in ("install", "upgrade"):
        return found
    # Of a branch the least that it can be; a distribution's own packages tell their version when they are installed.
    coming = str(driver.get("version") or driver.get("branch") or "")
    return [coming] if coming else []


def problems(hardware: Mapping[str, Any], wish: Mapping[str, Any], request: Mapping[str, Any], driver: Mapping[str, Any]) -> list[str]:
    """Why no toolkit suits the CUDA engine of a host; nothing where it has its release or builds none.

    What only other hosts of the build ask of the toolkit is not seen here; the role llama_engine looks at them together.

    Args:
        hardware: the host's facts.
        wish: how the role llama_engine describes the engine.
        request: what the toolkit is chosen from, for the host alone.
        driver: the plan of the host's driver, empty where none is made.
    """
    if wish.get("source") == "package" or str(wish.get("backend") or "auto") not in ("auto", "cuda"):
        return []
    wish = {**wish, "backend": "cuda"}
    needs = _engine.describe(hardware, wish)["cuda"]["devices"]
    needs["driver_versions"] = driver_versions(needs["driver_versions"], driver)
    hosts = [{"host": host["host"], **needs} for host in request["hosts"][:1]]
    toolkit = _cuda_toolkit.describe({**request, "hosts": hosts})
    return [] if _engine.describe(hardware, {**wish, "toolkit": toolkit})["release"] else list(toolkit["problems"])
