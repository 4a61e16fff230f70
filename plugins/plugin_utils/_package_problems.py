# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sentences about packages that could not be installed, from what apt and dnf say. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Optional

# Both also tell that they wait; that is a failure only where it is the last that was heard of them. Of an error of apt-get the module
# apt makes the end of a line.
_LOCKED = re.compile(
    r"E: ?Could not get lock|Failed to lock apt|Unable to acquire the dpkg frontend lock|frontend lock was locked by another process"
    r"|lockfile is held by another process"
    r"|Waiting for process with pid (\d+) to finish\W*\Z"
)
# Packages that are in a repository which a fresh system does not have
_ELSEWHERE = (
    (r"ninja-build", "ninja-build is in the repository CRB of Enterprise Linux 9 and 10: enable it (dnf config-manager --set-enabled crb)"),
    (r"nothing provides dkms", "dkms is in EPEL: enable that repository (dnf install epel-release)"),
    (r"nvidia-(kernel-common|installer-cleanup)", "Debian has that package in its section contrib: add it to the host's sources"),
)


def locked(said: str, timeout: str, holder: Optional[Mapping[str, Any]] = None) -> str:
    """A sentence about a package manager that another program holds; empty where it is free.

    Args:
        said: what the package manager said.
        timeout: the variable that says how long it is waited for.
        holder: C(name) and C(pid) of the program, where they are known.
    """
    found = _LOCKED.search(said)
    if not found:
        return ""
    who = "another program held it"
    if holder:
        who = f"{holder['name']} (PID {holder['pid']}) holds it"
    elif found[1]:
        who = f"the process {found[1]} holds it"
    return f"The package manager stayed locked for longer than {timeout}: {who}. Run again when it has ended."


def advice(said: str) -> str:
    """Where a package is that no repository of the host has; empty where that is not known."""
    if not re.search("No package|Unable to find a match|nothing provides|not installable|no installation candidate|Unable to locate", said):
        return ""
    return next((f" {words}." for pattern, words in _ELSEWHERE if re.search(pattern, said)), "")


def package_problem(said: str, timeout: str, holder: Optional[Mapping[str, Any]] = None) -> str:
    """What the package manager said, with the next step where one is known; of a lock that another program held its own sentence."""
    return locked(said, timeout, holder) or f"{' '.join(said.split())[-600:].rstrip('.')}.{advice(said)}"
