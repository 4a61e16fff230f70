# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fingerprints of OpenPGP public keys, so that a repository's key is checked without gpg on the host."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

_ARMOR = re.compile(
    r"-----BEGIN PGP PUBLIC KEY BLOCK-----\s*\n(?:[A-Za-z]+: .*\n)*\s*\n?(.*?)\n(?:=\S{4}\s*\n)?-----END PGP PUBLIC KEY BLOCK-----", re.S
)
_PUBLIC_KEY = 6


class PublicKeyError(Exception):
    """A text that is no OpenPGP public key that can be checked."""


def _packets(data: bytes) -> list[tuple[int, bytes]]:
    """The packets of a key: tag and body (RFC 9580, section 4.2)."""
    found, at = [], 0
    try:
        while at < len(data):
            head, at = data[at], at + 1
            if not head & 0x80:
                raise PublicKeyError("the key is damaged: a packet begins with an unknown byte")
            if head & 0x40:
                tag, first, at = head & 0x3F, data[at], at + 1
                if first < 192:
                    size = first
                elif first < 224:
                    size, at = ((first - 192) << 8) + data[at] + 192, at + 1
                elif first == 255:
                    size, at = int.from_bytes(data[at : at + 4], "big"), at + 4
                else:
                    raise PublicKeyError("the key has a packet of unknown length")
            else:
                tag, width = (head >> 2) & 0x0F, 1 << (head & 3)
                if width == 8:
                    raise PublicKeyError("the key has a packet of unknown length")
                size, at = int.from_bytes(data[at : at + width], "big"), at + width
            if at + size > len(data):
                raise PublicKeyError("the key is cut short")
            found.append((tag, data[at : at + size]))
            at += size
    except IndexError:
        raise PublicKeyError("the key is cut short") from None
    return found


def fingerprints(text: str) -> list[str]:
    """Fingerprints of the primary keys in an armored text, as 40 upper-case hexadecimal digits.

    Raises:
        PublicKeyError: there is no version 4 key in it, or the text is damaged.
    """
    blocks = _ARMOR.findall(text.replace("\r\n", "\n"))
    if not blocks:
        raise PublicKeyError("the text is no armored OpenPGP public key")
    found = []
    for block in blocks:
        try:
            data = base64.b64decode("".join(block.split()), validate=True)
        except binascii.Error:
            raise PublicKeyError("the key is damaged: its base64 cannot be read") from None
        for tag, body in _packets(data):
            if tag == _PUBLIC_KEY and body[:1] == b"\x04":
                # The definition of the fingerprint (RFC 9580, 5.5.4.2), not a protection of ours.
                found.append(hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body).hexdigest().upper())  # noqa: S324
    if not found:
        raise PublicKeyError("the text holds no version 4 public key")
    return found


def plain(fingerprint: str) -> str:
    """A fingerprint as it is compared: upper case, without spaces."""
    return "".join(fingerprint.split()).upper()
