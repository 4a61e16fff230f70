# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Hub on loopback that misbehaves on demand."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO_ID = "org/Repo-GGUF"


CHUNK = 1 << 20


class Sparse:
    """A file that is too large for memory: ``head``, and zeros behind it up to ``size``."""

    def __init__(self, head: bytes, size: int) -> None:
        self.head = head
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, part: slice) -> bytes:
        begin, end, _step = part.indices(self.size)
        return self.head[begin:end].ljust(end - begin, b"\0")


def sha256(data: bytes | Sparse) -> str:
    return hashlib.sha256(data.head if isinstance(data, Sparse) else data).hexdigest()


class Hub:
    """Serves ``files`` of one repository. Each request for a file takes the next of ``faults``; None is good behaviour.

    Faults: an int (status), (status, Retry-After), "ignore range", "wrong range", "truncate", "drop", "flip", "other size",
    "other hash", "no etag", "stall", "drip" (1 MiB every 0.1 s), "trickle" (one byte every 0.05 s), ("redirect", url);
    a function is called, and the request is answered well after it.
    ``always`` is the fault of every request once ``faults`` is empty; ``damaged`` are positions whose bytes are served flipped.
    ``blocks`` is what /api/blocks/<sha256>.json answers by hash.
    """

    def __init__(self, files: dict[str, bytes | Sparse], port: int = 0) -> None:
        self.files = files
        self.faults: list = []
        self.always = None
        self.damaged: set[int] = set()
        self.blocks: dict[str, dict] = {}
        self.etags: dict[str, str] = {}
        self.api_answer: tuple = (200, {}, None)
        self.requests: list = []
        self.sent = 0  # bytes of files that the system took, at most some MB more than the client saw
        self.connections = 0
        self.lock = threading.Lock()
        self.stop_dripping = threading.Event()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                hub.connections += 1
                super().setup()

            def log_message(self, *args):
                pass

            def do_GET(self):
                hub.requests.append((self.command, self.path, dict(self.headers)))
                path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
                if path.startswith("/api/blocks/"):
                    hub.answer_blocks(self, path)
                elif path.startswith("/api/"):
                    hub.answer_api(self)
                else:
                    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                        hub.answer_file(self, path)

            do_HEAD = do_GET

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.stop_dripping.set()
        self.server.shutdown()
        self.server.server_close()

    def listing(self) -> list[dict]:
        return [{"path": path, "size": len(data), "sha256": sha256(data)} for path, data in self.files.items()]

    def ranges(self) -> list[str]:
        return [headers.get("Range", "") for _method, path, headers in self.requests if "/api/" not in path]

    def answer_blocks(self, request, path: str) -> None:
        found = self.blocks.get(path.rsplit("/", maxsplit=1)[-1].split(".", maxsplit=1)[0])
        body = json.dumps(found).encode()
        request.send_response(200 if found else 404)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    def answer_api(self, request) -> None:
        status, headers, body = self.api_answer
        if body is None:
            siblings = [
                {
                    "rfilename": item["path"],
                    "size": item["size"],
                    "lfs": {"sha256": item["sha256"], "size": item["size"], "pointerSize": 135},
                }
                for item in self.listing()
            ]
            body = json.dumps({"id": REPO_ID, "modelId": REPO_ID, "sha": COMMIT, "siblings": siblings}).encode()
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    def answer_file(self, request, path: str) -> None:
        with self.lock:
            fault = self.faults.pop(0) if self.faults else self.always
        if callable(fault):
            fault = fault()
        path = re.sub(r"^(https?://[^/]+)?/(storage/)*[^/]+/[^/]+/resolve/[^/]+/", "", path)
        data = self.files.get(path)
        if isinstance(fault, tuple) and fault[0] == "redirect":
            request.send_response(302)
            request.send_header("Location", fault[1] + "/storage" + request.path)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        if data is None or isinstance(fault, (int, tuple)):
            status, retry_after = fault if isinstance(fault, tuple) else (fault or 404, None)
            request.send_response(status)
            if retry_after:
                request.send_header("Retry-After", str(retry_after))
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        if fault == "drop":
            request.close_connection = True
            request.connection.close()
            return
        etag = self.etags.get(path, f'"{sha256(data)}"')
        size = len(data) + (1 if fault == "other size" else 0)
        asked = re.match(r"bytes=(\d+)-(\d*)$", request.headers.get("Range", ""))
        begin, end, status = 0, len(data), 200
        if asked and fault != "ignore range" and request.headers.get("If-Range", etag) == etag:
            begin, status = int(asked.group(1)), 206
            end = min(end, int(asked.group(2)) + 1) if asked.group(2) else end
        middle = begin + (end - begin) // 2
        request.send_response(status)
        if fault != "no etag":
            request.send_header("ETag", etag)
        if fault == "other hash":
            request.send_header("X-Linked-ETag", '"' + "f" * 64 + '"')
        if status == 206:
            first = begin + (1 if fault == "wrong range" else 0)
            last = size - 1 if end == len(data) else end - 1
            request.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        request.send_header("Content-Length", str(end - begin + size - len(data)))
        request.end_headers()
        stop = middle if fault in ("truncate", "stall") else end
        for start in range(begin, stop, CHUNK):
            piece = bytearray(data[start : min(start + CHUNK, stop)])
            if fault == "flip" and start <= middle < start + CHUNK:
                piece[middle - start] ^= 1
            for position in self.damaged:
                if start <= position < start + len(piece):
                    piece[position - start] ^= 1
            if fault == "trickle":
                for byte in piece:
                    request.wfile.write(bytes([byte]))
                    if self.stop_dripping.wait(0.05):
                        return
            request.wfile.write(piece)
            request.wfile.flush()
            with self.lock:
                self.sent += len(piece)
            if fault == "drip":
                time.sleep(0.1)
        if fault == "stall":
            self.stop_dripping.wait(20)
        if fault in ("truncate", "stall"):
            request.close_connection = True
