# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which versions of a driver's packages are installed together, and how a failed installation is taken back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.onprem.llamacpp.plugins.plugin_utils._driver import branch_of

_UPSTREAM = re.compile(r"(?:^|[:\s])(\d{3}\.\d+(?:\.\d+)?)")

SEPARATORS = {"apt": "=", "dnf": "-"}  # between a package and the version that is wanted of it

_UNSIGNED = re.compile(r"GPG signature|GPG check|public key for \S+ is not installed", re.IGNORECASE)
_REPOSITORY = (
    (r"NO_PUBKEY|public key is not available", "is signed with another key than the one that is installed for it"),
    (r"is not signed|BADSIG|EXPKEYSIG|invalid signature|GPG check FAILED|not signed", "has no signature that its key confirms"),
    (r"Could not resolve|Temporary failure|Name or service not known|Cannot resolve", "cannot be found: its name has no address"),
    (r"Connection refused|Could not connect|timed out|Network is unreachable|No route|Failed to connect", "does not answer"),
    (r"404|Not Found|does not have a Release file", "is not there (404)"),
)


def upstream(version: str) -> str:
    """The driver's own version in that of a package: 580.95.05 in 3:580.95.05-1.el9."""
    found = _UPSTREAM.search(version)
    return found[1] if found else ""


def _key(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def _fitting(versions: list[str], branch: str, exact: str) -> dict[str, str]:
    """The package version of each driver version that is wanted; the first of several is the newest."""
    found: dict[str, str] = {}
    for version in versions:
        own = upstream(version)
        if own and (not exact or own == exact) and (not branch or branch_of(own) == branch_of(branch)):
            found.setdefault(own, version)
    return found


def offered(names: list[str], available: Mapping[str, list[str]]) -> list[str]:
    """Names with the first of several alternatives (V(a|b)) that is on offer, or the first of all."""
    return [next((one for one in name.split("|") if available.get(one)), name.split("|")[0]) for name in names]


def _headers_to_come(plan: Mapping[str, Any], known: Mapping[str, Any]) -> list[str]:
    """Packages that bring headers along with each new kernel, in the version of what brings the kernels.

    In a newer one they bring headers of a kernel that the host does not have, for which the modules would be compiled too.
    """
    wanted = []
    for name in plan["headers_meta"]:
        versions, kernels = known["available"].get(name, []), known["installed"].get(name.replace("-headers-", "-image-"), {})
        # No kernel comes by itself where that package is not installed; those of RPM name their kernel.
        if not versions or name in known["installed"] or not (kernels or plan["manager"] == "dnf"):
            continue
        same = kernels.get("version") in versions
        wanted.append(f"{name}{SEPARATORS[plan['manager']]}{kernels['version']}" if same else name)
    return wanted


def choose(plan: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Versions to install: the newest driver that all its packages have, and what speaks against it.

    Args:
        plan: the plan of the driver.
        known: C(available) and C(installed) packages of the host.
    """
    available, installed = known["available"], known["installed"]
    names = offered(plan["packages"], available)
    what = plan["version"] or (f"branch {plan['branch']}" if plan["branch"] else "driver")
    fitting = {name: _fitting(available.get(name, []), plan["branch"], plan["version"]) for name in names}
    problems = []
    for name, versions in fitting.items():
        if not versions:
            others = sorted({upstream(version) for version in available.get(name, [])} - {""}, key=_key)
            there = f"on offer: {', '.join(others)}" if others else "no repository of this host has the package"
            problems.append(f"The package {name} of the {what} is missing: {there}.")
    shared = set.intersection(*(set(versions) for versions in fitting.values())) if fitting and not problems else set()
    if not shared and not problems:
        lists = "; ".join(f"{name}: {', '.join(versions)}" for name, versions in fitting.items())
        problems.append(f"No version is on offer for all packages of the {what}, and they must not be mixed ({lists}).")
    version = max(shared, key=_key) if shared else ""
    packages = {name: fitting[name][version] for name in names} if version else {}
    for name, wanted in packages.items():
        here = installed.get(name, {})
        if here.get("held") and here.get("version") != wanted:
            release = "apt-mark unhold" if plan["manager"] == "apt" else "dnf versionlock delete"
            problems.append(f"{name} is held at {here['version']}, and {wanted} is wanted: release it ({release} {name}) or keep it.")
    headers = [name for name in plan["headers"] if name not in installed and not available.get(name)]
    for name in headers:
        problems.append(
            f"The headers {name} are missing: no repository of this host has them. Restart into an installed kernel, or add the repository."
        )
    separator = SEPARATORS[plan["manager"]]
    # Companions come in the driver's version where they have it, Debian's persistence daemon for one does not.
    exact = dict(packages)
    for name in offered(plan["companions"], available):
        same = _fitting(available.get(name, []), "", version) if version else {}
        if same or available.get(name) or name in installed:
            exact[name] = same.get(version, "")
    return {
        "version": version,
        "packages": packages,
        "install": [f"{name}{separator}{wanted}" if wanted else name for name, wanted in exact.items()],
        "headers": plan["headers"] + _headers_to_come(plan, known),
        "problems": problems,
    }


def undo(before: Mapping[str, Any], after: Mapping[str, Any], manager: str) -> dict[str, list[str]]:
    """What takes a failed installation back: packages that are new, and those that had another version.

    Args:
        before: the C(installed) packages of the host then.
        after: those of now.
        manager: V(apt) or V(dnf).
    """
    # What an interrupted run has left half installed is of no use either.
    fresh = sorted(name for name, now in after.items() if name not in before or not (before[name]["whole"] or now["whole"]))
    changed = [
        f"{name}{SEPARATORS[manager]}{was['version']}"
        for name, was in sorted(before.items())
        if name not in fresh
        and (after.get(name, {}).get("version") != was["version"] or (was["whole"] and not after.get(name, {}).get("whole")))
    ]
    return {"purge": fresh, "reinstall": changed}


def _locked(said: str, holder: Mapping[str, Any]) -> str:
    """A sentence about a package manager that another program holds; empty where it is free."""
    if not re.search(r"^E: ?Could not get lock|E:Could not get lock|Failed to lock apt", said, re.MULTILINE):
        return ""
    who = f"{holder['name']} (PID {holder['pid']}) holds it" if holder else "another program held it"
    return f"The package manager stayed locked for longer than nvidia_driver_package_timeout: {who}. Run again when it has ended."


def repository_problem(said: str, url: str, holder: Mapping[str, Any]) -> str:
    """A sentence about a repository that cannot be read, from what the package manager said."""
    what = next((words for pattern, words in _REPOSITORY if re.search(pattern, said, re.IGNORECASE)), "cannot be read")
    return _locked(said, holder) or (
        f"The package repository {url} {what}. Set nvidia_driver_repository_url to one that this host reaches, such as a mirror of your"
        f" own, and nvidia_driver_key_fingerprints to its key. The package manager said: {' '.join(said.split())[-400:]}"
    )


def install_problem(said: str, plan: Mapping[str, Any], version: str, known: Mapping[str, Any]) -> str:
    """A sentence about an installation that failed and was taken back.

    Args:
        said: what the package manager said.
        plan: the plan of the driver.
        version: the driver version.
        known: C(holder) and C(diagnosis) of the host after the failure.
    """
    locked = _locked(said, known.get("holder", {}))
    if locked:
        return locked
    what = f"The driver {version} ({plan['modules']} modules, {plan['source']}) cannot be installed and was taken back."
    unsigned = next((line.strip() for line in said.splitlines() if _UNSIGNED.search(line)), "")
    if unsigned:
        return f"{what} A package has no signature that the repository's key confirms: {unsigned}. Take another repository, or its key."
    found = known.get("diagnosis", {})
    built = re.search("dkms|kernel headers", said, re.IGNORECASE)
    if found.get("cause") == "compile" or (built and found.get("cause") in ("headers", "build")):
        others = ["nvidia_driver_source nvidia"] if plan["source"] == "distribution" else ["another nvidia_driver_branch"]
        others += ["nvidia_driver_modules proprietary"] if plan["modules"] == "open" else []
        cause = found["sentence"].partition(" nvidia-smi lists")[0]
        return f"{what} {cause} Take {', '.join(others)}, or a kernel that this driver knows."
    lines = [line for line in said.splitlines() if re.match(r"(E|Error|Problem|dpkg): |\s*- (nothing|conflicting|package)", line)]
    return f"{what} The package manager said: {' '.join((lines or said.splitlines())[-4:])[-600:]}"
