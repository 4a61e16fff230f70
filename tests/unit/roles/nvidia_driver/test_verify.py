# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proof of a driver: what is started before it, and how long an NVSwitch system is waited for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

# Notes what is started; says of a unit what the module asks.
SYSTEMCTL = """
[ "$1" = start ] && echo "$2" >> {folder}/asked && exit {status}
echo "LoadState=loaded"
echo "ActiveState=inactive"
"""
# Stands for Python, which runs the program: 802 as often as is said, then what is said.
PYTHON = """
echo again >> {folder}/probed
[ "$(wc -l < {folder}/probed)" -gt {waiting} ] || {{ echo "cuInit failed: CUDA_ERROR_SYSTEM_NOT_READY (802)"; exit 1; }}
echo "8 devices compute"
"""


@pytest.fixture
def prove(tmp_path: Path, run_tasks: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the proof on a host whose driver answers."""

    def run(waiting: int = 0, status: int = 0, container: str = "", **more: Any) -> Any:
        (tmp_path / "driver.json").write_text('{"restored": false}')
        driver = {"container": container, "loaded": [], "version": "", "record": {"version": "580.95.05"}, "kernels": []}
        extra = {
            "_nvidia_driver_hardware": {"os": {"kernel": "6.1"}, "devices": [], "driver": driver},
            "__nvidia_driver_plan": {"kernels": ["6.1"], "action": "verify", "fabric_manager": True, "manager": "apt", "notes": []},
            "__nvidia_driver_info": {"diagnosis": {"working": True, "version": "580.95.05", "sentence": "It answers.", "cause": ""}},
            "__nvidia_driver_settings": {},
            "__nvidia_driver_restart": "",
            "ansible_facts": {"discovered_interpreter_python": str(tmp_path / "bin/probe")},
            "_nvidia_driver_record": str(tmp_path / "driver.json"),
            "_nvidia_driver_fabric_retries": 2,
            "_nvidia_driver_fabric_delay": 0,
            **more,
        }
        programs = {
            "nvidia-smi": f'echo "$@" >> {tmp_path}/smi\n',
            "systemctl": SYSTEMCTL.format(folder=tmp_path, status=status),
            "probe": PYTHON.format(folder=tmp_path, waiting=waiting),
        }
        return run_tasks("verify", {"one": {}}, extra, programs)

    return run


def test_services_are_started_before_the_proof(tmp_path: Path, prove: Any) -> None:
    done = prove()
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "asked").read_text().split() == ["nvidia-persistenced.service", "nvidia-fabricmanager.service"]
    assert len((tmp_path / "probed").read_text().split()) == 1
    assert "-pm 1" in (tmp_path / "smi").read_text().splitlines()
    assert (tmp_path / "driver.json").read_text() == '{"restored": true}'


def test_no_service_is_started_in_a_container(tmp_path: Path, prove: Any) -> None:
    assert prove(container="lxc").returncode == 0
    assert not (tmp_path / "asked").exists()


def test_an_nvswitch_system_is_waited_for(tmp_path: Path, prove: Any) -> None:
    done = prove(waiting=2)
    assert done.returncode == 0, done.stdout
    assert len((tmp_path / "probed").read_text().split()) == 3


def test_it_is_not_waited_for_ever_and_the_service_is_told(tmp_path: Path, prove: Any) -> None:
    done = prove(waiting=9, status=1)
    told = " ".join(done.stdout.split())
    assert done.returncode == 2 and "a device does not compute: cuInit failed: CUDA_ERROR_SYSTEM_NOT_READY (802)" in told, done.stdout
    assert "Unable to start service nvidia-fabricmanager.service" in told, done.stdout
    assert len((tmp_path / "probed").read_text().split()) == 3


def test_a_device_that_does_not_compute_is_only_told_of_where_that_was_asked_for(prove: Any) -> None:
    done = prove(waiting=9, nvidia_driver_verify="report")
    told = " ".join(done.stdout.split())
    assert done.returncode == 0, done.stdout
    assert "It answers. But a device does not compute: cuInit failed: CUDA_ERROR_SYSTEM_NOT_READY (802)" in told, done.stdout


@pytest.mark.parametrize(("restart", "back"), [pytest.param("nouveau is loaded", True, id="restarted"), pytest.param("", False, id="not")])
def test_a_host_that_was_drained_is_taken_back(tmp_path: Path, prove: Any, restart: str, back: bool) -> None:
    undrain = tmp_path / "undrain.yml"
    undrain.write_text(f"- ansible.builtin.copy: {{content: back, dest: {tmp_path}/back}}\n")
    done = prove(__nvidia_driver_restart=restart, nvidia_driver_undrain=str(undrain))
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "back").exists() == back
