# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes on a host: the units that they belong to, and who listens where."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import socket
import struct
from typing import Any

from ansible_collections.onprem.llamacpp.plugins.module_utils._host import read_text


def process_unit(pid: int, proc: str = "/proc") -> str:
    """The systemd unit a process belongs to, or nothing."""
    found = re.findall(r"([^/\s]+\.(?:service|scope))", read_text(os.path.join(proc, str(pid), "cgroup")))
    return found[-1] if found else ""


def is_our_server(pid: int, proc: str = "/proc") -> bool:
    """Whether a process runs in one of our instances' units; during a switch there may be two for one instance."""
    return process_unit(pid, proc).startswith(("llamacpp@", "llamacpp-beside@"))


def _address(text: str) -> str:
    raw = bytes.fromhex(text)
    words = struct.unpack(f"<{len(raw) // 4}I", raw)
    packed = struct.pack(f">{len(words)}I", *words)
    return socket.inet_ntop(socket.AF_INET6 if len(packed) == 16 else socket.AF_INET, packed)


def listeners(ports: list[int], proc: str = "/proc") -> list[dict[str, Any]]:
    """Who listens on the TCP ports asked for; the process is 0 where it may not be seen."""
    found: dict[str, dict[str, Any]] = {}
    for name in ("net/tcp", "net/tcp6"):
        for line in read_text(os.path.join(proc, name)).splitlines()[1:]:
            fields = line.split()
            if len(fields) < 10 or fields[3] != "0A":
                continue
            address, port = fields[1].split(":")
            if int(port, 16) in ports:
                found[fields[9]] = {"address": _address(address), "port": int(port, 16), "pid": 0, "program": "", "unit": ""}
    if not found:
        return []
    for link in glob.iglob(os.path.join(proc, "[0-9]*", "fd", "*")):
        try:
            target = os.readlink(link)
        except OSError:
            continue
        inode = target[8:-1] if target.startswith("socket:[") else ""
        if inode in found and not found[inode]["pid"]:
            pid = int(link.split(os.sep)[-3])
            program = read_text(os.path.join(proc, str(pid), "comm")).strip()
            found[inode].update(pid=pid, program=program, unit=process_unit(pid, proc))
    return sorted(found.values(), key=lambda entry: (entry["port"], entry["address"]))


def holders(folders: list[str], proc: str = "/proc") -> dict[str, list[dict[str, Any]]]:
    """The programs that have a file below one of some folders open or mapped, by folder; those of others are seen by root alone."""
    inodes: dict[tuple[str, int], str] = {}
    for folder in folders:
        for path, _folders, files in os.walk(folder):
            for name in files:
                with contextlib.suppress(OSError):
                    inodes[name, os.stat(os.path.join(path, name)).st_ino] = folder
    found: dict[str, list[dict[str, Any]]] = {folder: [] for folder in folders}
    names = {name for name, _inode in inodes}
    for process in glob.iglob(os.path.join(proc, "[0-9]*")):
        for folder in sorted({inodes[key] for key in _open_files(process, names) & inodes.keys()}):
            pid = int(os.path.basename(process))
            program = read_text(os.path.join(process, "comm")).strip()
            found[folder].append({"pid": pid, "program": program, "unit": process_unit(pid, proc)})
    return found


def _open_files(process: str, names: set[str]) -> set[tuple[str, int]]:
    """Name and inode of the files of some names that a process has open or mapped. Paths differ between mount namespaces."""
    found = set()
    for line in read_text(os.path.join(process, "maps")).splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and os.path.basename(fields[5]) in names:
            found.add((os.path.basename(fields[5]), int(fields[4])))
    for handle in glob.iglob(os.path.join(process, "fd", "*")):
        with contextlib.suppress(OSError):
            name = os.path.basename(os.readlink(handle))
            if name in names:
                found.add((name, os.stat(handle).st_ino))
    return found
