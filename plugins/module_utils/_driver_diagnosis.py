# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a driver does not work: evidence that is collected on the host, and the cause that it shows.

Collecting only reads, except that ``nvidia-smi`` loads the module where it can. The cause is found by a pure function.
"""

from __future__ import annotations

import glob
import os
import re
from typing import Any

from ansible_collections.onprem.llamacpp.plugins.module_utils import _driver_state, _pci
from ansible_collections.onprem.llamacpp.plugins.module_utils._host import Run, read_text, run_command

DKMS = "/var/lib/dkms"
_ERROR = re.compile(r"^(?:\S*/)?(\S+:\d+(?::\d+)?: (?:fatal )?error: .*)$")
_OF_KERNEL = re.compile(r"DKMS\b.* for kernel (\S+)")  # how DKMS begins a log
_LINKING = re.compile(
    r"^(?:ERROR: modpost: .*|make(?:\[\d+\])?: \*\*\* .*|.*internal compiler error.*|.*Killed.*|.*No space left on device.*)$"
)
_SIGNATURE = re.compile(r"Key was rejected by service|Required key not available|Operation not permitted|Lockdown: ", re.IGNORECASE)
_FORMAT = re.compile(r"Exec format error|disagrees about version of symbol|version magic", re.IGNORECASE)
_KERNEL_LINE = re.compile(r"NVRM|nvidia|nouveau|nova.?core|Lockdown|Xid", re.IGNORECASE)
# Modules of the kernel that hold NVIDIA's devices, by the names that their drivers have on the bus.
_OF_THE_KERNEL = {"nouveau": "nouveau", "nova_core": "nova_core", "nova-core": "nova_core", "NovaCore": "nova_core"}


def compiler_lines(text: str, most: int = 3) -> list[str]:
    """The lines of a build log that tell why a module does not compile, without the folders of the sources."""
    lines = [line.strip()[:300] for line in text.splitlines()]
    errors = [found[1] for found in map(_ERROR.match, lines) if found]
    return (errors or [line for line in lines if _LINKING.match(line)])[:most]


def of_kernel(text: str, kernel: str) -> bool:
    """Whether a build log is of this kernel; one that does not name its kernel may be."""
    found = _OF_KERNEL.match(text)
    return not found or found[1] == kernel


def dkms_states(text: str) -> list[dict[str, str]]:
    """Modules that DKMS knows: name, version, kernel (empty before it is built for one) and state, from ``dkms status``."""
    found = []
    for line in text.splitlines():
        where, _colon, state = line.partition(": ")
        parts = [part.strip() for part in re.split(r",\s*|/", where, maxsplit=3)]
        if state and "nvidia" in parts[0]:
            kernel = parts[2] if len(parts) > 2 else ""
            found.append({"name": parts[0], "version": parts[1] if len(parts) > 1 else "", "kernel": kernel, "state": state.split()[0]})
    return found


def collect(kernel: str, load: str = "", run: Run = run_command) -> dict[str, Any]:
    """What shows whether the driver works.

    Args:
        kernel: release of the kernel that the modules are for.
        load: what ``modprobe`` said when it could not load them.
        run: runs a program.
    """
    dkms = dkms_states(run(["dkms", "status"])[1])
    # Debian's modules have names of their own, which aliases stand for.
    names = dict.fromkeys(["nvidia", *(entry["name"] for entry in dkms)])
    told = next((out for status, out, _err in (run(["modinfo", "-k", kernel, name]) for name in names) if status == 0), "")
    fields = dict(line.split(":", 1) for line in told.splitlines() if ":" in line)
    smi = run(["nvidia-smi", "--query-gpu=pci.bus_id,driver_version", "--format=csv,noheader"])
    texts = {path: read_text(path) for path in glob.glob(f"{DKMS}/nvidia*/*/build/make.log")}
    logs = {path: compiler_lines(text) for path, text in texts.items() if of_kernel(text, kernel)}
    kernel_log = run(["dmesg"])[1].splitlines()
    state = _driver_state.collect("other", run=run)
    # Cards that are kept for virtual machines are none that a driver has to serve.
    cards = [card for card in _pci.scan() if card["vendor"] == _pci.NVIDIA and not card["driver"].startswith(_pci.KEPT)]
    return {
        "kernel": kernel,
        "devices": [card["pci_address"] for card in cards],
        "bound": {card["pci_address"]: card["driver"] for card in cards},
        "headers": os.path.exists(f"/lib/modules/{kernel}/build/Makefile"),
        "dkms": dkms,
        "logs": {path: lines for path, lines in logs.items() if lines},
        "module": {key: fields.get(key, "").strip() for key in ("version", "vermagic", "license")},
        "loaded": state["version"],
        "modules": state["loaded"],
        "load": load,
        "smi": {"status": smi[0], "text": (smi[1] + smi[2]).strip()},
        "log": [line for line in kernel_log if _KERNEL_LINE.search(line)][-20:],
        "container": state["container"],
        "secure_boot": state["secure_boot"],
    }


def listed(text: str) -> list[str]:
    """Addresses of the devices that ``nvidia-smi`` lists."""
    return [_pci.address(line.split(",")[0]) for line in text.splitlines() if re.match(r"[0-9A-Fa-f]{4,8}:", line)]


def _built(evidence: dict[str, Any]) -> tuple[str, str]:
    """Why there is no module for the kernel, or nothing where there is one."""
    kernel = evidence["kernel"]
    if evidence["module"]["version"]:
        return "", ""
    for path, lines in evidence["logs"].items():
        return "compile", f"The module does not compile against the kernel {kernel}: {lines[0]} (see {path})."
    if not evidence["headers"]:
        return "headers", f"The headers of the kernel {kernel} are missing, so no module was built for it."
    others = sorted({entry["kernel"] for entry in evidence["dkms"] if entry["state"] == "installed"} - {kernel, ""})
    if others:
        return "kernel", f"The module is built for {', '.join(others)}, not for the kernel {kernel}."
    if evidence["dkms"]:
        return "build", f"DKMS knows the module but has not built it for the kernel {kernel}: run dkms autoinstall -k {kernel}."
    return "missing", f"No NVIDIA module is installed for the kernel {kernel}."


def _unloaded(evidence: dict[str, Any]) -> tuple[str, str]:
    """Why a module that is there is not loaded."""
    said = "\n".join([evidence["load"], *evidence["log"]])
    if evidence["container"]:
        return "container", f"No module can be loaded: this host is a {evidence['container']} container."
    bound = {_OF_THE_KERNEL.get(name, "") for name in evidence["bound"].values()}
    for name in dict.fromkeys(_OF_THE_KERNEL.values()):
        if name in evidence["modules"] or name in bound:
            return "nouveau", f"The driver {name} holds the devices. It is switched off from the next start on: restart the host."
    if _FORMAT.search(said):
        built = evidence["module"]["vermagic"].split(" ")[0]
        return "kernel", f"The module was built for the kernel {built}, and {evidence['kernel']} does not take it: {evidence['load']}."
    if _SIGNATURE.search(said) and evidence["secure_boot"] is not False:
        return "secure_boot", (
            "Secure Boot refuses the module, because the key that signed it is not enrolled. Enrol it: mokutil --import"
            " the key that DKMS made, restart, and choose Enroll MOK on the console."
        )
    if re.search(r"requires use of the NVIDIA open kernel modules", said):
        return "modules", "A device needs the open kernel modules: set nvidia_driver_modules to open."
    if re.search(r"not supported by (the )?open|open nvidia\.ko because it does not include", said):
        return "modules", "A device is too old for the open kernel modules: set nvidia_driver_modules to proprietary."
    return "load", f"The module cannot be loaded: {evidence['load'] or 'modprobe gave no reason'}."


def diagnose(evidence: dict[str, Any]) -> dict[str, Any]:
    """Whether the driver works, and else the cause (a word) and a sentence about it, from what M(collect) gives."""
    smi, devices = evidence["smi"], evidence["devices"]
    shown = listed(smi["text"]) if smi["status"] == 0 else []
    missing = [address for address in devices if address not in shown]
    result = {"working": False, "version": evidence["loaded"] or evidence["module"]["version"], "listed": shown, "missing": missing}
    if shown and not missing:
        return {**result, "working": True, "cause": "", "sentence": f"nvidia-smi lists {len(shown)} of {len(devices)} devices."}
    mismatch = re.search(r"version mismatch(?:.*?NVML library version: (\S+))?", smi["text"], re.DOTALL)
    if mismatch:
        loaded, library = evidence["loaded"] or "another version", mismatch[1] or "not"
        cause = "mismatch"
        sentence = f"The loaded module is {loaded}, the library is {library}: restart the host, which loads the module installed last."
    elif shown:
        cause, sentence = "device", f"nvidia-smi does not list {', '.join(missing)}, which is on the bus: see dmesg for NVRM and Xid."
    elif not evidence["loaded"]:
        cause, sentence = _built(evidence)
        if not cause:
            cause, sentence = _unloaded(evidence)
    elif not devices:
        cause, sentence = "no_device", "No NVIDIA device is on the bus."
    else:
        text = smi["text"].splitlines()[-1] if smi["text"] else f"status {smi['status']}"
        cause, sentence = "smi", f"The module is loaded, but nvidia-smi does not list {', '.join(missing)}: {text}."
    if not shown:
        sentence += f" nvidia-smi lists no device; on the bus: {', '.join(devices) or 'none'}."
    return {**result, "cause": cause, "sentence": sentence}
