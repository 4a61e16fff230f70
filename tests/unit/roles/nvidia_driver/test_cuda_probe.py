# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program that computes on every device, with a library that stands for the driver's."""

from __future__ import annotations

import ctypes
import importlib.util
from pathlib import Path
from typing import Any

import pytest

PATH = Path(__file__).resolve().parents[4] / "roles/nvidia_driver/files/cuda_probe.py"
spec = importlib.util.spec_from_file_location("cuda_probe", PATH)
assert spec and spec.loader
cuda_probe = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cuda_probe)


class Driver:
    """Answers as libcuda does; a call named in failing returns 100."""

    def __init__(self, devices: int = 2, failing: str = "", wrong: int = 0) -> None:
        self.devices, self.failing, self.wrong = devices, failing, wrong
        self.called: list[str] = []

    def __getattr__(self, name: str) -> Any:
        def answer(*arguments: Any) -> int:
            self.called.append(name)
            if name == "cuDeviceGetCount":
                arguments[0]._obj.value = self.devices
            if name == "cuGetErrorName":
                arguments[1]._obj.value = b"CUDA_ERROR_NO_DEVICE"
            if name == "cuMemcpyDtoH_v2":
                for index in range(len(arguments[0])):
                    arguments[0][index] = 2 * index + (0 if index < self.wrong else 1)
            return 100 if name == self.failing else 0

        return answer


def test_every_device_computes() -> None:
    driver = Driver()
    assert cuda_probe.probe(driver) == 2
    assert driver.called.count("cuLaunchKernel") == driver.called.count("cuDevicePrimaryCtxRelease_v2") == 2


@pytest.mark.parametrize(
    ("driver", "reason"),
    [
        pytest.param(Driver(devices=0), "CUDA finds no device", id="no device"),
        pytest.param(Driver(failing="cuInit"), r"cuInit failed: CUDA_ERROR_NO_DEVICE \(100\)", id="no driver"),
        pytest.param(Driver(failing="cuModuleLoadData"), "device 0: cuModuleLoadData failed", id="program refused"),
        pytest.param(Driver(wrong=3), "device 0: 3 of 1024 numbers are wrong", id="wrong numbers"),
    ],
)
def test_failure(driver: Driver, reason: str) -> None:
    with pytest.raises(cuda_probe.ProbeError, match=reason):
        cuda_probe.probe(driver)


def test_without_a_library(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert cuda_probe.main() == 1
    assert "CUDA does not work: libcuda.so.1: cannot open" in capsys.readouterr().out
