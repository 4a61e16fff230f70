# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An nginx of our own on loopback that answers like a Hub with one file; the system's service is left alone."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / ".collections"))

from ansible_collections.onprem.llamacpp.plugins.module_utils._hub_files import File, Snapshot
from ansible_collections.onprem.llamacpp.plugins.module_utils._hub_index import model_document, tree_document

REPO_ID = "onprem/bench-GGUF"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME = "bench-Q4_K_M.gguf"
PIECE = 64 * 2**20
CONFIG = """
worker_processes 2;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
    log_format bytes '$body_bytes_sent';
    access_log {folder}/access.log bytes;
    client_body_temp_path {folder}/tmp; proxy_temp_path {folder}/tmp; fastcgi_temp_path {folder}/tmp;
    uwsgi_temp_path {folder}/tmp; scgi_temp_path {folder}/tmp;
    sendfile on;
    server {{
        listen 127.0.0.1:{port};
        etag off;
        default_type application/json;
        location ~ ^/api/models/{repo}(/revision/[^/]+)?$ {{ alias {folder}/model.json; }}
        location ~ ^/api/models/{repo}/tree/ {{ alias {folder}/tree.json; }}
        location ~ ^/{repo}/resolve/[^/]+/{name}$ {{
            alias {folder}/{name};
            add_header ETag '"{sha256}"' always;
            add_header X-Repo-Commit {commit} always;
            add_header X-Linked-Etag '"{sha256}"' always;
            add_header X-Linked-Size {size} always;
        }}
        location / {{ return 404; }}
    }}
}}
"""


def nginx_program(folder: Path) -> str:
    """An installed nginx, or Debian's unpacked below ``folder`` without installing it, so that no service starts."""
    found = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found:
        return found
    unpacked = folder / "debian"
    unpacked.mkdir()
    done = subprocess.run(
        ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", "nginx"],
        cwd=unpacked,
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    packages = list(unpacked.glob("nginx*.deb"))
    if not packages:
        raise RuntimeError(f"there is no nginx, and its package could not be had: {done.stderr[-300:]}")
    subprocess.run(["dpkg-deb", "-x", str(packages[0]), str(unpacked)], check=True, timeout=60)
    return str(unpacked / "usr/sbin/nginx")


class Origin:
    """Serves a file of ``size`` bytes from ``folder`` until it is closed."""

    def __init__(self, folder: Path, size: int) -> None:
        folder.mkdir()
        self.folder, self.size = folder, size
        self.file = folder / NAME
        self.sha256 = self._write()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.endpoint = f"http://127.0.0.1:{port}"
        self.url = f"{self.endpoint}/{REPO_ID}/resolve/{COMMIT}/{NAME}"
        snapshot = Snapshot(REPO_ID, COMMIT, ["main"], [File(NAME, size, self.sha256, str(self.file))], [])
        (folder / "model.json").write_text(json.dumps(model_document(snapshot)))
        (folder / "tree.json").write_text(json.dumps(tree_document(snapshot)))
        values = {"folder": folder, "port": port, "repo": REPO_ID, "name": NAME, "sha256": self.sha256, "commit": COMMIT, "size": size}
        (folder / "nginx.conf").write_text(("user root;" if os.geteuid() == 0 else "") + CONFIG.format(**values))
        command = [nginx_program(folder), "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]
        self.process = subprocess.Popen([*command, "-g", "daemon off;"])
        self._wait(port)

    def _write(self) -> str:
        digest = hashlib.sha256()
        with self.file.open("wb") as stream:
            for begin in range(0, self.size, PIECE):
                piece = os.urandom(min(PIECE, self.size - begin))
                digest.update(piece)
                stream.write(piece)
            stream.flush()
            os.fsync(stream.fileno())
        return digest.hexdigest()

    def _wait(self, port: int) -> None:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise RuntimeError(f"nginx does not answer: {(self.folder / 'error.log').read_text()[-500:]}")

    def warm(self) -> None:
        """Read the file, so that it comes from the page cache."""
        with self.file.open("rb") as stream:
            while stream.read(PIECE):
                pass

    def served(self) -> int:
        """Bytes of bodies that were handed to the system so far; those of a broken connection too."""
        return sum(int(line) for line in (self.folder / "access.log").read_text().split())

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(10)
