# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Models of the controller are served with ranges, nothing else is, and the way to a host is the play's own."""

from __future__ import annotations

import stat
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible.errors import AnsibleActionFail

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _tunnel

COMMIT = "b" * 40
CONTENT = bytes(range(256)) * 400
PLACE = f"/example/Model-GGUF/resolve/{COMMIT}"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "models" / "example--Model-GGUF" / COMMIT / "Q2_K"
    folder.mkdir(parents=True)
    (folder / "m.gguf").write_bytes(CONTENT)
    (tmp_path / "models" / "example--Model-GGUF" / COMMIT / ".Q4.staging").mkdir()
    (tmp_path / "models" / "example--Model-GGUF" / COMMIT / ".Q4.staging" / "n.gguf").write_bytes(b"half")
    (tmp_path / "secret").write_bytes(b"secret")
    return tmp_path / "models"


def ask(port: int, path: str, **headers: str) -> tuple[int, bytes, str]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=5) as answer:
            return answer.status, answer.read(), answer.headers.get("Content-Range", "")
    except urllib.error.HTTPError as error:
        return error.code, b"", ""


@pytest.mark.parametrize(
    ("asked", "status", "content", "told"),
    [
        pytest.param({}, 200, CONTENT, "", id="whole"),
        pytest.param({"Range": "bytes=100-"}, 206, CONTENT[100:], f"bytes 100-102399/{len(CONTENT)}", id="from a byte on"),
        pytest.param({"Range": "bytes=100-199"}, 206, CONTENT[100:200], f"bytes 100-199/{len(CONTENT)}", id="a range"),
        pytest.param({"Range": f"bytes={len(CONTENT)}-"}, 416, b"", "", id="behind the end"),
    ],
)
def test_ranges(root: Path, asked: dict[str, str], status: int, content: bytes, told: str) -> None:
    with _tunnel.served(str(root)) as port:
        assert ask(port, f"{PLACE}/Q2_K/m.gguf", **asked) == (status, content, told)


@pytest.mark.parametrize(
    "path",
    [
        f"{PLACE}/Q2_K/other.gguf",
        f"{PLACE}/Q4/n.gguf",
        f"{PLACE}/../../../../secret",
        f"{PLACE}/%2e%2e/%2e%2e/%2e%2e/%2e%2e/secret",
        "/secret",
        "/../secret",
        f"/../example--Model-GGUF/resolve/{COMMIT}/m.gguf",
    ],
)
def test_nothing_but_published_models_is_served(root: Path, path: str) -> None:
    with _tunnel.served(str(root)) as port:
        assert ask(port, path)[0] == 404


class Connection:
    """An SSH connection whose program is a script."""

    transport = "ssh"

    def __init__(self, program: Path, password: str = "") -> None:
        self.program, self.password = program, password

    def get_option(self, name: str) -> str:
        return {"host": "gpu1", "ssh_executable": str(self.program), "password": self.password}[name]

    def _build_command(self, binary: str, _subsystem: str, *arguments: str) -> list[bytes]:
        return [part.encode() for part in (binary, "-o", "ControlPath=/shared", *arguments)]


def program(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "ssh"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_the_way_to_the_host_is_a_connection_of_its_own(tmp_path: Path, root: Path) -> None:
    says = f'echo "$@" > {tmp_path}/argv; echo "Allocated port 40123 for remote forward to 127.0.0.1:1" >&2; exec sleep 60'
    with _tunnel.offered(Connection(program(tmp_path, says)), str(root)) as tunnel:
        assert tunnel.open() == "http://127.0.0.1:40123"
        first = tunnel.process
        assert tunnel.open() == "http://127.0.0.1:40123"
        assert tunnel.process is first
        first.kill()
        first.wait()
        tunnel.open()
        assert tunnel.process is not first
    assert tunnel.process.poll() is not None
    words = (tmp_path / "argv").read_text().split()
    assert words.index("ControlPath=none") < words.index("ControlPath=/shared")
    assert words[-3:] == ["-R", f"0:127.0.0.1:{tunnel.port}", "gpu1"]


@pytest.mark.parametrize(
    ("connection", "message"),
    [
        pytest.param(lambda path: Connection(program(path, "echo 'forwarding failed' >&2; exit 255")), "forwarding failed", id="refused"),
        pytest.param(lambda path: Connection(program(path, "exit 0"), "secret"), "with a password", id="password"),
        pytest.param(lambda _path: SimpleNamespace(transport="docker"), "reached by docker", id="no ssh"),
    ],
)
def test_a_way_that_cannot_be_is_told_in_a_sentence(tmp_path: Path, root: Path, connection: object, message: str) -> None:
    with _tunnel.offered(connection(tmp_path), str(root)) as tunnel, pytest.raises(AnsibleActionFail, match=message):
        tunnel.open()


def test_a_controller_that_is_the_host_needs_no_way(root: Path) -> None:
    with _tunnel.offered(SimpleNamespace(transport="local"), str(root)) as tunnel:
        assert ask(int(tunnel.open().rsplit(":", 1)[1]), f"{PLACE}/Q2_K/m.gguf")[0] == 200


def test_a_directory_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(AnsibleActionFail, match="no directory on the controller"), _tunnel.offered(None, str(tmp_path / "none")):
        pass
