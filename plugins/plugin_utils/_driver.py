# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is to be done about a host's NVIDIA driver, decided on the controller from facts and wishes alone.

The answer is an action: C(leave) it alone, C(install), C(upgrade), C(verify) what was installed before, or C(refuse).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.onprem.llamacpp.plugins.plugin_utils._canonical import digest

SOURCES = ("nvidia", "distribution")
MODULES = ("auto", "open", "proprietary")
ARCHITECTURES = {"x86_64": "x86_64", "aarch64": "sbsa"}  # as NVIDIA's folders are named

OPEN_FROM = 7.5  # Turing; older cards have no firmware that the open modules can use
OPEN_ONLY_FROM = 10.0  # Blackwell
LAST_BRANCH_BEFORE_TURING = 580
FIRST_BRANCH_OF_BLACKWELL = 570
FIRST_BRANCH_WITHOUT_SUFFIX = 590  # from it on Ubuntu's package names do not name the branch

KERNELS_OWN = ("nouveau", "nova_core")  # drivers of the kernel that hold NVIDIA's devices

# Boards whose NVSwitches are no devices of the bus: an InfiniBand subnet manager sets them up for the fabric manager.
_SUBNET = re.compile(r"\bB[123]00\b")
_FLAVOUR = re.compile(r"\d[\d.]*(?:~?rc\d+)?(?:\+[\w.]+)?(?:-\d+)?-(.+)$")


def branch_of(version: str) -> int:
    """The branch of a driver version, 580 for 580.95.05; 0 where it is none."""
    found = re.match(r"(\d{3})(\.|$)", version)
    return int(found[1]) if found else 0


def older(version: str, than: str) -> bool:
    """Whether a driver version is older than another."""
    return [int(part) for part in re.findall(r"\d+", version)] < [int(part) for part in re.findall(r"\d+", than)]


def flavour(kernel: str) -> str:
    """What a kernel package follows, as in V(cloud-amd64) for 6.1.0-50-cloud-amd64."""
    found = _FLAVOUR.match(kernel)
    return found[1] if found else ""


def kernels_own(driver: Mapping[str, Any]) -> list[str]:
    """Loaded modules of the kernel that hold the devices until the host restarts."""
    return [name for name in KERNELS_OWN if name in driver.get("loaded", [])]


def platform_key(hardware: Mapping[str, Any]) -> str:
    """The name under which a platform's packages are described; all rebuilds of Red Hat's share one."""
    os_facts = hardware.get("os", {})
    if os_facts.get("family") == "redhat":
        return f"redhat-{str(os_facts.get('version_id', '')).partition('.')[0]}"
    return str(hardware.get("platform", ""))


def kernel_words(kernel: str, manager: str) -> dict[str, str]:
    """What package names of headers are made of. Variants of EL's kernel are in the package's name, and last in the kernel's own."""
    release, _plus, variant = kernel.partition("+") if manager == "dnf" else (kernel, "", "")
    return {"kernel": release, "variant": f"-{variant}" if variant else "", "flavour": flavour(kernel)}


def kernels_to_serve(hardware: Mapping[str, Any]) -> list[str]:
    """Kernels that need modules: the running one and the newest one, which is likely to be started next.

    A container runs another system's kernel, so only what is installed in it counts.
    """
    driver = hardware.get("driver", {})
    installed = [entry["release"] for entry in driver.get("kernels", [])]
    running = str(hardware.get("os", {}).get("kernel", ""))
    wanted = [] if driver.get("container") else [running]
    return list(dict.fromkeys(name for name in [*wanted, *installed[-1:]] if name))


def kind_of_modules(wish: Mapping[str, Any], devices: list[Mapping[str, Any]]) -> tuple[str, list[str]]:
    """V(open) or V(proprietary), and what speaks against the devices having one driver."""
    capabilities = {str(device["name"]): float(device.get("compute_capability") or OPEN_FROM) for device in devices}
    old = sorted(name for name, number in capabilities.items() if number < OPEN_FROM)
    new = sorted(name for name, number in capabilities.items() if number >= OPEN_ONLY_FROM)
    wanted = str(wish.get("modules", "auto"))
    kind = wanted if wanted != "auto" else "proprietary" if old else "open"
    problems = []
    if old and new:
        problems.append(
            f"{', '.join(old)} needs the proprietary kernel modules and {', '.join(new)} the open ones: one host cannot have both."
        )
    elif kind == "open" and old:
        problems.append(f"nvidia_driver_modules is open, but {', '.join(old)} is older than Turing and needs the proprietary modules.")
    elif kind == "proprietary" and new:
        problems.append(f"nvidia_driver_modules is proprietary, but {', '.join(new)} works with the open modules only.")
    branch = branch_of(str(wish.get("branch", "")))
    if branch and wish.get("source") == "nvidia":
        if old and branch > LAST_BRANCH_BEFORE_TURING:
            problems.append(
                f"The driver branch {branch} does not know {', '.join(old)} any more: set nvidia_driver_branch to 580 or older."
            )
        if new and branch < FIRST_BRANCH_OF_BLACKWELL:
            problems.append(f"The driver branch {branch} does not know {', '.join(new)} yet: set nvidia_driver_branch to 580 or newer.")
    return kind, problems


def left_alone(hardware: Mapping[str, Any], wish: Mapping[str, Any]) -> str:
    """Why the host's driver is none of our business; empty when it is."""
    driver = hardware.get("driver", {})
    devices = [device for device in hardware.get("devices", []) if device.get("kind") == "cuda"]
    if not devices:
        return "there is no NVIDIA device that needs one"
    if driver.get("jetson"):
        return "this is a Jetson, whose driver is a part of its system image: update the image"
    if driver.get("container") and wish.get("container") != "install":
        return f"install the NVIDIA driver on the machine that this {driver['container']} container runs on"
    if driver.get("licensed_guest") or any(device.get("virtual") for device in devices):
        return "this is a virtual GPU, whose driver has to match the hypervisor's and comes with its licence"
    if "nvidia_vgpu_vfio" in driver.get("loaded", []):
        return "this host divides its GPUs among virtual machines (vGPU), its driver comes with that licence"
    return ""


def board_notes(devices: list[Mapping[str, Any]]) -> list[str]:
    """What an HGX board of Blackwell needs beside the driver, which the role does not install. One device may stand without its board."""
    names = sorted(str(device["name"]) for device in devices if _SUBNET.search(str(device["name"])))
    if len(names) < 2:
        return []
    return [
        f"An HGX board of {names[0]} needs nvidia-fabricmanager in the driver's version, nvlsm, and the kernel module ib_umad, which this"
        " role does not install: without them CUDA fails with 802 (system not yet initialized), though nvidia-smi lists every device."
    ]


def _names(entry: Mapping[str, Any], words: Mapping[str, str], key: str) -> list[str]:
    return [str(name).format(**words) for name in entry.get(key, [])]


def _wanted(hardware: Mapping[str, Any], wish: Mapping[str, Any], entry: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Packages, repository and locks for this host."""
    source, branch = str(wish["source"]), str(wish.get("branch", ""))
    suffix = f"-{branch}" if branch_of(branch) < FIRST_BRANCH_WITHOUT_SUFFIX else ""
    words = {"branch": branch, "suffix": suffix, "kind": "open" if kind == "open" else "dkms"}
    offered = entry.get(source, {})
    fabric = bool(hardware.get("driver", {}).get("nvswitches"))
    kernels = kernels_to_serve(hardware)
    of_kernels = [kernel_words(kernel, str(entry.get("manager", ""))) for kernel in kernels]
    # What makes a key for modules, and what enrols it.
    signing = ["mokutil", "openssl"] if hardware.get("driver", {}).get("secure_boot") else []
    folder = f"{str(wish.get('repository_url', '')).rstrip('/')}/{entry.get('repository', '')}/"
    folder += ARCHITECTURES.get(str(hardware.get("architecture", "")), "")
    return {
        "packages": _names(offered, words, kind) + (_names(offered, words, "fabric") if fabric else []),
        "companions": _names(offered, words, "companions") + _names(entry, words, "tools") + signing,
        "headers": [str(name).format(**one) for one in of_kernels for name in entry.get("headers", [])],
        # Keeps headers coming with new kernels; a kernel of one's own has no such package.
        "headers_meta": sorted(
            {
                str(name).format(**{**of_kernels[-1], "flavour": one["flavour"]})
                for one in of_kernels
                for name in entry.get("headers_meta", [])
            }
        ),
        "kernels": kernels,
        "fabric_manager": fabric,
        "module_stream": str(entry.get("module_stream", "")).format(**words) if source == "nvidia" else "",
        "lock": list(entry.get("lock", [])),
        "repository": {
            "url": folder,
            "key_url": f"{folder}/{entry.get('key', {}).get('file', '')}",
            "fingerprints": list(wish.get("key_fingerprints") or entry.get("key", {}).get("fingerprints", [])),
        },
    }


def _problems(hardware: Mapping[str, Any], wish: Mapping[str, Any], entry: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    problems = []
    source, driver = wish["source"], hardware.get("driver", {})
    if not wanted["packages"]:
        problems.append(f"{hardware.get('platform')} has no driver packages of its own: set nvidia_driver_source to nvidia.")
    elif wanted["fabric_manager"] and not entry.get(str(source), {}).get("fabric"):
        problems.append(
            f"The packages of {hardware.get('platform')} have no fabric manager, and the NVSwitches of this host need one in the driver's"
            " version: set nvidia_driver_source to nvidia."
        )
    if driver.get("installer"):
        problems.append(
            f"This host has a driver of NVIDIA's installer ({driver['installer']}), over which packages must not be installed: remove it"
            " (nvidia-uninstall), restart the host and run again."
        )
    if source == "nvidia" and not branch_of(str(wish.get("branch", ""))):
        problems.append(f"nvidia_driver_branch is '{wish.get('branch', '')}'; a branch is a number such as 580.")
    if source == "nvidia" and wish.get("manage_repository", True) and not (wanted["repository"]["fingerprints"] or wish.get("key")):
        problems.append(
            f"The fingerprint of the key of NVIDIA's repository for {hardware.get('platform')} is not known here: look it up with NVIDIA"
            " and set nvidia_driver_key_fingerprints, or give the key itself as nvidia_driver_key."
        )
    version = str(wish.get("version", ""))
    if version and source == "nvidia" and branch_of(version) != branch_of(str(wish.get("branch", ""))):
        problems.append(f"nvidia_driver_version {version} is not of the branch {wish.get('branch')} (nvidia_driver_branch).")
    if driver.get("secure_boot") and wish.get("secure_boot") == "refuse":
        problems.append(
            "Secure Boot is on, so modules that DKMS builds do not load before their key is enrolled, and nvidia_driver_secure_boot is"
            " refuse: set it to prepare, or switch Secure Boot off."
        )
    kernels = wanted["kernels"]
    if not kernels:
        problems.append("No kernel is installed on this host, so there is nothing that modules could be built for.")
    return problems


def _existing(hardware: Mapping[str, Any], wish: Mapping[str, Any]) -> tuple[str, str]:
    """Action and reason for a driver that answers; no action where none does."""
    versions = {
        str(device.get("driver_version", "")) for device in hardware["devices"] if device.get("kind") == "cuda" and device.get("driver")
    }
    version = next(iter(sorted(versions)), "")
    if not versions:
        return "", ""
    minimum, exact = str(wish.get("minimum", "")), str(wish.get("version", ""))
    behind = bool(version and exact and older(version, exact)) or (
        bool(version) and wish.get("source") == "nvidia" and 0 < branch_of(version) < branch_of(str(wish.get("branch", "")))
    )
    too_old = bool(version and minimum and older(version, minimum))
    if wish.get("upgrade") and (behind or too_old):
        return "upgrade", f"the driver {version} is replaced, because nvidia_driver_upgrade is true"
    if too_old:
        return "refuse", f"The driver {version} is older than {minimum} (nvidia_driver_minimum). Set nvidia_driver_upgrade to true."
    return "leave", f"the driver {version or 'of this host'} answers"


def _recorded(hardware: Mapping[str, Any], inputs: str, kernels: list[str]) -> tuple[str, str]:
    """Action and reason where this role has installed the driver before and no device answers; none where it has not."""
    driver = hardware.get("driver", {})
    record = driver.get("record", {})
    if record.get("inputs") != inputs or record.get("packages") != driver.get("packages"):
        return "", ""
    unbuilt = [kernel for kernel in kernels if kernel not in record.get("kernels", [])]
    if unbuilt:
        return "install", f"the driver {record.get('version')} has no modules for the kernel {', '.join(unbuilt)} yet"
    if driver.get("container"):
        return "leave", f"the driver {record.get('version')} is installed and kept; a container cannot load it"
    return "verify", f"the driver {record.get('version')} is installed, but no device answers"


def plan(hardware: Mapping[str, Any], wish: Mapping[str, Any], platforms: Mapping[str, Any]) -> dict[str, Any]:
    """The action with its reason, what it needs, and the problems that forbid it.

    Args:
        hardware: the host's facts.
        wish: the role's variables without their prefix.
        platforms: descriptions of packages by platform, which all have the same keys.
    """
    driver = hardware.get("driver", {})
    devices = [device for device in hardware.get("devices", []) if device.get("kind") == "cuda"]
    answer: dict[str, Any] = {"action": "leave", "problems": [], "notes": [], "modules": "", "kernels": [], "packages": [], "inputs": ""}
    answer["notes"] = board_notes(devices)
    if not wish.get("needed", True):
        return {**answer, "reason": "the plan uses no NVIDIA device"}
    undriven = any(device.get("driver") is False for device in devices)
    reason = left_alone(hardware, wish)
    if reason:
        return {**answer, "reason": reason, "problems": [reason] if undriven else []}
    action, reason = _existing(hardware, wish)
    if action == "leave":
        return {**answer, "reason": reason}
    wrong = [
        f"{name} is '{wish.get(key)}', which is none of {', '.join(allowed)}."
        for name, key, allowed in (("nvidia_driver_source", "source", SOURCES), ("nvidia_driver_modules", "modules", MODULES))
        if wish.get(key) not in allowed
    ]
    entry = platforms.get(platform_key(hardware))
    if entry is None:
        known = ", ".join(sorted(platforms))
        wrong.append(f"No driver packages are known for {hardware.get('platform', 'this system')}; they are for {known}.")
    if hardware.get("architecture") not in ARCHITECTURES:
        wrong.append(f"NVIDIA has no driver for the architecture {hardware.get('architecture') or 'unknown'} that this role could install.")
    if wrong or entry is None:
        return {**answer, "action": "refuse", "reason": wrong[0], "problems": wrong}
    kind, problems = kind_of_modules(wish, devices)
    if action == "upgrade" and driver.get("version") and wish.get("reboot") == "never":
        problems.append(
            f"The module {driver['version']} is loaded, and the libraries of another version do not work with it before a restart, which"
            " nvidia_driver_reboot never rules out: set it to auto or prompt, or nvidia_driver_upgrade to false."
        )
    wanted = _wanted(hardware, wish, entry, kind)
    problems = [*([reason] if action == "refuse" else []), *problems, *_problems(hardware, wish, entry, wanted)]
    branch = str(wish.get("branch", "")) if wish["source"] == "nvidia" else ""
    inputs = digest([wish["source"], branch, str(wish.get("version", "")), kind, wanted["packages"]], 12)
    if not action:
        action, reason = _recorded(hardware, inputs, wanted["kernels"])
    if not action:
        action, reason = "install", f"no driver serves {', '.join(str(device['name']) for device in devices)}"
    notes = list(answer["notes"])
    if driver.get("secure_boot"):
        notes.append("Secure Boot is on: the key that signs the modules has to be enrolled once on the console.")
    notes += [f"{name} is loaded: it is switched off, which takes effect with a restart." for name in kernels_own(driver)]
    return {
        **answer,
        **wanted,
        "action": "refuse" if problems else action,
        "reason": problems[0] if problems else reason,
        "problems": problems,
        "notes": notes,
        "source": wish["source"],
        "branch": branch,
        "version": str(wish.get("version", "")),
        "modules": kind,
        "manager": entry["manager"],
        "switched_off": kernels_own(driver),
        "inputs": inputs,
    }


def restart_reason(plan_: Mapping[str, Any], hardware: Mapping[str, Any], version: str) -> str:
    """Why the installed driver takes effect with a restart only; empty where its modules can be loaded as things are."""
    driver, running = hardware.get("driver", {}), str(hardware.get("os", {}).get("kernel", ""))
    if driver.get("container"):
        return ""
    for name in kernels_own(driver):
        return f"{name} is loaded"
    if driver.get("version") and driver["version"] != version:
        return f"the module {driver['version']} is loaded, and {version} is installed"
    if running not in plan_.get("kernels", []):
        return f"the kernel {running} is running, and the modules are for {', '.join(plan_.get('kernels', []))}"
    if running not in [entry["release"] for entry in driver.get("kernels", [])]:
        return f"the running kernel {running} is not installed any more"
    return ""
