# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host as a switch sees it: systemd, the journal, sockets, the disk."""

from __future__ import annotations

import contextlib
import ipaddress
import mmap
import os
import pathlib
import subprocess
import sys
import time

from .files import SwitchError

LOG_BYTES = 16 * 2**20
MIB = 2**20


class Systemd:
    """The few things a switch asks of systemd, for one instance's unit."""

    def __init__(self, instance: str, template: str = "llamacpp") -> None:
        self.unit = f"{template}@{instance}.service"

    @staticmethod
    def call(*argv: str, timeout: float = 300) -> str:
        """Run a command and return its output.

        :raises SwitchError: it failed; the reason is its last line.
        """
        try:
            done = subprocess.run(argv, capture_output=True, timeout=timeout, check=False, errors="replace")
        except subprocess.TimeoutExpired:
            raise SwitchError(f"{argv[0]} {argv[1]} did not return within {timeout:.0f} s") from None
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            raise SwitchError(f"{argv[0]} {argv[1]}: {lines[-1]}")
        return done.stdout

    def show(self, *more: str) -> dict[str, str]:
        """The unit's run-time properties, and those that are named."""
        names = ",".join(("ActiveState,SubState,MainPID,Result,ExecMainCode,ExecMainStatus,NRestarts,InvocationID", *more))
        lines = self.call("systemctl", "show", "--property", names, self.unit, timeout=30).splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def life(self) -> tuple[str, ...]:
        """Which run of its process the unit is in; another one when it ended meanwhile, restarted or not."""
        state = self.show()
        return tuple(state.get(name, "") for name in ("ActiveState", "MainPID", "NRestarts"))

    def reload(self) -> None:
        self.call("systemctl", "daemon-reload")

    def restart(self) -> None:
        # Clears the start limit too: starts that failed earlier must not count against this one.
        with contextlib.suppress(SwitchError):
            self.call("systemctl", "reset-failed", self.unit)
        try:
            self.call("systemctl", "restart", self.unit)
        except SwitchError as error:
            raise SwitchError(f"the server did not start ({death(self.show())}); {error}") from None

    def stop(self) -> None:
        self.call("systemctl", "stop", self.unit)
        with contextlib.suppress(SwitchError):
            self.call("systemctl", "reset-failed", self.unit)

    def enable(self, wanted: bool) -> None:
        self.call("systemctl", "--quiet", "enable" if wanted else "disable", self.unit)

    def log(self, invocation: str, last: int = 0) -> list[str]:
        """The first lines that one run of the unit's process wrote, or so many of its last; what systemd said of it when it wrote none.

        What a server has written in months need not fit into memory.
        """
        with contextlib.suppress(SwitchError):
            self.call("journalctl", "--sync", timeout=10)
        for field in ("_SYSTEMD_INVOCATION_ID", "INVOCATION_ID") if invocation else ():
            argv = ["journalctl", "--quiet", "--no-pager", "--output=cat", f"{field}={invocation}"]
            bounded = [*argv, f"--lines={last}"] if last else ["sh", "-c", f'"$@" | head --bytes={LOG_BYTES}', "sh", *argv]
            try:
                output = self.call(*bounded, timeout=60)
            except SwitchError as error:
                return [str(error)]
            if output.strip():
                return output.splitlines()
        return []


def bound_address(text: str) -> str:
    """An address as /proc/net/tcp writes it (32-bit words in host order), in the usual form."""
    words = [int(text[index : index + 8], 16).to_bytes(4, sys.byteorder) for index in range(0, len(text), 8)]
    return str(ipaddress.ip_address(b"".join(words)))


def listening(host: str, port: int, proc: pathlib.Path = pathlib.Path("/proc")) -> list[tuple[int, str]]:
    """The processes that stand in the way of listening on host and port, as (process id, program); id 0 when unseen."""
    everywhere = ("0.0.0.0", "::")
    wanted = [address.strip(" []") or "0.0.0.0" for address in host.split(",")]
    inodes = set()
    for table in ("net/tcp", "net/tcp6"):
        with contextlib.suppress(OSError):
            for line in (proc / table).read_text().splitlines()[1:]:
                fields = line.split()
                address, _colon, number = fields[1].rpartition(":")
                if fields[3] == "0A" and int(number, 16) == port:
                    bound = bound_address(address)
                    if bound in everywhere or bound in wanted or any(name in everywhere for name in wanted):
                        inodes.add(f"socket:[{fields[9]}]")
    if not inodes:
        return []
    found = []
    for process in proc.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if any(os.readlink(handle) in inodes for handle in (process / "fd").iterdir()):
                found.append((int(process.name), (process / "comm").read_text().strip()))
    return sorted(found) or [(0, "an unknown program")]


def part(done: int, whole: int) -> str:
    """So many bytes of so many, as an operator reads them."""
    scale, unit = (1e9, "GB") if whole >= 1e9 else (1e6, "MB")
    return f"{done / scale:.1f} of {whole / scale:.1f} {unit}"


def process_progress(pid: int, proc: pathlib.Path = pathlib.Path("/proc")) -> int:
    """About how many bytes of its model a loading server has taken in, from what the kernel counts."""
    values = [0]
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in (proc / str(pid) / "status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                values.append(int(line.split()[1]) * 1024)
        for line in (proc / str(pid) / "io").read_text().splitlines():
            if line.startswith(("rchar:", "read_bytes:")):
                values.append(int(line.split()[1]))
    return max(values)


def disk_speed(path: str, seconds: float = 2.0, limit: int = 256 * MIB) -> float:
    """Bytes a second that the disk under a file gives, past the page cache; 0.0 when that cannot be measured.

    A slow disk is measured too, if need be by the one block that it gives; only a file may be too small to tell.
    """
    block = 4 * MIB
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECT)
    except (OSError, AttributeError):
        return 0.0
    total, started = 0, time.monotonic()
    try:
        if os.fstat(handle).st_size < 4 * block:
            return 0.0
        with mmap.mmap(-1, block) as buffer:
            while total < limit and time.monotonic() - started < seconds:
                count = os.preadv(handle, [buffer], total)
                if count < block:
                    break
                total += count
    except OSError:
        return 0.0
    finally:
        os.close(handle)
    elapsed = time.monotonic() - started
    return total / elapsed if elapsed > 0 else 0.0


def death(state: dict[str, str]) -> str:
    """How a unit's main process ended, in words."""
    status, result = state.get("ExecMainStatus", "?"), state.get("Result", "")
    if result == "oom-kill":
        return "killed because memory ran out"
    if state.get("ExecMainCode") in ("2", "3"):
        return f"killed by signal {status}" + (" (often memory that ran out)" if status == "9" else "")
    return f"exit status {status}" + (f", systemd says {result}" if result not in ("", "success", "exit-code") else "")
