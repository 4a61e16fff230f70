# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The running server of an instance: what systemd and its own health page say about it."""

from __future__ import annotations

import http.client
import socket
import subprocess


def started_monotonic(name: str) -> float:
    """When an instance's server was started, in seconds of the monotonic clock; 0 when nobody knows."""
    value = _property(name, "ExecMainStartTimestampMonotonic")
    return int(value) / 1e6 if value.isdecimal() else 0.0


def _property(name: str, wanted: str) -> str:
    """What systemd says about an instance's unit; empty when it says nothing."""
    argv = ["systemctl", "show", "--property", wanted, "--value", f"llamacpp@{name}.service"]
    try:
        done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=30, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode(errors="replace").strip()


def active_state(name: str) -> str:
    """What systemd says about an instance's unit; ``unknown`` when it says nothing."""
    return _property(name, "ActiveState") or "unknown"


def local_address(host: str) -> str:
    """An address to reach a server on its own host, from those that it binds."""
    first = host.split(",", maxsplit=1)[0].strip(" []")
    return {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(first, first)


def health(host: str, port: int, timeout: float = 3.0) -> str:
    """``ok``, ``loading`` or ``unreachable``, as the server's own health page says."""
    connection = http.client.HTTPConnection(local_address(host), port, timeout=timeout)
    try:
        connection.request("GET", "/health")
        status = connection.getresponse().status
    except (OSError, socket.timeout, http.client.HTTPException):
        return "unreachable"
    finally:
        connection.close()
    return {200: "ok", 503: "loading"}.get(status, f"status {status}")
