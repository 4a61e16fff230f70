# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cause that evidence of a driver shows. Texts are those that the tools print; the build log is of a real failure."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.onprem.llamacpp.plugins.module_utils import _driver_diagnosis as _d

KERNEL = "6.12.117+deb13-cloud-amd64"
GPU = "0000:10:00.0"
SILENT = {"status": 9, "text": "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."}
MODULE = {"version": "580.95.05", "vermagic": f"{KERNEL} SMP preempt mod_unload", "license": "Dual MIT/GPL"}
LOG = """
 CONFTEST: dma_fence_set_error
   x86_64-linux-gnu-gcc-14 -Werror=incompatible-pointer-types -Wno-error -c -o /tmp/nv-pci.o /tmp/nv-pci.c
/var/lib/dkms/nvidia-current-open/550.163.01/build/nvidia/nv-pci.c: In function 'nv_resize_pcie_bars':
/var/lib/dkms/nvidia-current-open/550.163.01/build/nvidia/nv-pci.c:237:9: error: too few arguments to function 'pci_resize_resource'
  237 |     r = pci_resize_resource(pci_dev, NV_GPU_BAR1, requested_size);
make[4]: *** [/usr/src/linux-headers-6.12.117+deb13-common/scripts/Makefile.build:249: nvidia/nv-pci.o] Error 1
"""
LINE = "nv-pci.c:237:9: error: too few arguments to function 'pci_resize_resource'"


def evidence(**change: Any) -> dict[str, Any]:
    return {
        "kernel": KERNEL,
        "devices": [GPU],
        "bound": {GPU: ""},
        "headers": True,
        "dkms": [],
        "logs": {},
        "module": dict(MODULE),
        "loaded": "",
        "modules": [],
        "load": "",
        "smi": dict(SILENT),
        "log": [],
        "container": "",
        "secure_boot": False,
        **change,
    }


NONE = {"version": "", "vermagic": "", "license": ""}


@pytest.mark.parametrize(
    ("found", "cause", "part"),
    [
        pytest.param({"module": NONE, "headers": False}, "headers", f"The headers of the kernel {KERNEL} are missing", id="headers"),
        pytest.param(
            {"module": NONE, "logs": {"/var/lib/dkms/x/make.log": [LINE]}},
            "compile",
            f"does not compile against the kernel {KERNEL}: {LINE} (see /var/lib/dkms/x/make.log)",
            id="module does not compile",
        ),
        pytest.param(
            {"module": NONE, "dkms": [{"name": "nvidia", "version": "580", "kernel": "6.12.107", "state": "installed"}]},
            "kernel",
            "built for 6.12.107, not for the kernel",
            id="host runs another kernel",
        ),
        pytest.param(
            {"module": NONE, "dkms": [{"name": "nvidia", "version": "580", "kernel": "", "state": "added"}]},
            "build",
            "dkms autoinstall",
            id="never built",
        ),
        pytest.param({"module": NONE}, "missing", "No NVIDIA module is installed", id="nothing installed"),
        pytest.param({"container": "systemd-nspawn"}, "container", "this host is a systemd-nspawn container", id="container"),
        pytest.param({"modules": ["nouveau"]}, "nouveau", "nouveau holds the devices", id="nouveau is loaded"),
        pytest.param({"bound": {GPU: "nouveau"}}, "nouveau", "nouveau holds the devices", id="nouveau is bound"),
        pytest.param({"modules": ["nova_core"]}, "nouveau", "nova_core holds the devices", id="nova_core is loaded"),
        pytest.param({"bound": {GPU: "NovaCore"}}, "nouveau", "nova_core holds the devices", id="nova_core is bound"),
        pytest.param(
            {"secure_boot": True, "load": "modprobe: ERROR: could not insert 'nvidia': Key was rejected by service"},
            "secure_boot",
            "mokutil --import",
            id="Secure Boot, new kernel",
        ),
        pytest.param(
            {"secure_boot": None, "log": ["Lockdown: modprobe: unsigned module loading is restricted; see man kernel_lockdown.7"]},
            "secure_boot",
            "Secure Boot refuses",
            id="Secure Boot, lockdown",
        ),
        pytest.param(
            {"load": "modprobe: ERROR: could not insert 'nvidia': Exec format error", "module": {**MODULE, "vermagic": "6.12.107 SMP"}},
            "kernel",
            "was built for the kernel 6.12.107",
            id="headers of another kernel",
        ),
        pytest.param(
            {"log": ["NVRM: installed in this system requires use of the NVIDIA open kernel modules."]},
            "modules",
            "set nvidia_driver_modules to open",
            id="Blackwell with proprietary modules",
        ),
        pytest.param(
            {"log": ["NVRM: open nvidia.ko because it does not include the required GPU"]},
            "modules",
            "set nvidia_driver_modules to proprietary",
            id="Volta with open modules",
        ),
        pytest.param({"load": "modprobe: ERROR: No such device"}, "load", "No such device", id="modprobe's own word"),
        pytest.param(
            {
                "loaded": "535.261.03",
                "smi": {"status": 18, "text": "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 535.309"},
            },
            "mismatch",
            "The loaded module is 535.261.03, the library is 535.309",
            id="library and module differ",
        ),
        pytest.param({"loaded": "580.95.05", "devices": []}, "no_device", "No NVIDIA device is on the bus", id="no device"),
        pytest.param(
            {"loaded": "580.95.05", "smi": {"status": 0, "text": "00000000:10:00.0, 580.95.05"}, "devices": [GPU, "0000:11:00.0"]},
            "device",
            "does not list 0000:11:00.0",
            id="one device is lost",
        ),
        pytest.param(
            {"loaded": "580.95.05", "smi": {"status": 6, "text": "No devices were found"}},
            "smi",
            "No devices were found",
            id="none is found",
        ),
    ],
)
def test_cause(found: dict[str, Any], cause: str, part: str) -> None:
    diagnosis = _d.diagnose(evidence(**found))
    assert (diagnosis["working"], diagnosis["cause"]) == (False, cause)
    assert part in diagnosis["sentence"]


def test_working() -> None:
    diagnosis = _d.diagnose(evidence(loaded="580.95.05", smi={"status": 0, "text": "00000000:10:00.0, 580.95.05\n"}))
    assert (diagnosis["working"], diagnosis["version"], diagnosis["listed"]) == (True, "580.95.05", [GPU])


def test_a_silent_driver_is_told_with_the_devices_on_the_bus() -> None:
    assert _d.diagnose(evidence(container="docker"))["sentence"].endswith(f"nvidia-smi lists no device; on the bus: {GPU}.")


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        pytest.param(LOG, [LINE], id="compiler"),
        pytest.param("a\nERROR: modpost: GPL-incompatible module uses x\nmake: *** [all] Error 2\n", 2, id="modpost"),
        pytest.param("gcc: fatal error: Killed signal terminated program cc1\nKilled\n", 2, id="out of memory"),
        pytest.param(" CONFTEST: x\n   gcc -Werror=date-time nv.c\n", [], id="no error"),
    ],
)
def test_compiler_lines(text: str, lines: Any) -> None:
    found = _d.compiler_lines(text)
    assert found == lines if isinstance(lines, list) else len(found) == lines


@pytest.mark.parametrize(
    ("head", "same"),
    [
        (f"DKMS make.log for nvidia-580.95.05 for kernel {KERNEL} (x86_64)", True),
        (f"DKMS (dkms-3.2.2) make.log for nvidia/580.95.05 for kernel {KERNEL} (x86_64)", True),
        ("DKMS make.log for nvidia-580.95.05 for kernel 6.12.107+deb13-cloud-amd64 (x86_64)", False),
        ("make: Entering directory", True),
    ],
)
def test_a_log_of_another_kernel_is_no_evidence(head: str, same: bool) -> None:
    assert _d.of_kernel(f"{head}\n{LOG}", KERNEL) is same


def test_states_of_dkms() -> None:
    text = """nvidia-current-open/535.261.03, 6.1.0-56-cloud-amd64, x86_64: installed
nvidia/580.95.05: added
nvidia, 470.82.01, 5.15.0-100-generic, x86_64: built (WARNING! Diff between built and installed module!)
zfs/2.1.11, 6.1.0-56-cloud-amd64, x86_64: installed
"""
    assert [(entry["version"], entry["kernel"], entry["state"]) for entry in _d.dkms_states(text)] == [
        ("535.261.03", "6.1.0-56-cloud-amd64", "installed"),
        ("580.95.05", "", "added"),
        ("470.82.01", "5.15.0-100-generic", "built"),
    ]


def test_collecting_survives_missing_tools() -> None:
    found = _d.collect(KERNEL, run=lambda argv: (127, "", f"{argv[0]}: No such file or directory"))
    assert found["smi"]["status"] == 127
    assert found["module"]["version"] == ""
    assert not _d.diagnose(found)["working"]


@pytest.mark.parametrize("driver", ["vfio-pci", "pci-stub"])
def test_a_card_of_a_virtual_machine_is_not_missed(monkeypatch: pytest.MonkeyPatch, driver: str) -> None:
    """Facts leave it out as well."""
    cards = [
        {"vendor": "10de", "pci_address": GPU, "driver": "nvidia"},
        {"vendor": "10de", "pci_address": "0000:11:00.0", "driver": driver},
    ]
    monkeypatch.setattr(_d._pci, "scan", lambda: cards)
    answers = {"nvidia-smi": (0, "00000000:10:00.0, 580.95.05\n", "")}
    found = _d.collect(KERNEL, run=lambda argv: answers.get(argv[0], (127, "", "")))
    assert (found["devices"], _d.diagnose(found)["working"]) == ([GPU], True)
