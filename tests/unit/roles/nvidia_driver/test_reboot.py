# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts that have to restart beside one that has not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[4]


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
        "_nvidia_driver_unattended": "",
    }
    done = run_tasks("reboot", hosts, extra, {"modprobe": "exit 0\n"})
    assert done.returncode == 2, done.stdout
    outcome = {line.split()[0]: "failed=1" in line for line in done.stdout.splitlines() if "unreachable=" in line}
    assert outcome == {"one": False, "two": True, "three": True}, done.stdout
    assert "takes effect with a restart (nouveau is loaded)" in done.stdout and told in done.stdout
    # Asked once for both.
    assert done.stdout.count("Not waiting for response to prompt") == (wish == "prompt"), done.stdout


ENROLLING = {"stdout": "/var/lib/dkms/mok.pub is already in the enrollment request", "stderr": "", "rc": 1}


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        pytest.param({}, "Ansible runs on that host itself (connection local)", id="local"),
        pytest.param(
            {"__nvidia_driver_enrolled": ENROLLING, "_nvidia_driver_mok": "/var/lib/dkms/mok.pub"},
            "the key /var/lib/dkms/mok.pub that signs its modules has to be enrolled then by a person",
            id="key to be enrolled",
        ),
    ],
)
def test_a_restart_that_cannot_be_carried_out_is_refused_before_the_drain(run_tasks: Any, variables: dict[str, Any], told: str) -> None:
    extra = {
        "_nvidia_driver_hardware": hardware("nouveau"),
        "__nvidia_driver_plan": {"kernels": ["6.1"], "action": "verify"},
        "nvidia_driver_drain": "drain.yml",
        **variables,
    }
    done = run_tasks("reboot", {"one": {}}, extra, {"modprobe": "exit 0\n"})
    assert done.returncode == 2 and told in " ".join(done.stdout.split()), done.stdout
    assert "Drain the host" not in done.stdout


def test_a_host_is_drained_before_it_restarts(tmp_path: Path, run_tasks: Any) -> None:
    """The restart itself is refused by Ansible, which runs on that very host."""
    drain = tmp_path / "drain.yml"
    drain.write_text(f"- ansible.builtin.copy: {{content: drained, dest: {tmp_path}/drained}}\n")
    extra = {
        "_nvidia_driver_hardware": hardware("nouveau"),
        "__nvidia_driver_plan": {"kernels": ["6.1"], "action": "verify"},
        "_nvidia_driver_unattended": "",
        "nvidia_driver_drain": str(drain),
    }
    done = run_tasks("reboot", {"one": {}}, extra, {"modprobe": "exit 0\n"})
    assert done.returncode == 2 and "would reboot the control node" in " ".join(done.stdout.split()), done.stdout
    assert (tmp_path / "drained").read_text() == "drained"


def test_an_upgrade_under_a_loaded_module_asks_before_anything_is_changed(run_tasks: Any) -> None:
    facts = hardware("nvidia")
    facts["driver"]["version"] = "570.1.2"
    extra = {"_nvidia_driver_hardware": facts, "__nvidia_driver_plan": {"action": "upgrade"}, "nvidia_driver_reboot": "prompt"}
    done = run_tasks("bring", {"one": {}}, extra, {})
    told = " ".join(done.stdout.split())
    assert done.returncode == 2 and "The NVIDIA driver 570.1.2 is not replaced" in told and "Nothing was changed" in told, done.stdout
    assert "Add the repository" not in done.stdout


# nvidia-smi, which notes what it is asked and lists no device.
SMI = 'echo "$@" >> {}/asked\n'


HALVES = {"GPU-2": ["3g.40gb", "3g.40gb"]}


@pytest.mark.parametrize(
    ("restored", "mig", "asked"),
    [
        pytest.param(False, HALVES, True, id="pending"),
        pytest.param(False, {}, False, id="nothing was lost"),
        pytest.param(True, HALVES, False, id="set by the run"),
    ],
)
def test_what_a_restart_of_the_users_has_taken_is_set_again(
    tmp_path: Path, run_tasks: Any, restored: bool, mig: dict[str, Any], asked: bool
) -> None:
    """The run that installed the driver was not allowed to restart the host; somebody has since. It is done once."""
    record = {"restored": restored, "settings": {"power": {}, "mig": mig}, "version": "580.95.05"}
    (tmp_path / "driver.json").write_text(json.dumps(record))
    facts = hardware("nvidia")
    facts["platform"] = "debian-12"
    facts["devices"] = [{"kind": "cuda", "name": "NVIDIA A100", "uuid": "GPU-2", "driver": True, "driver_version": "580.95.05"}]
    facts["driver"].update(record=record, version="580.95.05")
    extra = {"ansible_facts": {"llama_hardware": facts}, "_nvidia_driver_record": str(tmp_path / "driver.json")}
    done = run_tasks("main", {"one": {}}, extra, {"nvidia-smi": SMI.format(tmp_path)})
    assert done.returncode == 0, done.stdout
    lines = (tmp_path / "asked").read_text().splitlines() if (tmp_path / "asked").exists() else []
    assert [line for line in lines if "GPU-2" in line] == (["-i GPU-2 -mig 1", "mig -i GPU-2 -cgi 3g.40gb,3g.40gb -C"] if asked else [])
    assert json.loads((tmp_path / "driver.json").read_text())["restored"] is True


def test_modules_are_asked_for_after_a_restart_too() -> None:
    tasks = yaml.safe_load((ROOT / "roles/nvidia_driver/tasks/reboot.yml").read_text())
    (load,) = [task for task in tasks if "modprobe" in str(task.get("ansible.builtin.command"))]
    assert tasks.index(load) > max(index for index, task in enumerate(tasks) if "block" in task)
    assert "restart" not in str(load["when"])
