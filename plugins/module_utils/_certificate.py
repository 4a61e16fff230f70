# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates of a front: those that are given are looked at, and for a lab an authority of the host's own makes them, by openssl."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import secrets
import tempfile

from ansible_collections.onprem.llamacpp.plugins.module_utils._host import Run, read_text, run_command

CA_DAYS, DAYS, RENEW_DAYS = 3650, 397, 30
DAY = 86400
PEM = "-----BEGIN"


class CertificateError(Exception):
    """Why there is no certificate, in words for the user."""


def subject_alternative_names(names: list[str]) -> str:
    """Names and addresses as openssl takes them."""
    entries = []
    for name in names:
        kind = "DNS"
        with contextlib.suppress(ValueError):
            ipaddress.ip_address(name)
            kind = "IP"
        entries.append(f"{kind}:{name}")
    return ",".join(entries)


def expired(certificate: str, run: Run = run_command) -> bool:
    """Whether a certificate, PEM text or a path, has expired; unknown, and so not, on a host without openssl."""
    with tempfile.NamedTemporaryFile("w", suffix=".pem", encoding="utf-8") as handle:
        handle.write(certificate)
        handle.flush()
        path = handle.name if PEM in certificate else certificate
        return "will expire" in run(["openssl", "x509", "-noout", "-checkend", "0", "-in", path])[1]


class Authority:
    """A host's own authority: C(ca.pem) for clients, C(ca-key.pem) for root, and C(names) of the certificates that it made."""

    def __init__(self, root: str, run: Run = run_command) -> None:
        self.certificate, self.key = os.path.join(root, "ca.pem"), os.path.join(root, "ca-key.pem")
        self._run = run

    def made(self, certificate: str, names_file: str, names: list[str]) -> bool:
        """Whether a certificate is of this authority, for exactly these names, and will last for a while."""
        return (
            read_text(names_file).strip() == subject_alternative_names(names)
            and self._lasts(self.certificate)
            and self._lasts(certificate)
            and self._run(["openssl", "verify", "-CAfile", self.certificate, certificate])[0] == 0
        )

    def make(self, folder: str, names: list[str], host: str) -> dict[str, str]:
        """A new certificate and key, and a new authority where there is none that lasts, as texts by file name.

        :raises CertificateError: openssl is missing or fails
        """
        with tempfile.TemporaryDirectory(dir=folder) as work:
            made = {name: os.path.join(work, name) for name in ("ca.pem", "ca-key.pem", "request.pem", "certificate.pem", "key.pem")}
            curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
            new = not (self._lasts(self.certificate) and os.path.exists(self.key))
            if new:
                self._openssl(
                    "req", "-x509", *curve, "-days", str(CA_DAYS), "-subj", f"/CN=llama.cpp on {host}"[:64],
                    "-addext", "basicConstraints=critical,CA:TRUE,pathlen:0", "-addext", "keyUsage=critical,keyCertSign,cRLSign",
                    "-keyout", made["ca-key.pem"], "-out", made["ca.pem"],
                )  # fmt: skip
            authority = (made["ca.pem"], made["ca-key.pem"]) if new else (self.certificate, self.key)
            extensions = os.path.join(work, "extensions")
            with open(extensions, "w", encoding="ascii") as handle:
                handle.write(
                    f"subjectAltName={subject_alternative_names(names)}\nextendedKeyUsage=serverAuth\nbasicConstraints=critical,CA:FALSE\n"
                    "keyUsage=critical,digitalSignature\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
                )
            self._openssl("req", "-new", *curve, "-subj", f"/CN={names[0]}"[:64], "-keyout", made["key.pem"], "-out", made["request.pem"])
            self._openssl(
                "x509", "-req", "-in", made["request.pem"], "-CA", authority[0], "-CAkey", authority[1], "-days", str(DAYS),
                "-set_serial", f"0x{secrets.token_hex(16)}", "-extfile", extensions, "-out", made["certificate.pem"],
            )  # fmt: skip
            wanted = ("certificate.pem", "key.pem", *(("ca.pem", "ca-key.pem") if new else ()))
            return {name: read_text(made[name]) for name in wanted}

    def _lasts(self, path: str) -> bool:
        return self._run(["openssl", "x509", "-noout", "-checkend", str(RENEW_DAYS * DAY), "-in", path])[0] == 0

    def _openssl(self, *arguments: str) -> None:
        status, _out, err = self._run(["openssl", *arguments])
        if status:
            raise CertificateError(f"openssl {arguments[0]}: {(err.strip().splitlines() or ['no message'])[-1]}")
