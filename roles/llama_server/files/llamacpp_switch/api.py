# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The server as a client sees it."""

from __future__ import annotations

import http.client
import json
import pathlib
import socket
from typing import Optional

from .files import Document, SwitchError

LARGEST_ANSWER = 4 * 2**20


class Api:
    """One address of the server. The key is read from its file and goes nowhere but the header."""

    def __init__(self, address: str, port: int, key: str) -> None:
        self.address, self.port, self._key = address, port, key

    def ask(self, path: str, body: Optional[Document] = None, timeout: float = 10, key: bool = True) -> tuple[int, Document]:
        """Status and JSON of one request; status 0 when nobody answered.

        :raises SwitchError: the server took the request and did not answer in time, or broke off.
        """
        headers = {"Content-Type": "application/json"}
        if key and self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        connection = http.client.HTTPConnection(self.address, self.port, timeout=timeout)
        try:
            try:
                connection.connect()
            except OSError:
                return 0, {}
            connection.request("POST" if body else "GET", path, json.dumps(body) if body else None, headers)
            response = connection.getresponse()
            text = response.read(LARGEST_ANSWER)
        except socket.timeout:
            raise SwitchError(f"{path} did not answer within {timeout:.0f} s") from None
        except (OSError, http.client.HTTPException) as error:
            raise SwitchError(f"{path}: the connection broke ({type(error).__name__})") from None
        finally:
            connection.close()
        try:
            document = json.loads(text)
        except ValueError:
            document = {}
        return response.status, document if isinstance(document, dict) else {}


def keys(path: pathlib.Path) -> list[str]:
    """The keys of a key file.

    :raises SwitchError: it cannot be read.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise SwitchError(f"the key file {path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise SwitchError(f"the key file {path} is no UTF-8 text") from None
    return [line for line in lines if line and not line.startswith("#")]


def first_key(path: pathlib.Path) -> str:
    """The first key of a key file.

    :raises SwitchError: the file holds none.
    """
    found = keys(path)
    if not found:
        raise SwitchError(f"the key file {path} holds no key")
    return found[0]


def local_address(host: str) -> str:
    """An address to reach a server on its own host, from the one that it binds."""
    first = host.split(",", maxsplit=1)[0].strip()
    return {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1", "[::]": "::1"}.get(first, first)


def on_loopback(host: str) -> bool:
    """Whether a server that binds these addresses is out of reach for other hosts."""
    return all(address.strip().startswith("127.") or address.strip() in ("::1", "localhost") for address in host.split(","))
