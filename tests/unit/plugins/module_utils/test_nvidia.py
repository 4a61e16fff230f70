# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NVIDIA devices from captured and written answers of nvidia-smi, given by the program that stands for it on lab hosts."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.onprem.llamacpp.plugins.module_utils import _hardware, _nvidia
from ansible_collections.onprem.llamacpp.plugins.module_utils._host import Run, run_command

ROOT = Path(__file__).resolve().parents[4]
FIXTURES = ROOT / "tests/unit/fixtures/hardware"
PROGRAM = ROOT / "tests/lab/files/nvidia-smi"
MIB = 2**20
GB = 10**9
HOST_MEMORY = 128 * 2**30

_loader = importlib.machinery.SourceFileLoader("lab_nvidia_smi", str(PROGRAM))
_spec = importlib.util.spec_from_loader("lab_nvidia_smi", _loader)
assert _spec
lab = importlib.util.module_from_spec(_spec)
_loader.exec_module(lab)

T4 = {"name": "Tesla T4", "memory.total": 15360, "uuid": "GPU-6ee1", "pci.bus_id": "00000000:00:1E.0"}
A100 = {"name": "NVIDIA A100-SXM4-80GB", "memory.total": 81920, "compute_cap": "8.0"}


def system(name: str) -> dict[str, Any]:
    return yaml.safe_load((FIXTURES / f"{name}.yml").read_text())


def asks(document: dict[str, Any], calls: list[list[str]] | None = None) -> Run:
    """Runs what stands for nvidia-smi on a described system."""

    def run(argv: list[str]) -> tuple[int, str, str]:
        if calls is not None:
            calls.append(argv[1:])
        return *lab.answer(document, argv[1:]), ""

    return run


def read(document: dict[str, Any], **more: Any) -> tuple[list[dict[str, Any]], list[str]]:
    devices, warnings, answers = _nvidia.devices(asks(document), host_memory=HOST_MEMORY, **more)
    assert answers
    return devices, warnings


@pytest.mark.parametrize(
    ("name", "count", "expected"),
    [
        pytest.param(
            "t4",
            1,
            {
                "uuid": "GPU-d37e67a5-91dd-3774-a5cb-99096249601a",
                "engine_name": "CUDA0",
                "name": "Tesla T4",
                "total": 15360 * MIB,
                "pci_address": "0000:00:1e.0",
                "driver": True,
                "driver_version": "515.105.01",
                "compute_capability": "7.5",
                "bandwidth": 320 * GB,
                "unified": False,
                "virtual": False,
                "mig_parent": "",
                "ecc": True,
                "power_limit": 70.0,
                "pcie": {"generation": 3, "width": 8, "max_generation": 3, "max_width": 16},
                "processes": [],
            },
            id="t4",
        ),
        # What the driver does not know is in the table of cards.
        pytest.param(
            "v100-driver-470", 2, {"total": 32510 * MIB, "compute_capability": "7.0", "bandwidth": 900 * GB}, id="v100, driver 470"
        ),
        # Found by its name: the id was taken out.
        pytest.param("a10g", 1, {"total": 23028 * MIB, "bandwidth": 600 * GB, "power_limit": 300.0}, id="a10g"),
        pytest.param("l40s", 2, {"total": 46068 * MIB, "bandwidth": 864 * GB, "driver_version": "595.71.05"}, id="l40s"),
        pytest.param(
            "a100-mig",
            4,
            {
                "uuid": "MIG-ce861fb0-a248-58ce-a9a8-f9adbc22a66a",
                "mig_parent": "GPU-513536b6-7d19-9063-b049-1e69664bb298",
                "name": "NVIDIA A100-SXM4-80GB MIG 1g.20gb",
                "total": 19968 * MIB,
                "bandwidth": 2039 * GB * 19968 // 81920,
                "compute_capability": "8.0",
            },
            id="a100 divided",
        ),
        pytest.param("h100x8", 8, {"total": 81559 * MIB, "foreign": (2296 + 1272 + 7484) * MIB, "ecc": True}, id="h100x8"),
        pytest.param("h200", 1, {"total": 143771 * MIB, "bandwidth": 4800 * GB, "driver_version": "580.173.02"}, id="h200"),
        pytest.param("rtx3060", 1, {"total": 12288 * MIB, "bandwidth": 360 * GB, "ecc": None, "power_limit": 170.0}, id="rtx3060"),
        pytest.param("rtx4090", 1, {"total": 24564 * MIB, "bandwidth": 1008 * GB, "ecc": False}, id="rtx4090"),
        pytest.param("rtx5090", 2, {"total": 32607 * MIB, "bandwidth": 1792 * GB, "compute_capability": "12.0"}, id="rtx5090"),
        pytest.param(
            "gb10",
            1,
            {
                "total": HOST_MEMORY,
                "unified": True,
                "pci_address": "000f:01:00.0",
                "foreign": 19135 * MIB,
                "power_limit": None,
                "pcie": {"generation": 0, "width": 0, "max_generation": 0, "max_width": 0},
            },
            id="gb10",
        ),
        pytest.param("vgpu", 1, {"virtual": True, "total": 24576 * MIB, "bandwidth": 0}, id="virtual"),
    ],
)
def test_captured_systems(name: str, count: int, expected: dict[str, Any]) -> None:
    devices, warnings = read(system(name))
    assert warnings == []
    assert len(devices) == count
    assert {key: devices[0][key] for key in expected} == expected
    assert [entry["engine_name"] for entry in devices] == [f"CUDA{index}" for index in range(count)]
    assert len({entry["uuid"] for entry in devices}) == count


def test_every_fixture_says_where_it_is_from() -> None:
    documents = {path.name: yaml.safe_load(path.read_text()) for path in FIXTURES.glob("*.yml")}
    assert len(documents) >= 8
    for name, document in documents.items():
        assert document["basis"] in ("captured", "pieced", "documentation"), name
        assert document["source"], name
        assert "written" in document, name


@pytest.mark.parametrize(
    ("document", "calls"),
    [
        pytest.param({"gpus": [T4]}, 2, id="fields and programs"),
        pytest.param({"gpus": [T4], "unknown_fields": ["compute_cap", "mig.mode.current"]}, 4, id="two fields unknown"),
        pytest.param({"gpus": [{**A100, "mig": [{"profile": "3g.40gb", "uuid": "MIG-1", "memory": 40448}]}]}, 4, id="divided"),
        pytest.param({"gpus": [T4], "unknown_fields": list(_nvidia.FIELDS)}, 1, id="a needed field unknown"),
    ],
)
def test_the_tool_is_asked_few_times(document: dict[str, Any], calls: int) -> None:
    asked: list[list[str]] = []
    _nvidia.devices(asks(document, asked))
    assert len(asked) == calls


def test_programs_are_named_and_ours_do_not_count() -> None:
    programs = [
        {"pid": 100, "process_name": "/opt/llamacpp/releases/b1/bin/llama-server", "used_memory": 3000},
        {"pid": 200, "process_name": "python3, a name with a comma", "used_memory": 512},
    ]
    devices, warnings = read({"gpus": [{**T4, "processes": programs}]}, ours=lambda pid: pid == 100)
    assert warnings == []
    assert devices[0]["foreign"] == 512 * MIB
    assert [(entry["pid"], entry["name"], entry["bytes"], entry["ours"]) for entry in devices[0]["processes"]] == [
        (100, "/opt/llamacpp/releases/b1/bin/llama-server", 3000 * MIB, True),
        (200, "python3, a name with a comma", 512 * MIB, False),
    ]


def test_programs_on_an_instance_hold_its_memory_and_no_other() -> None:
    instances = [{"profile": "3g.40gb", "uuid": f"MIG-{index}", "memory": 40448} for index in range(2)]
    program = {"pid": 5, "process_name": "./gpu_burn", "used_memory": 7484, "instance": 1}
    devices, warnings = read({"gpus": [T4, {**A100, "mig": instances, "processes": [program]}]})
    assert warnings == []
    assert [(entry["uuid"], entry["engine_name"], entry["foreign"]) for entry in devices] == [
        ("GPU-6ee1", "CUDA0", 0),
        ("MIG-0", "CUDA1", 0),
        ("MIG-1", "CUDA2", 7484 * MIB),
    ]


INSTANCE = "<mig_device><index>{}</index><gpu_instance_id>{}</gpu_instance_id>{}</mig_device>"
SIZE = "<fb_memory_usage><total>9984 MiB</total></fb_memory_usage>"
MIG_LIST = "GPU 0: A100 (UUID: GPU-1)\n  MIG 1g.10gb Device 0: (UUID: MIG-GPU-1/7/0)\n  MIG 1g.10gb Device 1: (UUID: MIG-GPU-1/8/0)\n"


def mig_report(*instances: str) -> str:
    return f"<nvidia_smi_log><gpu><uuid>GPU-1</uuid><mig_devices>{''.join(instances)}</mig_devices></gpu></nvidia_smi_log>"


@pytest.mark.parametrize(
    ("changes", "uuids", "warning"),
    [
        pytest.param(
            {"list": MIG_LIST, "report": mig_report(INSTANCE.format(0, 7, SIZE), INSTANCE.format(1, 8, SIZE))},
            ["MIG-GPU-1/7/0", "MIG-GPU-1/8/0"],
            "",
            id="names of drivers up to 465",
        ),
        pytest.param({"list": "GPU 0: A100 (UUID: GPU-1)\n", "report": mig_report()}, [], "no instance to use", id="no instance"),
        pytest.param(
            {"list": MIG_LIST, "report": mig_report(INSTANCE.format(0, 7, SIZE), INSTANCE.format(1, 8, ""))},
            ["MIG-GPU-1/7/0"],
            "does not tell its memory",
            id="an instance without memory",
        ),
        pytest.param(
            {"list": MIG_LIST, "report": mig_report(INSTANCE.format(0, 7, SIZE), INSTANCE.format(1, 7, SIZE))},
            ["MIG-GPU-1/7/0"],
            "shares its memory",
            id="two in one GPU instance",
        ),
        pytest.param({"list": MIG_LIST, "report": "Killed"}, [], "printed no XML", id="no report"),
    ],
)
def test_instances_that_cannot_be_used_are_told(changes: dict[str, Any], uuids: list[str], warning: str) -> None:
    gpu = {**A100, "uuid": "GPU-1", "mig.mode.current": "Enabled"}
    devices, warnings = read({"gpus": [gpu], **changes})
    assert [entry["uuid"] for entry in devices] == uuids
    assert warning in " ".join(warnings)
    assert bool(warnings) == bool(warning)


def test_a_lost_gpu_is_a_warning_with_its_address() -> None:
    devices, warnings = read(system("lost"))
    assert [entry["uuid"] for entry in devices] == ["GPU-67a571b1-79ee-1016-8ea3-c1fff3f1c1d2"]
    assert len(warnings) == 3
    for address, words in (("0000:0b:00.0", "Unknown Error"), ("0000:0c:00.0", "[Unknown Error]"), ("0000:0d:00.0", "[GPU is lost]")):
        assert any(address in warning and words in warning and "not planned" in warning for warning in warnings)


def test_the_others_of_a_lost_gpu_stay() -> None:
    answers = asks({"gpus": [T4]})
    lost = "Unable to determine the device handle for GPU0000:07:00.0: Unknown Error"
    devices, warnings, _answers = _nvidia.devices(lambda argv: (15, answers(argv)[1], lost) if "query-gpu" in argv[1] else answers(argv))
    assert [entry["uuid"] for entry in devices] == ["GPU-6ee1"]
    assert len(warnings) == 1 and "0000:07:00.0 is lost" in warnings[0]


@pytest.mark.parametrize(
    ("document", "part"),
    [
        pytest.param({"gpus": [{**T4, "memory.total": "[N/A]"}]}, "does not tell its memory ([N/A])", id="a card that has memory"),
        pytest.param({"gpus": [{**T4, "memory.total": "[Insufficient Permissions]"}]}, "[Insufficient Permissions]", id="not allowed"),
        pytest.param({"gpus": [{**T4, "uuid": "[N/A]"}]}, "has no UUID", id="no uuid"),
        pytest.param({"gpus": [{**T4, "power.limit": "70,00"}]}, "a line that is no device", id="decimal comma"),
        pytest.param({"gpus": []}, "lists no device", id="driver without a device"),
        pytest.param({"failure": {"status": 6, "text": "No devices were found"}}, "No devices were found", id="all devices lost"),
        pytest.param(
            {"failure": {"status": 15, "text": "Unable to determine the device handle for GPU 0000:02:00.0: GPU is lost.  Reboot"}},
            "GPU 0000:02:00.0 is lost",
            id="the only one lost",
        ),
    ],
)
def test_what_cannot_be_read_is_no_device(document: dict[str, Any], part: str) -> None:
    devices, warnings = read(document)
    assert devices == []
    assert part in " ".join(warnings)


@pytest.mark.parametrize(
    ("result", "warning"),
    [
        pytest.param((127, "", "nvidia-smi: No such file"), "", id="no tool is nothing to warn of"),
        pytest.param((124, "", "nvidia-smi did not answer within 20 s"), "did not answer", id="hangs"),
        pytest.param((9, "NVIDIA-SMI has failed because it couldn't communicate", ""), "couldn't communicate", id="driver not loaded"),
        pytest.param((1, "", ""), "no message", id="silent"),
    ],
)
def test_a_tool_without_a_driver(result: tuple[int, str, str], warning: str) -> None:
    calls = []
    devices, warnings, answers = _nvidia.devices(lambda argv: (calls.append(argv), result)[1])
    assert (devices, answers, len(calls)) == ([], False, 1)
    assert warning in " ".join(warnings)
    assert bool(warnings) == bool(warning)


@pytest.mark.parametrize(
    ("result", "part"),
    [
        pytest.param((6, "", "unknown error"), "held by other programs is unknown: unknown error", id="fails"),
        pytest.param((124, "", "nvidia-smi did not answer within 20 s"), "did not answer", id="hangs"),
        pytest.param((0, "GPU-6ee1, 7, [Not Found], [N/A]\n", ""), "[Not Found] (PID 7) holds on CUDA0 is unknown", id="not told"),
    ],
)
def test_unreadable_programs_leave_the_device(result: tuple[int, str, str], part: str) -> None:
    answers = asks({"gpus": [T4]})
    devices, warnings, _answers = _nvidia.devices(lambda argv: result if "compute-apps" in argv[1] else answers(argv))
    assert [entry["foreign"] for entry in devices] == [0]
    assert part in " ".join(warnings)


@pytest.mark.parametrize(
    ("document", "expected", "warning"),
    [
        pytest.param({"gpus": [{**T4, "compute_cap": 7.5}]}, [("Tesla T4", 15360, 0)], "", id="t4"),
        pytest.param({"gpus": [A100, A100]}, [("NVIDIA A100-SXM4-80GB", 81920, 0)] * 2, "", id="2 a100"),
        pytest.param(
            {"gpus": [{**T4, "processes": [{"pid": 1, "process_name": "/usr/bin/stranger", "used_memory": 13824}]}]},
            [("Tesla T4", 15360, 13824)],
            "",
            id="nine tenths held by a stranger",
        ),
        pytest.param({"gpus": [T4], "hang": 30}, [], "did not answer within", id="hangs"),
    ],
)
def test_program_of_the_lab(tmp_path: Path, monkeypatch: Any, document: dict[str, Any], expected: list[Any], warning: str) -> None:
    (tmp_path / "gpus.json").write_text(json.dumps(document))
    (tmp_path / "nvidia-smi").symlink_to(PROGRAM)
    monkeypatch.setenv("LAB_GPUS", str(tmp_path / "gpus.json"))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    limit = 0.3 if "hang" in document else 20.0
    devices, warnings = _hardware.cuda_devices([], HOST_MEMORY, lambda argv: run_command(argv, limit))
    assert [(entry["name"], entry["total"] // MIB, entry["foreign"] // MIB) for entry in devices] == expected
    assert warning in " ".join(warnings)
    assert bool(warnings) == bool(warning)
