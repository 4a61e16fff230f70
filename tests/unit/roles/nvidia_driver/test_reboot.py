# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts that have to restart beside one that has not."""

from __future__ import annotations

from typing import Any

import pytest


def hardware(*loaded: str) -> dict[str, Any]:
    driver = {"loaded": list(loaded), "version": "", "container": "", "kernels": [{"release": "6.1"}], "record": {"version": "580.95.05"}}
    return {"os": {"kernel": "6.1"}, "devices": [], "driver": driver}


@pytest.mark.parametrize(
    ("wish", "told"),
    [
        pytest.param("prompt", "it was not agreed to by typing yes", id="nobody answers"),
        pytest.param("never", "nvidia_driver_reboot is never", id="never"),
    ],
)
def test_no_host_restarts_unasked(run_tasks: Any, wish: str, told: str) -> None:
    """The first host has nothing to ask for; without a terminal nobody answers for the others."""
    hosts = {name: {"_facts": hardware(*loaded)} for name, loaded in (("one", ()), ("two", ("nouveau",)), ("three", ("nouveau",)))}
    extra = {
        "_nvidia_driver_hardware": "{{ _facts }}",
        "__nvidia_driver_plan": {"kernels": ["6.1"], "action": "verify"},
        "nvidia_driver_reboot": wish,
    }
    done = run_tasks("reboot", hosts, extra, {"modprobe": "exit 0\n"})
    assert done.returncode == 2, done.stdout
    outcome = {line.split()[0]: "failed=1" in line for line in done.stdout.splitlines() if "unreachable=" in line}
    assert outcome == {"one": False, "two": True, "three": True}, done.stdout
    assert "takes effect with a restart (nouveau is loaded)" in done.stdout and told in done.stdout
    # Asked once for both.
    assert done.stdout.count("Not waiting for response to prompt") == (wish == "prompt"), done.stdout
