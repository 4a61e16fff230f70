# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The front through its own address: certificates as they are in the field, against a real TLS server."""

from __future__ import annotations

import datetime
import http.server
import ipaddress
import re
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from switch_host import files, outside

NOW = datetime.datetime.now(datetime.timezone.utc)
DAY = datetime.timedelta(days=1)


class Authority:
    """Signs certificates, in files of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.key = folder, ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "lab")])
        self.file = folder / "ca.pem"
        made = self._builder(self.name, self.key.public_key(), -2, 100).add_extension(x509.BasicConstraints(True, None), True)
        self.file.write_bytes(made.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def _builder(self, subject: x509.Name, key: Any, begin: int, end: int) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder(self.name, subject, key, x509.random_serial_number())
            .not_valid_before(NOW + begin * DAY)
            .not_valid_after(NOW + end * DAY)
        )

    def certificate(self, begin: int = -2, end: int = 90, address: str = "127.0.0.1") -> Path:
        """A file with a server's certificate and key, valid between these days from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
        made = self._builder(x509.Name([]), key.public_key(), begin, end).add_extension(names, True).sign(self.key, hashes.SHA256())
        private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        path = self.folder / f"server{begin}{end}{address}.pem"
        path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
        return path


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health" else 401)
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture(name="serve")
def fixture_serve() -> Iterator[Any]:
    """Serves with a certificate, or without one; the URL."""
    servers = []

    def start(certificate: Optional[Path]) -> str:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        return f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(name="authority")
def fixture_authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def test_front_with_a_good_certificate(serve, authority):
    assert outside.look(serve(authority.certificate()), str(authority.file)) == (200, 401, [])


def test_front_without_tls(serve):
    assert outside.look(serve(None), "") == (200, 401, [])


@pytest.mark.parametrize("known", [True, False], ids=["known authority", "unknown authority"])
@pytest.mark.parametrize("address", ["127.0.0.1", "10.9.9.9"], ids=["right name", "other name"])
@pytest.mark.parametrize(
    ("begin", "end", "reason"), [(-2, -1, "has expired (since"), (1, 2, "is not valid yet (before")], ids=["expired", "not yet valid"]
)
def test_certificate_out_of_date_is_a_reason_to_go_back(serve, authority, known, address, begin, end, reason):
    url = serve(authority.certificate(begin, end, address))
    date = f"{NOW + (end if 'expired' in reason else begin) * DAY:%Y-%m-%d %H:%M} UTC"
    with pytest.raises(files.SwitchError, match=re.escape(f"the certificate of {url} {reason} {date}): replace it and reload nginx")):
        outside.look(url, str(authority.file) if known else "")


@pytest.mark.parametrize(
    ("certificate", "known", "warnings"),
    [
        pytest.param({"end": 3}, True, ["expires in 3 days"], id="soon expired"),
        pytest.param({"address": "10.9.9.9"}, True, ["is for other names"], id="other name"),
        pytest.param({}, False, ["of an authority that this host does not know"], id="unknown authority"),
        pytest.param({"address": "10.9.9.9"}, False, ["does not know", "is for other names"], id="both"),
    ],
)
def test_what_only_some_clients_refuse_is_a_warning(serve, authority, certificate, known, warnings):
    seen = outside.look(serve(authority.certificate(**certificate)), str(authority.file) if known else "")
    assert (seen.health, seen.keyless) == (200, 401)
    assert len(seen.warnings) == len(warnings)
    assert all(word in text for word, text in zip(warnings, seen.warnings))


def test_nobody_answers():
    assert outside.look("https://127.0.0.1:1", "") == (0, 0, [])
