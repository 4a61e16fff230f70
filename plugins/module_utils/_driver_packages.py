# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What package managers of hosts say of packages: versions on offer, versions installed, who holds the lock."""

from __future__ import annotations

import os
import re
from typing import Any

from ansible_collections.onprem.llamacpp.plugins.module_utils._host import Run, read_text, run_command

OWN_LOCKS = r"onprem\.llamacpp\.nvidia_driver"
APT_LOCKS = ("/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock", "/var/lib/apt/lists/lock")
ROW = "%{{name}} %{{{epoch}}}:%{{version}}-%{{release}} %{{name}}-%{{version}}-%{{release}}.%{{arch}}\n"


def parse_madison(text: str) -> dict[str, list[str]]:
    """Versions on offer by package, newest first, from ``apt-cache madison``."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) >= 3 and cells[1] not in found.setdefault(cells[0], []):
            found[cells[0]].append(cells[1])
    return found


def _row(line: str) -> list[str]:
    """Name and version of a package of RPM. Several kernels stand side by side, so their packages have their whole name."""
    name, version, whole = [*line.split(), "", "", ""][:3]
    # Keys of repositories are listed like packages.
    return [whole if name.startswith("kernel") else name, version] if whole and name != "gpg-pubkey" else []


def parse_rows(text: str) -> dict[str, list[str]]:
    """Versions on offer by package, newest first, from lines of name, version and whole name, oldest first."""
    found: dict[str, list[str]] = {}
    for name, version in filter(None, map(_row, text.splitlines())):
        found.setdefault(name, []).insert(0, version)
    return found


def parse_dpkg(text: str) -> dict[str, dict[str, Any]]:
    """Installed packages with version, whether they are whole and whether they are held, from ``dpkg-query``."""
    found = {}
    for line in text.splitlines():
        cells = line.split()
        if len(cells) == 3 and cells[2][1] not in "nc":
            found[cells[0]] = {"version": cells[1], "whole": cells[2][1:] == "i", "held": cells[2][0] == "h"}
    return found


def locked_names(text: str) -> set[str]:
    """Packages that the version lock of dnf names, without those that the role nvidia_driver has locked itself."""
    others = re.sub(rf"^# BEGIN {OWN_LOCKS}$.*?^# END {OWN_LOCKS}$", "", text, flags=re.MULTILINE | re.DOTALL)
    return {found[1] for found in map(re.compile(r"([^!#\s]\S*?)-\d").match, others.splitlines()) if found}


def parse_rpm(text: str, locked: str) -> dict[str, dict[str, Any]]:
    """Installed packages, from ``rpm -qa`` and the text of the version lock."""
    held = locked_names(locked)
    rows = filter(None, map(_row, text.splitlines()))
    return {name: {"version": version, "whole": True, "held": name in held} for name, version in rows}


def holder(paths: tuple[str, ...] = APT_LOCKS, locks: str = "/proc/locks") -> dict[str, Any]:
    """The process that holds a lock of the package manager: pid and name; empty where nobody does."""
    wanted = {}
    for path in paths:
        try:
            status = os.stat(path)
        except OSError:
            continue
        wanted[status.st_ino] = path
    for line in read_text(locks).splitlines():
        # 1: POSIX  ADVISORY  WRITE 4242 fe:00:1234 0 EOF; waiting ones have an arrow
        cells = line.split()
        inode = cells[5].rpartition(":")[2] if len(cells) > 5 and "->" not in cells else ""
        if inode.isdigit() and int(inode) in wanted:
            name = read_text(f"/proc/{cells[4]}/comm").strip() or "a process"
            return {"pid": int(cells[4]), "name": name, "path": wanted[int(inode)]}
    return {}


def collect(manager: str, names: list[str], run: Run = run_command) -> dict[str, Any]:
    """Packages on offer and installed, what the package manager says where it cannot read repositories, and the lock's holder.

    Args:
        manager: ``apt`` or ``dnf``.
        names: packages whose versions on offer are told.
        run: runs a program.
    """
    if manager == "dnf":
        # The lock hides other versions from queries too.
        query = ["dnf", "-q", "--disableplugin=versionlock", "repoquery", "--available", "--qf", ROW.format(epoch="epoch")]
        status, offered, said = run([*query, *names]) if names else (0, "", "")
        rows = run(["rpm", "-qa", "--qf", ROW.format(epoch="epochnum")])[1]
        return {
            "available": parse_rows(offered),
            "installed": parse_rpm(rows, read_text("/etc/dnf/plugins/versionlock.list")),
            # Names that no repository has are no failure.
            "unread": " ".join(said.split())[-400:] or f"dnf ended with status {status}" if status else "",
            "holder": {},
        }
    offered = run(["apt-cache", "madison", *names])[1] if names else ""
    rows = run(["dpkg-query", "-W", "-f", "${Package} ${Version} ${db:Status-Abbrev}\n"])[1]
    return {"available": parse_madison(offered), "installed": parse_dpkg(rows), "unread": "", "holder": holder()}
