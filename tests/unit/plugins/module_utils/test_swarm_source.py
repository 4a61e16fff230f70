# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import http.server
import threading

import pytest

from ansible_collections.onprem.llamacpp.plugins.module_utils import _torrent
from ansible_collections.onprem.llamacpp.plugins.module_utils._swarm_source import Mirror, Source, SourceError

COMMIT = "c" * 40
MIB = 2**20
CONTENT = {"q/a.gguf": bytes(range(256)) * 6000, "q/b.gguf": b"b" * (2 * MIB + 3)}


class Handler(http.server.BaseHTTPRequestHandler):
    """A mirror; ``server.fault`` says what is wrong with it."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_arguments):
        pass

    def do_GET(self):
        fault = self.server.fault
        if self.headers.get("Authorization") != "Bearer secret":
            return self.answer(401, b"")
        if self.path.endswith(".torrent"):
            return self.answer(404, b"") if fault == "no torrent" else self.answer(200, self.server.torrent)
        data = CONTENT[self.path.partition(f"/resolve/{COMMIT}/")[2]]
        first, last = (int(end) for end in self.headers["Range"][len("bytes=") :].split("-"))
        part = data[first : last + 1]
        if fault == "wrong bytes":
            part = b"x" * len(part)
        if fault == "whole file":
            return self.answer(200, data)
        if fault == "ends early":
            self.close_connection = True
            return self.answer(206, part[:-1], f"bytes {first}-{last}/{len(data)}", len(part))
        shown = first + 1 if fault == "other range" else first
        self.close_connection = fault == "closes after each answer"
        return self.answer(206, part, f"bytes {shown}-{last}/{len(data)}")

    def answer(self, status, data, content_range="", length=None):
        self.send_response(status)
        self.send_header("Content-Length", str(len(data) if length is None else length))
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def server(tmp_path):
    files = [{"path": path, "size": len(data)} for path, data in CONTENT.items()]
    sources = []
    for path, data in CONTENT.items():
        source = tmp_path / path.replace("/", "-")
        source.write_bytes(data)
        sources.append(str(source))
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.fault, made.torrent = "", _torrent.make(COMMIT, files, sources, [])
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def source_of(server, token="secret"):
    return Source(Mirror(f"http://127.0.0.1:{server.server_port}", token, timeout=10.0))


@pytest.mark.parametrize("fault", ["", "closes after each answer"])
def test_pieces_come_whole_and_in_order(server, fault):
    server.fault = fault
    source = source_of(server)
    torrent = _torrent.read(source.torrent("org/repo", COMMIT, "Q8_0"))
    found = dict(source.pieces(torrent, "org/repo", [1, 2, 3])) | dict(source.pieces(torrent, "org/repo", [0]))
    assert b"".join(found[piece] for piece in sorted(found)) == CONTENT["q/a.gguf"] + CONTENT["q/b.gguf"]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        pytest.param("wrong bytes", "is not the torrent's", id="wrong bytes"),
        pytest.param("whole file", "HTTP 200 instead of the range", id="a server that knows no ranges"),
        pytest.param("other range", "HTTP 206 instead of the range", id="another range"),
        pytest.param("ends early", "broke|ended early", id="an answer that ends early"),
    ],
)
def test_a_mirror_that_does_wrong_is_told(server, fault, said):
    source = source_of(server)
    torrent = _torrent.read(source.torrent("org/repo", COMMIT, "Q8_0"))
    server.fault = fault
    with pytest.raises(SourceError, match=said):
        list(source.pieces(torrent, "org/repo", [0, 1]))
    server.fault = ""
    assert len(list(source.pieces(torrent, "org/repo", [0, 1]))) == 2


def test_a_mirror_without_the_torrent_is_told(server):
    server.fault = "no torrent"
    with pytest.raises(SourceError, match=r"has no torrent of org/repo Q8_0 \(HTTP 404\)"):
        source_of(server).torrent("org/repo", COMMIT, "Q8_0")


def test_the_token_is_sent(server):
    with pytest.raises(SourceError, match="HTTP 401"):
        source_of(server, token="").torrent("org/repo", COMMIT, "Q8_0")


def test_a_mirror_that_is_not_there_is_told(server):
    source = source_of(server)
    source.mirror = source.mirror._replace(url="http://127.0.0.1:9")
    source.parts = source.parts._replace(netloc="127.0.0.1:9")
    with pytest.raises(SourceError, match="cannot be reached"):
        source.torrent("org/repo", COMMIT, "Q8_0")
