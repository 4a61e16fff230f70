# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os

import pytest

from ansible_collections.onprem.llamacpp.plugins.module_utils import _swarm_unit, _units
from ansible_collections.onprem.llamacpp.plugins.module_utils._model_store import Model
from ansible_collections.onprem.llamacpp.plugins.module_utils._program import PACKAGE

FILES = [{"path": "Q8_0/m-Q8_0.gguf", "size": 9, "sha256": "a" * 64}]
WISH = {"repo_id": "org/repo", "commit": "c" * 40, "quant": "Q8_0", "files": FILES, "mirror": "http://mirror"}


class Host:
    """Answers for systemd and Python; remembers what it was asked."""

    def __init__(self, active=(), libtorrent=True):
        self.active, self.libtorrent, self.asked = active, libtorrent, []

    def __call__(self, argv):
        self.asked.append(argv)
        if argv[:2] == ["systemctl", "show"]:
            return 0, "active\n" if any(argv[-1].startswith(name) for name in self.active) else "inactive\n", ""
        if argv[-1] == "import libtorrent":
            return (0 if self.libtorrent else 1), "", ""
        return 0, "", ""


@pytest.fixture
def swarm(tmp_path, monkeypatch):
    monkeypatch.setattr(_units, "SWARM_RUNTIME", str(tmp_path / "run"))

    def make(host, **params):
        known = {"number": 1, "sharers": ["192.0.2.1", ""], "peers": ["192.0.2.1"], "port": 6881, "upload_limit": 0, "mirror": "http://m"}
        known.update(ca_file="", timeout=60.0, rate_limit=0, token="secret", user=user(), seconds=60, ratio=0.0)
        return _swarm_unit.Swarm(Model(str(tmp_path / "models"), "org/repo", "c" * 40, "Q8_0", FILES), {**known, **params}, host)

    return make


def user():
    import pwd  # noqa: PLC0415

    return pwd.getpwuid(os.getuid()).pw_name


@pytest.mark.parametrize(
    ("host", "said"),
    [
        pytest.param(Host(), "", id="nothing"),
        pytest.param(Host(libtorrent=False), "no Python of this host has libtorrent", id="no libtorrent"),
        pytest.param(Host(active=["llamacpp-fetch-"]), "a transfer of the model is under way", id="a transfer is under way"),
    ],
)
def test_what_hinders_a_host(swarm, host, said):
    found = swarm(host).hindrance()
    assert found.startswith(said)
    assert bool(found) == bool(said)


def test_too_little_space_hinders_a_host(swarm, monkeypatch):
    made = swarm(Host())
    monkeypatch.setattr(Model, "free_bytes", lambda _self: (8, "/models"))
    assert "has 0.0 MB free" in made.hindrance()


def test_filling_starts_a_closed_unit_without_the_token_in_sight(swarm, tmp_path):
    host = Host()
    swarm(host).fill()
    (argv,) = [argv for argv in host.asked if argv[0] == "systemd-run"]
    assert f"--uid={user()}" in argv
    assert "--property=ProtectSystem=strict" in argv
    assert any(item.startswith("--property=ReadWritePaths=") and item.endswith(".Q8_0.staging") for item in argv)
    assert "secret" not in " ".join(argv)
    assert not list((tmp_path / "run").glob("*/private"))
    assert "secret" not in next((tmp_path / "run").glob("*/job.json")).read_text()


def test_seeding_may_write_nothing(swarm):
    host = Host()
    swarm(host).seed()
    (argv,) = [argv for argv in host.asked if argv[0] == "systemd-run"]
    assert not any("ReadWritePaths" in item for item in argv)
    assert "--property=RuntimeMaxSec=120" in argv


def test_the_program_holds_all_that_it_imports(swarm, tmp_path):
    import subprocess  # noqa: PLC0415
    import sys  # noqa: PLC0415

    swarm(Host()).fill()
    program = str(next((tmp_path / "run").glob("*/swarm.pyz")))
    code = f"import sys; sys.path.insert(0, {program!r}); import {PACKAGE}._swarm"
    subprocess.run([sys.executable, "-I", "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("content", ["", "[]", '{"state": ["x"], "bytes_done": -5, "peers": "many", "note": null}'])
def test_a_status_file_is_read_with_suspicion(swarm, content):
    made = swarm(Host())
    os.makedirs(made.model.staging)
    with open(made.status_file, "w", encoding="ascii") as stream:
        stream.write(content)
    found = made.progress()
    assert (found["bytes_done"], found["peers"], found["note"]) == (0, 0, "")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({"mirror": "ftp://mirror"}, "is not an http or https URL", id="no URL"),
        pytest.param({"sharers": ["192.0.2.1"]}, "exactly once", id="a swarm without this host"),
        pytest.param({"commit": "main"}, "commit 'main' is not usable", id="no commit"),
    ],
)
def test_a_wish_that_makes_no_sense_is_refused(run_module, tmp_path, change, said):
    status, result = run_module("gguf_swarm", **{**WISH, "root": str(tmp_path), **change})
    assert status != 0
    assert said in result["msg"]


def test_check_mode_says_what_would_be_done(run_module, tmp_path):
    status, result = run_module("gguf_swarm", **WISH, root=str(tmp_path), peers=["192.0.2.1"], _ansible_check_mode=True)
    assert (status, result["changed"], result["filled"]) == (0, True, False)
    assert "Would exchange Q8_0 with 1 peers" in result["msg"]
    assert list(tmp_path.iterdir()) == []
