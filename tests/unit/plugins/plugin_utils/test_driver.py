# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is done about a host's driver: left alone, installed, upgraded, verified or refused, and with what."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _driver, _driver_boot

ROOT = Path(__file__).resolve().parents[4]
VARS = ROOT / "roles/nvidia_driver/vars/main"
PLATFORMS = {
    path.stem.replace("_", "-", 1).replace("_", "."): next(iter(yaml.safe_load(path.read_text()).values()))
    for path in VARS.glob("*.yml")
    if path.stem != "main"
}
KERNEL = "6.1.0-50-amd64"
T4 = {"kind": "cuda", "name": "Tesla T4", "compute_capability": "7.5", "driver": False, "uuid": "", "driver_version": ""}
V100 = {**T4, "name": "Tesla V100-SXM2-32GB", "compute_capability": "7.0"}
P40 = {**T4, "name": "Tesla P40", "compute_capability": "6.1"}
B200 = {**T4, "name": "NVIDIA B200", "compute_capability": "10.0"}
SERVED = {**T4, "driver": True, "uuid": "GPU-1", "driver_version": "580.95.05"}
WISH = {
    "needed": True,
    "source": "nvidia",
    "branch": "580",
    "version": "",
    "modules": "auto",
    "upgrade": False,
    "minimum": "525.60.13",
    "repository_url": "https://developer.download.nvidia.com/compute/cuda/repos",
    "manage_repository": True,
    "key": "",
    "key_fingerprints": [],
    "secure_boot": "prepare",
    "container": "leave",
    "reboot": "auto",
}


def host(devices: list[dict[str, Any]], platform: str = "debian-12", kernel: str = KERNEL, **driver: Any) -> dict[str, Any]:
    family = "redhat" if platform.startswith(("rocky", "rhel")) else "debian"
    return {
        "platform": platform,
        "architecture": "x86_64",
        "os": {"id": platform.split("-", maxsplit=1)[0], "version_id": platform.split("-")[1], "family": family, "kernel": kernel},
        "devices": copy.deepcopy(devices),
        "driver": {
            "version": "",
            "modules": "",
            "loaded": [],
            "nvswitches": 0,
            "container": "",
            "jetson": False,
            "licensed_guest": False,
            "secure_boot": False,
            "kernels": [{"release": kernel, "headers": False}],
            "record": {},
            "packages": {},
            **driver,
        },
    }


def decide(hardware: dict[str, Any], **wish: Any) -> dict[str, Any]:
    return _driver.plan(hardware, {**WISH, **wish}, PLATFORMS)


@pytest.mark.parametrize(
    ("hardware", "wish", "action", "reason"),
    [
        pytest.param(host([]), {}, "leave", "no NVIDIA device", id="no device"),
        pytest.param(host([T4]), {"needed": False}, "leave", "the plan uses no", id="device that is not planned"),
        pytest.param(host([SERVED]), {}, "leave", "the driver 580.95.05 answers", id="good driver"),
        pytest.param(host([SERVED]), {"branch": "590"}, "leave", "answers", id="newer branch wanted, no upgrade asked"),
        pytest.param(host([SERVED]), {"branch": "590", "upgrade": True}, "upgrade", "is replaced", id="upgrade asked"),
        pytest.param(host([SERVED]), {"upgrade": True}, "leave", "answers", id="upgrade asked, branch is there"),
        pytest.param(host([SERVED]), {"branch": "570", "upgrade": True}, "leave", "answers", id="never down a branch"),
        pytest.param(host([SERVED]), {"version": "580.126.09", "upgrade": True}, "upgrade", "is replaced", id="exact version asked"),
        pytest.param(
            host([{**SERVED, "driver_version": "470.82.01"}]), {}, "refuse", "older than 525.60.13", id="too old, no upgrade asked"
        ),
        pytest.param(host([{**SERVED, "driver_version": "470.82.01"}]), {"upgrade": True}, "upgrade", "replaced", id="too old"),
        pytest.param(host([T4]), {}, "install", "no driver serves Tesla T4", id="no driver"),
        pytest.param(host([T4], jetson=True), {}, "leave", "Jetson", id="Jetson"),
        pytest.param(host([T4], container="docker"), {}, "leave", "on the machine that this docker container", id="container"),
        pytest.param(host([T4], container="lxc"), {"container": "install"}, "install", "no driver", id="container, by choice"),
        pytest.param(host([{**SERVED, "virtual": True}]), {"upgrade": True}, "leave", "virtual GPU", id="vGPU by its name"),
        pytest.param(host([T4], licensed_guest=True), {}, "leave", "virtual GPU", id="vGPU by its licence"),
        pytest.param(host([SERVED], loaded=["nvidia_vgpu_vfio"]), {"upgrade": True}, "leave", "divides its GPUs", id="vGPU host"),
        pytest.param(host([T4], platform="debian-forky"), {}, "refuse", "No driver packages are known", id="unknown platform"),
        pytest.param(host([T4], platform="rocky-9.4"), {"source": "distribution"}, "refuse", "no driver packages of its own", id="EL"),
        pytest.param(host([T4]), {"source": "runfile"}, "refuse", "nvidia_driver_source is 'runfile'", id="unknown source"),
        pytest.param(host([T4]), {"branch": "newest"}, "refuse", "nvidia_driver_branch is 'newest'", id="branch that is none"),
        pytest.param(host([T4]), {"version": "570.1.2"}, "refuse", "is not of the branch 580", id="version of another branch"),
        pytest.param(host([T4], secure_boot=True), {"secure_boot": "refuse"}, "refuse", "Secure Boot is on", id="Secure Boot refused"),
        pytest.param(host([T4], secure_boot=True), {}, "install", "no driver", id="Secure Boot prepared"),
        pytest.param(host([T4], platform="ubuntu-26.04"), {}, "refuse", "fingerprint of the key", id="key that is not known"),
        pytest.param(
            host([T4], platform="ubuntu-26.04"), {"key_fingerprints": ["A" * 40]}, "install", "no driver", id="key that was looked up"
        ),
        pytest.param(host([T4], container="x", kernels=[]), {"container": "install"}, "refuse", "No kernel", id="no kernel"),
        pytest.param(host([V100, B200]), {}, "refuse", "one host cannot have both", id="Volta beside Blackwell"),
        pytest.param(host([V100]), {"modules": "open"}, "refuse", "older than Turing", id="open modules for Volta"),
        pytest.param(host([B200]), {"modules": "proprietary"}, "refuse", "open modules only", id="proprietary for Blackwell"),
        pytest.param(host([V100]), {"branch": "590"}, "refuse", "does not know Tesla V100", id="branch too new for Volta"),
        pytest.param(host([T4], nvswitches=4), {"source": "distribution"}, "refuse", "have no fabric manager", id="NVSwitch, Debian's own"),
        pytest.param(
            host([T4], platform="ubuntu-24.04", nvswitches=4),
            {"source": "distribution"},
            "install",
            "no driver",
            id="NVSwitch, Ubuntu's own",
        ),
        pytest.param(host([T4], installer="/usr/bin/nvidia-uninstall"), {}, "refuse", "NVIDIA's installer (/usr/bin", id="installer's"),
        pytest.param(host([SERVED], installer="/usr/bin/nvidia-uninstall"), {}, "leave", "answers", id="installer's that answers"),
        pytest.param(
            host([SERVED], version="580.95.05"),
            {"branch": "590", "upgrade": True, "reboot": "never"},
            "refuse",
            "The module 580.95.05 is loaded, and the libraries of another version do not work with it before a restart",
            id="upgrade without the restart that it takes",
        ),
        pytest.param(
            host([SERVED]), {"branch": "590", "upgrade": True, "reboot": "never"}, "upgrade", "is replaced", id="upgrade, nothing loaded"
        ),
        pytest.param(host([B200]), {"branch": "550"}, "refuse", "does not know NVIDIA B200", id="branch too old for Blackwell"),
    ],
)
def test_action(hardware: dict[str, Any], wish: dict[str, Any], action: str, reason: str) -> None:
    plan = decide(hardware, **wish)
    assert plan["action"] == action
    assert reason in plan["reason"]
    undriven = any(device["driver"] is False for device in hardware["devices"])
    left = action == "leave" and undriven and wish.get("needed", True)
    assert bool(plan["problems"]) == (action == "refuse" or left)


@pytest.mark.parametrize(
    ("devices", "told"),
    [
        pytest.param([B200] * 8, True, id="HGX B200"),
        pytest.param([{**B200, "driver": True, "driver_version": "580.95.05"}] * 8, True, id="with a driver"),
        pytest.param([B200], False, id="one of them in a virtual machine"),
        pytest.param([{**B200, "name": "NVIDIA GB200"}] * 4, False, id="Grace"),
        pytest.param([T4] * 8, False, id="no board"),
    ],
)
def test_board_that_needs_more_than_a_driver_is_told(devices: list[dict[str, Any]], told: bool) -> None:
    assert any("nvlsm" in note for note in decide(host(devices))["notes"]) == told


@pytest.mark.parametrize(
    ("devices", "modules"),
    [
        pytest.param([T4], "open", id="Turing"),
        pytest.param([V100], "proprietary", id="Volta"),
        pytest.param([P40], "proprietary", id="Pascal"),
        pytest.param([T4, V100], "proprietary", id="Volta beside Turing"),
        pytest.param([B200], "open", id="Blackwell"),
        pytest.param([{**T4, "compute_capability": ""}], "open", id="unknown card"),
    ],
)
def test_modules(devices: list[dict[str, Any]], modules: str) -> None:
    assert decide(host(devices))["modules"] == modules


@pytest.mark.parametrize(
    ("platform", "wish", "packages", "headers"),
    [
        pytest.param("debian-12", {}, ["nvidia-kernel-open-dkms", "nvidia-driver-cuda"], ["linux-headers-6.1.0-50-amd64"], id="Debian"),
        pytest.param(
            "debian-13",
            {"source": "distribution"},
            ["nvidia-open-kernel-dkms", "libcuda1", "nvidia-smi"],
            ["linux-headers-6.1.0-50-amd64"],
            id="Debian's own",
        ),
        pytest.param(
            "ubuntu-24.04",
            {},
            ["nvidia-dkms-580-open", "libnvidia-compute-580", "nvidia-utils-580"],
            ["linux-headers-6.1.0-50-amd64"],
            id="Ubuntu",
        ),
        pytest.param(
            "ubuntu-24.04",
            {"branch": "595"},
            ["nvidia-dkms-open", "libnvidia-compute", "nvidia-utils"],
            ["linux-headers-6.1.0-50-amd64"],
            id="Ubuntu, names without the branch",
        ),
        pytest.param("rocky-9.4", {}, ["kmod-nvidia-open-dkms", "nvidia-driver-cuda"], ["kernel-devel-6.1.0-50-amd64"], id="EL 9"),
    ],
)
def test_packages(platform: str, wish: dict[str, Any], packages: list[str], headers: list[str]) -> None:
    plan = decide(host([T4], platform=platform), **wish)
    assert (plan["packages"], plan["headers"], plan["fabric_manager"]) == (packages, headers, False)


def test_headers_follow_the_kernels_of_the_platform() -> None:
    assert decide(host([T4], platform="debian-12"))["headers_meta"] == ["linux-headers-amd64"]
    assert "linux-headers-amd64-hwe-24.04" in decide(host([T4], platform="ubuntu-24.04"))["headers_meta"]
    two = [{"release": release, "headers": False} for release in ("6.1.0-50-amd64", "6.1.0-56-amd64")]
    assert decide(host([T4], platform="rocky-9.4", kernels=two))["headers_meta"] == ["kernel-devel-matched-6.1.0-56-amd64"]


@pytest.mark.parametrize(
    ("kernel", "headers", "meta"),
    [
        ("5.14.0-570.el9.aarch64", "kernel-devel-5.14.0-570.el9.aarch64", "kernel-devel-matched-5.14.0-570.el9.aarch64"),
        ("5.14.0-570.el9.aarch64+64k", "kernel-64k-devel-5.14.0-570.el9.aarch64", "kernel-64k-devel-matched-5.14.0-570.el9.aarch64"),
        ("5.14.0-570.el9.x86_64+rt", "kernel-rt-devel-5.14.0-570.el9.x86_64", "kernel-rt-devel-matched-5.14.0-570.el9.x86_64"),
    ],
)
def test_headers_of_a_variant_of_els_kernel(kernel: str, headers: str, meta: str) -> None:
    plan = decide(host([T4], platform="rocky-9.4", kernel=kernel))
    assert (plan["headers"], plan["headers_meta"], plan["kernels"]) == ([headers], [meta], [kernel])


def test_tools_that_sign_modules_come_with_secure_boot() -> None:
    wanted = {state: decide(host([T4], secure_boot=state))["companions"] for state in (True, False)}
    assert set(wanted[True]) - set(wanted[False]) == {"mokutil", "openssl"}


def test_el9_has_streams_and_el10_has_none() -> None:
    assert decide(host([T4], platform="rhel-9.6"))["module_stream"] == "nvidia-driver:580-open"
    assert decide(host([V100], platform="rhel-9.6"))["module_stream"] == "nvidia-driver:580-dkms"
    assert decide(host([T4], platform="rhel-10.0"), key_fingerprints=["A" * 40])["module_stream"] == ""


def test_nvswitches_need_the_fabric_manager() -> None:
    plan = decide(host([T4], nvswitches=4))
    assert plan["fabric_manager"] and plan["packages"][-1].startswith("nvidia-fabricmanager")


MIG = {**SERVED, "uuid": "MIG-1", "name": "NVIDIA A100 MIG 3g.40gb", "compute_capability": "8.0", "mig_parent": "GPU-1"}


@pytest.mark.parametrize(
    ("hardware", "wish", "loaded", "services"),
    [
        pytest.param(host([T4]), {}, ["nvidia", "nvidia-uvm"], ["nvidia-persistenced.service"], id="GPU"),
        pytest.param(host([MIG]), {"branch": "590", "upgrade": True}, ["nvidia", "nvidia-uvm"], ["nvidia-persistenced.service"], id="MIG"),
        pytest.param(
            host([T4], nvswitches=6),
            {},
            ["nvidia", "nvidia-uvm"],
            ["nvidia-persistenced.service", "nvidia-fabricmanager.service"],
            id="NVSwitch",
        ),
        pytest.param(host([]), {}, [], [], id="none"),
    ],
)
def test_modules_and_device_nodes_at_boot(hardware: dict[str, Any], wish: dict[str, Any], loaded: list[str], services: list[str]) -> None:
    """Modules are loaded before services, and the services that make device nodes run before a server does."""
    made = _driver_boot.files(decide(hardware, **wish), "580.95.05")
    assert [line for line in made.get(_driver_boot.LOAD, "").splitlines() if not line.startswith("#")] == loaded
    order = made.get(_driver_boot.ORDER, "")
    assert re.findall(r"nvidia-\w+\.service", order.partition("After=")[2]) == services
    assert ("systemd-modules-load.service" in order) is bool(loaded)


@pytest.mark.parametrize(
    ("url", "architecture", "folder"),
    [
        pytest.param(WISH["repository_url"], "x86_64", f"{WISH['repository_url']}/debian12/x86_64", id="NVIDIA's"),
        pytest.param("http://mirror.example.com/cuda/", "x86_64", "http://mirror.example.com/cuda/debian12/x86_64", id="mirror"),
        pytest.param("http://mirror.example.com", "aarch64", "http://mirror.example.com/debian12/sbsa", id="ARM"),
    ],
)
def test_repository(url: str, architecture: str, folder: str) -> None:
    repository = decide({**host([T4]), "architecture": architecture}, repository_url=url)["repository"]
    assert (repository["url"], repository["key_url"]) == (folder, f"{folder}/3bf863cc.pub")
    assert repository["fingerprints"] == ["EB693B3035CD5710E231E123A4B469963BF863CC"]


@pytest.mark.parametrize(
    ("kernel", "wanted"),
    [
        ("6.1.0-50-cloud-amd64", "cloud-amd64"),
        ("6.12.117+deb13-cloud-amd64", "cloud-amd64"),
        ("6.12.9+bpo-amd64", "amd64"),
        ("5.15.0-100-generic", "generic"),
        ("6.8.0-1010-nvidia-64k", "nvidia-64k"),
        ("mainline", ""),
    ],
)
def test_flavour(kernel: str, wanted: str) -> None:
    assert _driver.flavour(kernel) == wanted


NEXT = [{"release": KERNEL, "headers": True}, {"release": "6.1.0-56-amd64", "headers": False}]


@pytest.mark.parametrize(
    ("hardware", "kernels"),
    [
        pytest.param(host([T4]), [KERNEL], id="one kernel"),
        pytest.param(host([T4], kernels=NEXT), [KERNEL, "6.1.0-56-amd64"], id="another kernel starts next"),
        pytest.param(host([T4], kernel="6.18.0-own", kernels=NEXT, container="lxc"), ["6.1.0-56-amd64"], id="container"),
    ],
)
def test_kernels(hardware: dict[str, Any], kernels: list[str]) -> None:
    assert decide(hardware, container="install")["kernels"] == kernels


@pytest.mark.parametrize(
    ("change", "action", "reason"),
    [
        pytest.param({}, "verify", "no device answers", id="installed, does not answer"),
        pytest.param({"container": "lxc"}, "leave", "a container cannot load it", id="installed in a container"),
        pytest.param({"kernels": NEXT}, "install", "no modules for the kernel 6.1.0-56-amd64 yet", id="another kernel starts next"),
        pytest.param({"packages": {"nvidia-smi": "2"}}, "install", "no driver", id="packages were changed"),
        pytest.param({"record": {}}, "install", "no driver", id="never installed"),
    ],
)
def test_what_was_installed_before(change: dict[str, Any], action: str, reason: str) -> None:
    wish = {"container": "install"}
    first = decide(host([T4]), **wish)
    record = {"inputs": first["inputs"], "packages": {"nvidia-smi": "1"}, "kernels": first["kernels"], "version": "580.95.05"}
    plan = decide(host([T4], **{"record": record, "packages": {"nvidia-smi": "1"}, **change}), **wish)
    assert plan["action"] == action
    assert reason in plan["reason"]


def test_another_wish_is_another_installation() -> None:
    inputs = {
        decide(host([T4]), **wish)["inputs"] for wish in ({}, {"branch": "590"}, {"version": "580.95.05"}, {"modules": "proprietary"})
    }
    assert len(inputs) == 4


@pytest.mark.parametrize(
    ("hardware", "reason"),
    [
        pytest.param(host([T4]), "", id="nothing is loaded"),
        pytest.param(host([T4], version="580.95.05", loaded=["nvidia"]), "", id="this very version is loaded"),
        pytest.param(host([T4], version="570.1.2", loaded=["nvidia"]), "the module 570.1.2 is loaded", id="another version is loaded"),
        pytest.param(host([T4], loaded=["nouveau"]), "nouveau is loaded", id="nouveau"),
        pytest.param(host([T4], loaded=["nova_core"]), "nova_core is loaded", id="nova_core"),
        pytest.param(host([T4], container="lxc", loaded=["nouveau"]), "", id="container"),
        pytest.param(host([T4], kernel="6.1.0-49-amd64"), "the kernel 6.1.0-49-amd64 is running", id="another kernel runs"),
        pytest.param(host([T4], kernels=[]), "is not installed any more", id="the running kernel was removed"),
    ],
)
def test_restart(hardware: dict[str, Any], reason: str) -> None:
    said = _driver.restart_reason({"kernels": [KERNEL]}, hardware, "580.95.05")
    assert (reason in said) if reason else said == ""


def test_drivers_of_the_kernel_are_switched_off_alike() -> None:
    """Not loaded, not in the first file system, and said to take a restart."""
    tasks = DataLoader().load_from_file(str(VARS.parents[1] / "tasks/configure.yml"), trusted_as_template=True)
    (written,) = [task["when"] for task in tasks if "update-initramfs" in str(task)]
    blacklist = _driver_boot.files({"packages": ["x"], "fabric_manager": False, "manager": "dnf"}, "580.95.05")[_driver_boot.NOUVEAU]
    for name in _driver.KERNELS_OWN:
        assert f"blacklist {name}\n" in blacklist
        plan = decide(host([T4], loaded=["nvidia", name]))
        assert Templar(variables={"__nvidia_driver_plan": plan}).evaluate_conditional(written)
        assert f"{name} is loaded: it is switched off" in " ".join(plan["notes"])
    assert not Templar(variables={"__nvidia_driver_plan": decide(host([T4]))}).evaluate_conditional(written)


def test_all_platforms_say_the_same() -> None:
    shapes = {
        name: {key: sorted(value) if isinstance(value, dict) else type(value) for key, value in entry.items()}
        for name, entry in PLATFORMS.items()
    }
    assert len(PLATFORMS) == 7
    assert len({str(sorted(shape.items(), key=str)) for shape in shapes.values()}) == 1, shapes
    settings = yaml.safe_load((VARS / "main.yml").read_text())["_nvidia_driver_platforms"]
    assert set(settings) == set(PLATFORMS)
