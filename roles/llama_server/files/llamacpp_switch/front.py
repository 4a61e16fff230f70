# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The front, an nginx before the engine: where it sends requests, whether it takes any, and how many are under way.

Where requests go is one line of a file that nginx includes; whether any are taken is the presence of a file that nginx looks for
at every request. Without a front nothing here does anything.
"""

from __future__ import annotations

import contextlib
import pathlib
import re
import time
from typing import Callable

from .files import Layout, SwitchError, remove_file, write_text
from .host import Systemd

NGINX = "nginx.service"
WORKER, LEAVING = "nginx: worker process", "nginx: worker process is shutting down"
ESTABLISHED = "01"
LOOPBACK = "0100007F"
POLL_SECONDS = 0.2
SETTLE_SECONDS = 20
# A request that an old worker had begun to receive reaches the engine within this time, or never.
QUIET_SECONDS = 10

_SERVER = re.compile(r"^server 127\.0\.0\.1:(\d+);$", re.MULTILINE)


class Front:
    """The front of one instance."""

    def __init__(self, layout: Layout, proc: pathlib.Path = pathlib.Path("/proc"), call: Callable[..., str] = Systemd.call) -> None:
        self.layout, self.proc, self._call = layout, proc, call
        self._upstream = layout.front / "upstream.conf"

    @property
    def present(self) -> bool:
        """Whether the instance has one."""
        return self._upstream.is_file()

    @property
    def port(self) -> int:
        """The port of the engine that requests go to; 0 without a front."""
        with contextlib.suppress(OSError):
            found = _SERVER.search(self._upstream.read_text(encoding="utf-8"))
            return int(found[1]) if found else 0
        return 0

    @property
    def drained(self) -> bool:
        """Whether it refuses new requests."""
        return self.layout.drained.exists()

    def drain(self, by: str = "") -> None:
        """Refuse new requests and let the health page say so; those under way go on.

        :param by: who wishes it, empty for an operator. What an operator has wished stays an operator's.
        """
        if self.present and (not self.drained or not by):
            write_text(self.layout.drained, by)

    def undrain(self, by: str = "") -> None:
        """Take requests again: an operator in any case, others when it was their wish."""
        with contextlib.suppress(FileNotFoundError):
            if not by or self.layout.drained.read_text(encoding="utf-8") == by:
                remove_file(self.layout.drained)

    def point(self, port: int) -> bool:
        """Send new requests to the engine on another port; those under way stay where they are. Whether that changed anything.

        When this returns, no worker of nginx sends anything to the port before any more, but for requests that it is receiving.

        :raises SwitchError: nginx refuses its configuration; the old port is kept.
        """
        before = self.port
        if not self.present or before == port:
            return False
        master = self._master()
        write_text(self._upstream, f"server 127.0.0.1:{port};\n")
        # One that does not run reads the file when it starts; at boot its addresses may not be there yet to be checked.
        if master:
            try:
                self._call("nginx", "-t", "-q")
                self._reload(master)
            except SwitchError:
                write_text(self._upstream, f"server 127.0.0.1:{before};\n")
                # It may have read the new port by now.
                with contextlib.suppress(SwitchError):
                    self._reload(master)
                raise
        return True

    def running(self, port: int) -> int:
        """How many requests are under way to the engine on a port. nginx opens a connection for each and keeps none."""
        wanted, count = f"{LOOPBACK}:{port:04X}", 0
        with contextlib.suppress(OSError):
            for line in (self.proc / "net/tcp").read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                count += fields[1] == wanted and fields[3] == ESTABLISHED
        return count

    def wait_idle(self, port: int, seconds: float, tell: Callable[[str], None]) -> int:
        """Wait until no request is under way to the engine on a port; how many still are when the seconds are over."""
        end, quiet = time.monotonic() + seconds, 0.0
        while True:
            left = self.running(port)
            if left:
                quiet = 0.0
                tell(f"waiting for {left} requests that are under way")
            else:
                quiet = quiet or time.monotonic()
                if not self._workers(LEAVING) or time.monotonic() - quiet >= QUIET_SECONDS:
                    return 0
            if time.monotonic() >= end:
                return left
            time.sleep(POLL_SECONDS)

    def _master(self) -> int:
        """The process id of the host's own nginx; 0 when it does not run."""
        shown = self._call("systemctl", "show", "--property=MainPID", "--value", NGINX).strip()
        return int(shown) if shown.isdecimal() else 0

    def _workers(self, title: str, master: int = 0) -> set[int]:
        """Process ids of workers with this title: those of one master, or with 0 those of every nginx, in containers too."""
        found = set()
        for process in self.proc.glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (process / "cmdline").read_bytes().rstrip(b"\0 ").decode(errors="replace") != title:
                    continue
                if not master or f"\nPPid:\t{master}\n" in (process / "status").read_text(encoding="utf-8", errors="replace"):
                    found.add(int(process.name))
        return found

    def _reload(self, master: int) -> None:
        """Let nginx read its configuration, and wait until its old workers have stopped listening and others have taken over."""
        old = self._workers(WORKER, master)
        self._call("systemctl", "reload", NGINX)
        end = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < end:
            listening = self._workers(WORKER, master)
            if listening and not listening & old:
                return
            time.sleep(POLL_SECONDS)
        raise SwitchError(f"nginx did not take its configuration over within {SETTLE_SECONDS} s: see journalctl -u {NGINX}")
