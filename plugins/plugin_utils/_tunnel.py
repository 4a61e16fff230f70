# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Serves the models of a controller's directory to a host that can reach nobody, through the connection of the play.

A copy over the connection would need room for a second copy on the host, and would start a shard of 47 GB over after a break.
A transfer does neither, so the files are offered to it by HTTP on the controller's loopback, and SSH carries that to the host's.
"""

from __future__ import annotations

import contextlib
import http.server
import os
import re
import subprocess
import threading
import urllib.parse
from collections.abc import Iterator
from typing import Any, BinaryIO, Optional

from ansible.errors import AnsibleActionFail

ALLOCATED = re.compile(rb"Allocated port (\d+) for remote forward")
REQUEST = re.compile(r"^/(?P<org>[^/]+)/(?P<name>[^/]+)/resolve/(?P<commit>[0-9a-f]{40})/(?P<path>[^?]+)")
RANGE = re.compile(r"^bytes=(\d{1,18})-(\d{0,18})$")
OPEN_SECONDS = 30.0
LOOPBACK = "127.0.0.1"


def stored_file(root: str, target: str) -> str:
    """The file that the path of a Hub's URL means, in a directory laid out like a host's models; an empty string when there is none."""
    asked = REQUEST.match(urllib.parse.unquote(target))
    if not asked or ".." in asked[0].split("/"):
        return ""
    folder = os.path.join(root, f"{asked['org']}--{asked['name']}", asked["commit"])
    quants = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    paths = (os.path.join(folder, quant, os.path.basename(asked["path"])) for quant in quants if not quant.startswith("."))
    return next((path for path in paths if os.path.isfile(path)), "")


class Handler(http.server.BaseHTTPRequestHandler):
    """GET and HEAD with one range, which is what a transfer asks for."""

    root = ""
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, body: bool) -> None:
        path = stored_file(self.root, self.path)
        if not path:
            self.send_error(404)
            return
        with open(path, "rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            asked = RANGE.match(self.headers.get("Range") or "")
            begin = int(asked[1]) if asked else 0
            end = min(int(asked[2]) + 1, size) if asked and asked[2] else size
            if begin >= end:
                self.send_error(416)
                return
            self.send_response(206 if asked else 200)
            if asked:
                self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{size}")
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(end - begin))
            self.end_headers()
            if body:
                self._send(stream, begin, end - begin)

    def _send(self, stream: BinaryIO, begin: int, count: int) -> None:
        self.wfile.flush()
        try:
            # The kernel moves the bytes; a shard never passes through this process's memory.
            self.connection.sendfile(stream, begin, count)
        except OSError:
            self.close_connection = True

    def log_message(self, *_arguments: Any) -> None:
        """A request is no news."""


@contextlib.contextmanager
def served(root: str) -> Iterator[int]:
    """The port on the controller's loopback at which the models below ``root`` are served."""
    server = http.server.ThreadingHTTPServer((LOOPBACK, 0), type("Models", (Handler,), {"root": root}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


class Tunnel:
    """A port on the host's loopback that leads to one of the controller's. ``url`` is what the host asks."""

    def __init__(self, connection: Any, port: int) -> None:
        self.connection = connection
        self.port = port
        self.process: Optional[subprocess.Popen[bytes]] = None
        self.url = ""

    def open(self) -> str:
        """The URL, after making the tunnel anew where it is gone. Raises AnsibleActionFail."""
        if self.connection.transport == "local":
            self.url = f"http://{LOOPBACK}:{self.port}"
        elif self.process is None or self.process.poll() is not None:
            self.url = f"http://{LOOPBACK}:{self._start()}"
        return self.url

    def _start(self) -> int:
        command = self._command()
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        stream = self.process.stderr
        said: list[bytes] = []
        ready = threading.Event()
        port = 0

        def listen() -> None:
            nonlocal port
            for line in stream or ():
                said.append(line.strip())
                found = ALLOCATED.search(line)
                if found:
                    port = int(found[1])
                    ready.set()
            ready.set()

        threading.Thread(target=listen, daemon=True).start()
        ready.wait(OPEN_SECONDS)
        if not port:
            self.close()
            words = b" ".join(said[-3:]).decode(errors="replace") or f"no answer within {OPEN_SECONDS:.0f} s"
            raise AnsibleActionFail(
                f"The bundle on the controller cannot be offered to this host through SSH: {words}. Allow TCP forwarding in its sshd "
                "(AllowTcpForwarding remote), attach the disk to the host (llama_bundle_at: host), or serve its models with llama_mirror."
            )
        return port

    def _command(self) -> list[bytes]:
        """The play's own way to the host, with a connection of its own, because a shared one keeps forwards when a client ends."""
        if self.connection.transport != "ssh" or self.connection.get_option("password"):
            raise AnsibleActionFail(
                f"A bundle on the controller is offered through SSH with keys, and this host is reached by {self.connection.transport}"
                f"{' with a password' if self.connection.transport == 'ssh' else ''}. Attach the disk to the host (llama_bundle_at: host)."
            )
        forward = ["-N", "-R", f"0:{LOOPBACK}:{self.port}", self.connection.get_option("host")]
        command = self.connection._build_command(self.connection.get_option("ssh_executable"), "ssh", *forward)
        own = ["ControlMaster=no", "ControlPath=none", "ExitOnForwardFailure=yes", "BatchMode=yes"]
        # The first value of an option wins. The port is told at the level of messages, which a quieter level would hide.
        return [command[0], *(part.encode() for option in [*own, "LogLevel=INFO"] for part in ("-o", option)), *command[1:]]

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
            if self.process.poll() is None:
                self.process.kill()


@contextlib.contextmanager
def offered(connection: Any, root: str) -> Iterator[Tunnel]:
    """A tunnel from the host to the models below ``root`` on the controller, for as long as a task runs."""
    if not os.path.isdir(root):
        raise AnsibleActionFail(f"{root} is no directory on the controller. Check llama_model_bundle and whether the disk is mounted.")
    with served(root) as port:
        tunnel = Tunnel(connection, port)
        try:
            yield tunnel
        finally:
            tunnel.close()
