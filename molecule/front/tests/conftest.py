# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A client of the front: its address, its authority, and keys that are read where they are kept."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT / "tests/lab"), str(ROOT / "tests/models")]

import plays

INVENTORY = str(ROOT / "molecule/front/inventory")
ADDRESS, PORT = "10.88.0.11", 8443
URL = f"https://{ADDRESS}:{PORT}"
MODEL = "tiny-kimi-k2"
GIVEN = "lab-0f5e.7c_91+batch"
CLIENTS = "/etc/llamacpp/front/main/clients"


@pytest.fixture(scope="session")
def play() -> Callable[..., plays.Run]:
    return functools.partial(plays.run_playbook, INVENTORY)


@pytest.fixture(scope="session")
def server() -> Any:
    """The host whose front is asked."""
    import testinfra  # noqa: PLC0415

    return testinfra.get_host("ansible://one", ansible_inventory=INVENTORY)


class Front:
    """The front as one client sees it."""

    def __init__(self, server: Any, folder: Path) -> None:
        self.server, self.authority = server, folder / "ca.pem"
        self.authority.write_text(server.file("/etc/llamacpp/front/ca.pem").content_string)
        # What clients read that cannot be told of an authority otherwise.
        os.environ["SSL_CERT_FILE"] = str(self.authority)

    def keys(self, client: str) -> list[str]:
        """The valid keys of a client, the newest first."""
        return list(self.server.file(f"{CLIENTS}/{client}").content_string.split())

    def curl(self, path: str, *arguments: str, key: str = "", timeout: int = 30) -> tuple[int, str]:
        """Status (0 when the connection ended without one) and body of a request; the path goes out as it is written."""
        header = ["-H", f"Authorization: Bearer {key}"] if key else []
        command = ["curl", "-s", "--path-as-is", "--max-time", str(timeout), "--cacert", str(self.authority), "-w", "\n%{http_code}"]
        done = subprocess.run([*command, *header, *arguments, f"{URL}{path}"], capture_output=True, text=True, check=False)
        body, _newline, status = done.stdout.rpartition("\n")
        return int(status), body

    def client(self, key: str, **more: Any) -> openai.OpenAI:
        """The unmodified client, which tries once."""
        return openai.OpenAI(base_url=f"{URL}/v1", api_key=key, max_retries=0, **more)


@pytest.fixture(scope="session")
def front(server: Any, tmp_path_factory: pytest.TempPathFactory) -> Front:
    return Front(server, tmp_path_factory.mktemp("front"))


def question(tokens: int, **more: Any) -> dict[str, Any]:
    """A request for exactly so many tokens; a model of random weights ends its answers at will otherwise."""
    messages = [{"role": "user", "content": "Tell me a story."}]
    return {"model": MODEL, "messages": messages, "max_tokens": tokens, "extra_body": {"ignore_eos": True}, **more}
