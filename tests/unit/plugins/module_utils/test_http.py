# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections: kept ones, proxies, certificates."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import threading

import pytest
from hub_server import COMMIT, REPO_ID, Hub

from ansible_collections.onprem.llamacpp.plugins.module_utils._buffer import Buffer
from ansible_collections.onprem.llamacpp.plugins.module_utils._http import PROXY_NAMES, RetryableError, TransferError, proxies_of
from ansible_collections.onprem.llamacpp.plugins.module_utils._source import Options, Source, file_url
from ansible_collections.onprem.llamacpp.plugins.module_utils._sources import Body

NAME = "m.gguf"
DATA = bytes(range(256)) * 400


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in PROXY_NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def hub():
    made = Hub({NAME: DATA})
    yield made
    made.close()


def url_of(endpoint):
    return file_url(endpoint, REPO_ID, COMMIT, NAME)


def source(**environment):
    return Source(Options(environment=environment, timeout=5.0))


@pytest.mark.parametrize(
    ("environment", "proxies"),
    [
        ({"http_proxy": "a", "HTTP_PROXY": "b", "HTTPS_PROXY": "c"}, {"http": "a", "https": "c"}),
        ({"no_proxy": "x", "all_proxy": "y", "PATH": "z"}, {"no": "x", "all": "y"}),
        ({"http_proxy": ""}, {}),
    ],
    ids=["small letters win", "other names", "empty"],
)
def test_proxies(environment, proxies):
    assert proxies_of(environment) == proxies


def test_a_connection_is_kept_and_one_that_died_meanwhile_is_made_anew(hub):
    asked = source()
    link = asked.link()
    for begin in (0, 1000):
        with asked.open(url_of(hub.url), begin, "", begin + 10, link) as answer:
            assert answer.read(100) == DATA[begin : begin + 10]
    assert hub.connections == 1
    link.connection.sock.shutdown(socket.SHUT_WR)  # the server sees the end and closes
    with asked.open(url_of(hub.url), 0, "", 10, link) as answer:
        assert answer.read(100) == DATA[:10]
    assert hub.connections == 2
    link.close()


def test_an_answer_that_was_not_read_to_its_end_costs_the_connection(hub):
    asked = source()
    link = asked.link()
    with asked.open(url_of(hub.url), 0, "", 0, link) as answer:
        answer.read(10)
    assert link.connection is None


def test_redirects_without_end(hub):
    hub.always = ("redirect", hub.url)
    with pytest.raises(TransferError, match="redirects without end"):
        source().open(url_of(hub.url), 0, "")


@pytest.fixture
def certificate(tmp_path):
    """A certificate of localhost that nobody knows, and its key."""
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    subprocess.run(command, check=True, capture_output=True)
    return tmp_path


@pytest.fixture
def secure(hub, certificate):
    """The Hub's endpoint behind TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    hub.server.socket = context.wrap_socket(hub.server.socket, server_side=True)
    return hub.url.replace("http://127.0.0.1", "https://localhost")


def test_a_certificate_that_nobody_knows_is_final(secure):
    with pytest.raises(TransferError, match=r"certificate of localhost:\d+ is not trusted: self.signed certificate.*llama_model_ca_file"):
        source().open(url_of(secure), 0, "")


def test_a_ca_bundle_makes_it_known(secure, certificate):
    with source(SSL_CERT_FILE=str(certificate / "cert.pem")).open(url_of(secure), 0, "") as answer:
        assert answer.read(len(DATA)) == DATA


class Proxy:
    """A proxy that knows CONNECT."""

    def __init__(self):
        self.heads = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://me:pass%20word@127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        near, _address = self.listener.accept()
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += near.recv(4096)
        self.heads.append(head.decode())
        host, port = head.split()[1].decode().rsplit(":", 1)
        far = socket.create_connection((host, int(port)))
        near.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        threading.Thread(target=self.pump, args=(near, far), daemon=True).start()
        self.pump(far, near)

    @staticmethod
    def pump(source, target):
        with contextlib.suppress(OSError):  # the other direction may have ended first
            while data := source.recv(65536):
                target.sendall(data)
        target.close()


def test_tls_goes_through_a_proxy(secure, certificate):
    proxy = Proxy()
    with source(SSL_CERT_FILE=str(certificate / "cert.pem"), https_proxy=proxy.url).open(url_of(secure), 0, "") as answer:
        assert answer.read(len(DATA)) == DATA
    assert proxy.heads[0].startswith("CONNECT localhost:")
    assert "Proxy-Authorization: Basic bWU6cGFzcyB3b3Jk" in proxy.heads[0]


def test_silence_is_a_fault_that_may_pass(hub):
    hub.always = "stall"
    asked = Source(Options(environment={}, timeout=0.2))
    with asked.open(url_of(hub.url), 0, "") as answer, pytest.raises(RetryableError, match="the connection broke: no answer in time"):
        answer.read(len(DATA))


@pytest.mark.parametrize("piece", [100, 4096, 2**16])
def test_what_came_with_the_headers_is_not_passed_over(tmp_path, piece):
    """However small the pieces are, as they are under a low rate limit: nothing is moved past bytes that were read ahead."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer():
            with listener.accept()[0] as client:
                client.recv(2**16)
                client.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(DATA)}\r\n\r\n".encode() + DATA)

        server = threading.Thread(target=answer)
        server.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/m.gguf"
        buffer, position = Buffer(2**16), 0
        with open(tmp_path / "file", "w+b") as file, source().link().get(url, {}, owns_link=True) as body:
            while position < len(DATA):
                count = buffer.take(Body(body, 0, len(DATA)), piece)
                buffer.write(file.fileno(), position, count)
                position += count
        buffer.close()
        server.join(20)
    assert (tmp_path / "file").read_bytes() == DATA
