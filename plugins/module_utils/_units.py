# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The transient units that work on a model: what they are called, whether they run, and how those of a swarm are ended.

``key`` is a model's on its host (``_model_store.key_of``), ``mode`` of a swarm's unit is fill or seed.
"""

from __future__ import annotations

import os
import shutil

from ansible_collections.onprem.llamacpp.plugins.module_utils._host import Run

SWARM_RUNTIME = "/run/llamacpp-swarm"
ACTIVE = ("active", "activating", "deactivating", "reloading")


def fetch_unit(key: str) -> str:
    return f"llamacpp-fetch-{key}.service"


def swarm_unit(mode: str, key: str) -> str:
    return f"llamacpp-swarm-{mode}-{key}.service"


def is_active(run: Run, unit: str) -> bool:
    _code, out, _err = run(["systemctl", "show", "-p", "ActiveState", "--value", unit])
    return out.strip() in ACTIVE


def swarm_runtime(mode: str, key: str) -> str:
    """Where the program and the job of a swarm's unit lie."""
    return os.path.join(SWARM_RUNTIME, f"{key}-{mode}")


def forget_swarm(run: Run, mode: str, key: str) -> None:
    """Remove what an ended unit has left; one that failed would leave the whole system "degraded"."""
    run(["systemctl", "reset-failed", swarm_unit(mode, key)])
    shutil.rmtree(swarm_runtime(mode, key), ignore_errors=True)


def stop_swarm(run: Run, key: str) -> None:
    """Take a model out of the exchange: neither filled nor given any longer."""
    for mode in ("fill", "seed"):
        if is_active(run, swarm_unit(mode, key)):
            run(["systemctl", "stop", swarm_unit(mode, key)])
        forget_swarm(run, mode, key)
