# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which versions of a driver's packages are installed together, and how a failed installation is taken back."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Callable

from ansible_collections.onprem.llamacpp.plugins.plugin_utils._driver import branch_of
from ansible_collections.onprem.llamacpp.plugins.plugin_utils._package_problems import advice, locked

_UPSTREAM = re.compile(r"(?:^|[:\s])(\d{3}\.\d+(?:\.\d+)?)")

SEPARATORS = {"apt": "=", "dnf": "-"}  # between a package and the version that is wanted of it

_ADDRESS = re.compile(r"\b(?:https?|file|ftp)://[^\s'\"<>()\[\]]+")
_UNREAD = "The host's package repositories cannot be read, so what they offer is not known: {}. Mend or switch off the one that is named."
_TIMEOUT = "nvidia_driver_package_timeout"
_TOUCHED = re.compile(r"(?:Inst|Conf|Remv|Purg) ([^\s:]+)")  # how apt-get --simulate begins its lines
_KERNEL = re.compile(r"(?!nvidia)(?:linux-(?:image|modules)|(?:\w+-)?kernel)(?!.*(?:devel|headers|tools|nvidia))")
_UNSIGNED = re.compile(r"GPG signature|GPG check|public key for \S+ is not installed", re.IGNORECASE)
_REPOSITORY = (
    (r"NO_PUBKEY|public key is not available", "is signed with another key than the one that is installed for it"),
    (r"is not signed|BADSIG|EXPKEYSIG|invalid signature|GPG check FAILED|not signed", "has no signature that its key confirms"),
    (r"Could(n't| not) resolve|Temporary failure|Name or service not known|Cannot resolve", "cannot be found: its name has no address"),
    (
        r"Connection refused|Could(n't| not) connect|timed out|Timeout was reached|Network is unreachable|No route|Failed to connect",
        "does not answer",
    ),
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


def offered(names: list[str], available: Mapping[str, list[str]], fits: Callable[[list[str]], Any]) -> list[str]:
    """Names with the first of several alternatives (V(a|b)) that is on offer in a version that fits, else in any, else the first."""

    def first(alternatives: list[str]) -> str:
        there = [name for name in alternatives if available.get(name)]
        return next((name for name in there if fits(available[name])), [*there, *alternatives][0])

    return [first(name.split("|")) for name in names]


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


def _held(plan: Mapping[str, Any], exact: Mapping[str, str], installed: Mapping[str, Any], version: str) -> list[str]:
    """What speaks against the versions: packages of the driver, libraries that come along included, that are held in another one."""
    release = "apt-mark unhold" if plan["manager"] == "apt" else "dnf versionlock delete"
    problems = []
    for name, here in sorted(installed.items()):
        along = bool(upstream(here["version"])) and any(fnmatchcase(name, pattern) for pattern in plan.get("lock", []))
        wanted = exact.get(name) or (version if version and along and name not in exact else "")
        if here["held"] and wanted and wanted not in (here["version"], upstream(here["version"])):
            problems.append(f"{name} is held at {here['version']}, and {wanted} is wanted: release it ({release} {name}) or keep it.")
    return problems


def choose(plan: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Versions to install: the newest driver that all its packages have, and what speaks against it.

    Args:
        plan: the plan of the driver.
        known: C(available) and C(installed) packages of the host, and what C(unread) says of repositories that cannot be read.
    """
    available, installed = known["available"], known["installed"]
    names = offered(plan["packages"], available, lambda versions: _fitting(versions, plan["branch"], plan["version"]))
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
    if plan["manager"] == "dnf" and "dkms" in plan["companions"] and not (available.get("dkms") or "dkms" in installed):
        problems.append(
            "dkms, which compiles the modules, is missing: no repository of this host has it. It is in EPEL: enable that repository"
            " (dnf install epel-release)."
        )
    headers = [name for name in plan["headers"] if name not in installed and not available.get(name)]
    for name in headers:
        problems.append(
            f"The headers {name} are missing: no repository of this host has them. Restart into an installed kernel, or add the repository."
        )
    separator = SEPARATORS[plan["manager"]]
    # Companions come in the driver's version where they have it, Debian's persistence daemon for one does not.
    exact = dict(packages)
    for name in offered(plan["companions"], available, lambda versions: _fitting(versions, "", version)):
        same = _fitting(available.get(name, []), "", version) if version else {}
        if same or available.get(name) or name in installed:
            exact[name] = same.get(version, "")
    problems += _held(plan, exact, installed, version)
    return {
        "version": version,
        "packages": packages,
        "install": [f"{name}{separator}{wanted}" if wanted else name for name, wanted in exact.items()],
        "headers": plan["headers"] + _headers_to_come(plan, known),
        # What is missing then is not known.
        "problems": [_UNREAD.format(known["unread"])] if known.get("unread") else problems,
    }


def locks(plan: Mapping[str, Any], installed: Mapping[str, Any], version: str) -> dict[str, str]:
    """Versions of the packages that have come in the driver's version, libraries and companions included: those that dnf locks by name.

    The pin of apt has patterns, so it needs none.
    """
    if plan["manager"] == "apt":
        return {}
    return {
        name: str(entry["version"])
        for name, entry in sorted(installed.items())
        if upstream(entry["version"]) == version and any(fnmatchcase(name, pattern) for pattern in plan["lock"])
    }


def unbuilt(plan: Mapping[str, Any], states: list[Mapping[str, str]], version: str) -> list[dict[str, str]]:
    """Modules of this version that DKMS has not installed for each kernel that they serve: name and kernel.

    None where DKMS knows no module of the version, as with empty packages or modules that come compiled.
    """
    own = [state for state in states if state["version"] == version]
    done = {(state["name"], state["kernel"]) for state in own if state["state"].startswith("installed")}
    return [
        {"name": name, "kernel": kernel}
        for name in sorted({state["name"] for state in own})
        for kernel in plan["kernels"]
        if (name, kernel) not in done
    ]


def erased(results: list[str], plan: Mapping[str, Any]) -> list[str]:
    """Packages that would have to go for the driver and are none of it, such as what another repository builds against a driver.

    Args:
        results: what the module dnf says it would do.
        plan: the plan of the driver.
    """
    names: dict[str, set[str]] = {"Installed": set(), "Removed": set()}
    for line in results:
        word, _colon, whole = line.partition(": ")
        names.setdefault(word, set()).add(whole.rsplit("-", 2)[0])
    # What is upgraded is told as removed and installed.
    gone = names["Removed"] - names["Installed"]
    return sorted(name for name in gone if not any(fnmatchcase(name, pattern) for pattern in plan["lock"]))


def touched(choice: Mapping[str, Any], simulated: list[str], trial: list[str]) -> list[str]:
    """Packages that an installation brings, replaces or takes, those that come along included.

    Args:
        choice: what M(choose) gives.
        simulated: what apt says that it would do.
        trial: what the module dnf says that it would do.
    """
    names = {spec.partition("=")[0] for spec in [*choice["headers"], *choice["install"]]}
    names.update(found[1] for said in simulated for found in map(_TOUCHED.match, said.splitlines()) if found)
    for line in trial:
        whole = line.partition(": ")[2]
        # Several kernels stand side by side, so their packages are known by their whole name.
        names.add(re.sub(r"-\d+:", "-", whole) if whole.startswith("kernel") else whole.rsplit("-", 2)[0])
    return sorted(names)


def kernels(names: list[str]) -> list[str]:
    """Those of the packages that are a kernel, without its headers."""
    return [name for name in names if _KERNEL.match(name)]


def undo(before: Mapping[str, Any], after: Mapping[str, Any], manager: str, own: list[str], said: str = "") -> dict[str, list[str]]:
    """What takes a failed installation back: packages that are new, and those that had another version.

    Args:
        before: the C(installed) packages of the host then.
        after: those of now.
        manager: V(apt) or V(dnf).
        own: what M(touched) gives; other packages are what others have changed meanwhile.
        said: what the package manager said. Where it was locked, what has changed is the other program's work.
    """
    if locked(said, _TIMEOUT):
        return {"purge": [], "reinstall": []}
    # What an interrupted run has left half installed is of no use either.
    fresh = sorted(
        name for name, now in after.items() if name in own and (name not in before or not (before[name]["whole"] or now["whole"]))
    )
    changed = [
        f"{name}{SEPARATORS[manager]}{was['version']}"
        for name, was in sorted(before.items())
        if name in own
        and name not in fresh
        and (after.get(name, {}).get("version") != was["version"] or (was["whole"] and not after.get(name, {}).get("whole")))
    ]
    return {"purge": fresh, "reinstall": changed}


def repository_problem(said: str, url: str, holder: Mapping[str, Any], source: str = "nvidia", added: Sequence[str] = ()) -> str:
    """A sentence about a repository that cannot be read.

    Args:
        said: what the package manager said.
        url: the repository.
        holder: the program that holds the package manager.
        source: V(nvidia) or V(distribution), which decides about the next step.
        added: the distribution's repositories that the role has added itself.
    """
    what = next((words for pattern, words in _REPOSITORY if re.search(pattern, said, re.IGNORECASE)), "cannot be read")
    told = [found.rstrip(".,:;/") for found in _ADDRESS.findall(said)]
    strange = bool(told) and not any(_below(found, url) for found in told)
    own = strange and any(_below(told[0], one) for one in added if one)
    if strange and (own or source == "distribution"):
        url, source = told[0], "distribution"
    elif strange:
        return locked(said, _TIMEOUT, holder) or (
            f"The package repository {told[0]}, one of the host's own, {what}, and with it the package manager reads no new lists: mend it"
            f" or switch it off, and run again. The package manager said: {' '.join(said.split())[-400:]}"
        )
    step = (
        "Set nvidia_driver_repository_url to one that this host reaches, such as a mirror of your own, and nvidia_driver_key_fingerprints"
        " to its key."
        if source == "nvidia"
        else "The role has added it: set nvidia_driver_distribution_url and nvidia_driver_distribution_security_url to mirrors that this"
        ' host reaches, or to "" where its own sources have the section contrib.'
        if own
        else "See the host's own list of sources, and nvidia_driver_distribution_url where the role adds Debian's."
    )
    return locked(said, _TIMEOUT, holder) or (
        f"The package repository {url} {what}. {step} The package manager said: {' '.join(said.split())[-400:]}"
    )


def _below(address: str, url: str) -> bool:
    return f"{address}/".startswith(f"{url.rstrip('/')}/")


def undo_problem(said: str, wanted: Mapping[str, list[str]]) -> str:
    """What is left to be done by hand where a failed installation could not be taken back.

    Args:
        said: what failed when it was taken back.
        wanted: what M(undo) gives.
    """
    steps = [f"remove {' '.join(wanted['purge'])}"] if wanted["purge"] else []
    steps += [f"install {' '.join(wanted['reinstall'])} again"] if wanted["reinstall"] else []
    by_hand = f" Do it by hand: {', and '.join(steps)}." if steps else ""
    return f"It could not be taken back whole either: {' '.join(said.split())[-400:].rstrip('.')}.{by_hand}"


def install_problem(said: str, plan: Mapping[str, Any], version: str, known: Mapping[str, Any], left: str = "") -> str:
    """A sentence about an installation that failed, and was taken back unless something is left of it.

    Args:
        said: what the package manager said.
        plan: the plan of the driver.
        version: the driver version.
        known: C(holder) and C(diagnosis) of the host after the failure.
        left: what M(undo_problem) says.
    """
    sentence = locked(said, _TIMEOUT, known.get("holder", {})) or _failed(said, plan, version, known, taken_back=not left)
    return f"{sentence} {left}".rstrip()


def _failed(said: str, plan: Mapping[str, Any], version: str, known: Mapping[str, Any], taken_back: bool) -> str:
    what = f"The driver {version} ({plan['modules']} modules, {plan['source']}) cannot be installed{' and was taken back' * taken_back}."
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
    return f"{what} The package manager said: {' '.join((lines or said.splitlines())[-4:])[-600:]}{advice(said)}"
