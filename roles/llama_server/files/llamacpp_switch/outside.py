# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The front as its clients see it: through the address that they are told, with its certificate verified."""

from __future__ import annotations

import contextlib
import http.client
import ssl
import time
import urllib.parse
from typing import Any, NamedTuple

from .files import SwitchError

TIMEOUT_SECONDS = 10
DAY = 86400
SOON_DAYS = 14
# Numbers of OpenSSL's verification errors.
EXPIRED, NOT_YET_VALID = 10, 9
OTHER_NAME = (62, 63, 64)
PARTIAL_CHAIN = 0x80000  # ssl.VERIFY_X509_PARTIAL_CHAIN has no name before Python 3.10
NO_CHECK_TIME = 0x200000  # of OpenSSL; has no name in Python


class Seen(NamedTuple):
    """Status of the health page and of a request without a key (both 0 when nobody answered), and what clients will stumble over."""

    health: int
    keyless: int
    warnings: list[str]


def look(url: str, ca: str) -> Seen:
    """Ask the front at its URL; ``ca`` is a file of authorities to trust instead of the system's, or empty.

    :raises SwitchError: the certificate is out of date: no client will talk to the front.
    """
    parts = urllib.parse.urlsplit(url)
    host, tls, warnings = parts.hostname or "", parts.scheme == "https", []
    port = parts.port or (443 if tls else 80)
    context = _context(ca) if tls else None
    # Each turn knows one more thing that clients will not like, and looks past it.
    for _turn in range(3):
        try:
            health, certificate = _get(host, port, "/health", context)
            keyless, _certificate = _get(host, port, "/v1/models", context)
        except ssl.SSLCertVerificationError as error:
            if error.verify_code in (EXPIRED, NOT_YET_VALID):
                word, date = ("has expired", "notAfter") if error.verify_code == EXPIRED else ("is not valid yet", "notBefore")
                when = _date(host, port, date)
                raise SwitchError(
                    f"the certificate of {url} {word}{when}: replace it and reload nginx, or set the host's clock right"
                ) from None
            assert context is not None  # noqa: S101 - only a verified connection raises this
            if error.verify_code in OTHER_NAME:
                warnings.append(f"the certificate of {url} is for other names")
                context.check_hostname = False
            else:
                warnings.append(f"the certificate of {url} is of an authority that this host does not know: {error.verify_message}")
                context = _trusting(_peer(host, port), context.check_hostname)
            continue
        except (OSError, http.client.HTTPException):
            return Seen(0, 0, warnings)
        return Seen(health, keyless, warnings + _ends(url, certificate))
    return Seen(0, 0, warnings)


def _get(host: str, port: int, path: str, context: Any) -> tuple[int, dict[str, Any]]:
    """Status of a request without a key, and the certificate that was verified (empty without TLS)."""
    connection = (
        http.client.HTTPSConnection(host, port, timeout=TIMEOUT_SECONDS, context=context)
        if context
        else http.client.HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)
    )
    try:
        connection.request("GET", path)
        # Read now, because the response may close the socket.
        certificate = connection.sock.getpeercert() if isinstance(connection.sock, ssl.SSLSocket) else {}
        return connection.getresponse().status, certificate or {}
    finally:
        connection.close()


def _context(ca: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca or None)
    except OSError as error:
        raise SwitchError(f"the authorities in {ca} cannot be read: {error}") from None


def _trusting(certificate: str, check_hostname: bool) -> ssl.SSLContext:
    """Trusts one certificate as it is, so that its dates are all that is left to judge."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = check_hostname
    context.verify_flags |= PARTIAL_CHAIN
    context.load_verify_locations(cadata=certificate)
    return context


def _date(host: str, port: int, which: str) -> str:
    """When the certificate that is shown at an address ends or begins, to follow what is said of it; empty when that cannot be read."""
    with contextlib.suppress(OSError, ValueError, KeyError, http.client.HTTPException):
        context = _trusting(_peer(host, port), check_hostname=False)
        context.verify_flags |= NO_CHECK_TIME
        _status, certificate = _get(host, port, "/health", context)
        word = "since" if which == "notAfter" else "before"
        return f" ({word} {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime(ssl.cert_time_to_seconds(certificate[which])))})"
    return ""


def _peer(host: str, port: int) -> str:
    """The certificate that is shown at an address, unverified, as PEM."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    connection = http.client.HTTPSConnection(host, port, timeout=TIMEOUT_SECONDS, context=context)
    try:
        connection.connect()
        return ssl.DER_cert_to_PEM_cert(connection.sock.getpeercert(binary_form=True) or b"")
    finally:
        connection.close()


def _ends(url: str, certificate: dict[str, Any]) -> list[str]:
    """A warning in the last days of a certificate."""
    if "notAfter" not in certificate:
        return []
    days = (ssl.cert_time_to_seconds(certificate["notAfter"]) - time.time()) / DAY
    return [f"the certificate of {url} expires in {days:.0f} days"] if days < SOON_DAYS else []
