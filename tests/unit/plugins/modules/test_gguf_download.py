# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module's decisions, with a stand-in for systemd that runs the real transfer as a real process."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import time
from types import SimpleNamespace

import pytest
from hub_server import COMMIT, REPO_ID, Hub

from ansible_collections.onprem.llamacpp.plugins.module_utils import _fetch_unit
from ansible_collections.onprem.llamacpp.plugins.module_utils._model_store import Model, StoreError
from ansible_collections.onprem.llamacpp.plugins.modules import gguf_download

FIRST = "Q2_K/M-Q2_K-00001-of-00002.gguf"
DATA = os.urandom(1 << 20) * 5


class Systemd:
    """What the module asks of systemd: show, reset-failed, stop, systemd-run, and the journal."""

    def __init__(self, folder):
        self.credentials = folder / "credentials"
        self.process = None
        self.argv = []
        self.refuses = ""
        self.program = None

    def run_command(self, argv):
        self.argv.append(list(argv))
        if argv[0] == "systemd-run":
            return self.start(argv)
        if argv[:2] == ["systemctl", "show"]:
            ended = self.process is None or self.process.poll() is not None
            return 0, f"ActiveState={'inactive' if ended else 'active'}\nResult=signal\nExecMainStatus=9\n", ""
        if argv[:2] == ["systemctl", "stop"] and self.process:
            self.process.kill()
            self.process.wait()
        return 0, "last words\n", ""

    def start(self, argv):
        if self.refuses:
            return 1, "", self.refuses
        secret = next(value.split(":", 1)[1] for value in argv if value.startswith("--property=LoadCredential="))
        shutil.rmtree(self.credentials, ignore_errors=True)
        self.credentials.mkdir()
        shutil.copy(secret, self.credentials / "private")
        assert os.stat(secret).st_mode & 0o777 == 0o600
        command = self.program or argv[argv.index("--") + 1 :]
        self.process = subprocess.Popen(command, env={"CREDENTIALS_DIRECTORY": str(self.credentials)}, stderr=subprocess.DEVNULL)
        return 0, "", ""


@pytest.fixture
def hub():
    made = Hub({FIRST: DATA, "Q2_K/M-Q2_K-00002-of-00002.gguf": b"second"})
    yield made
    made.close()


@pytest.fixture
def host(tmp_path, monkeypatch, hub):
    """A host with that systemd; ``host(…)`` runs the module once."""
    systemd = Systemd(tmp_path)
    monkeypatch.setattr(_fetch_unit, "RUNTIME", str(tmp_path / "run"))
    monkeypatch.setattr(gguf_download, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(gguf_download, "run", systemd.run_command)
    monkeypatch.setattr(gguf_download, "require_systemd", lambda _module: None)
    monkeypatch.setattr(_fetch_unit.pwd, "getpwnam", lambda _name: pwd.getpwuid(os.getuid()))
    monkeypatch.setattr(os, "fchown", lambda *_args: None)

    def run(check_mode=False, state="present", files=None, **params):
        known = {"endpoint": hub.url, "token": None, "user": "llamacpp-fetch", "timeout": 5.0, "retries": 0, "wait": 20.0, "run_id": "one"}
        module = SimpleNamespace(params={**known, **params}, check_mode=check_mode)
        model = Model(str(tmp_path / "models"), REPO_ID, COMMIT, "Q2_K", hub.listing() if files is None else files)
        run.model = model
        return (gguf_download.fetch if state == "present" else gguf_download.remove)(module, model)

    run.systemd = systemd
    yield run
    if systemd.process:
        systemd.process.kill()
        systemd.process.wait()


def starts(host):
    return [argv for argv in host.systemd.argv if argv[0] == "systemd-run"]


def test_downloads_and_publishes(host, hub):
    result = host()
    assert (result["finished"], result["changed"], result["bytes_done"]) == (True, True, len(DATA) + 6)
    assert host.model.complete()
    with open(os.path.join(result["path"], os.path.basename(FIRST)), "rb") as stream:
        assert stream.read() == DATA


def test_complete_model_costs_no_request_and_no_unit(host, hub):
    host()
    hub.requests.clear()
    host.systemd.argv.clear()
    result = host(run_id="two")
    assert (result["finished"], result["changed"]) == (True, False)
    assert hub.requests == []
    assert host.systemd.argv == []


def test_check_mode_says_what_it_would_do_and_does_nothing(host, hub, tmp_path):
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    result = host(check_mode=True)
    assert (result["changed"], result["finished"]) == (True, False)
    assert "Would download 2 files, 5.2 MB of 5.2 MB, from http://" in result["msg"]
    assert FIRST.split("/")[1] in result["diff"]["after"]
    assert hub.requests == []
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


def test_failure_is_told_and_the_next_run_goes_on(host, hub):
    with pytest.raises(StoreError, match="it goes on from here"):
        hub.faults = ["truncate", 500]
        host()
    held = os.path.getsize(os.path.join(host.model.staging, os.path.basename(FIRST) + ".part"))
    assert 0 < held < len(DATA)
    assert host(run_id="two")["finished"]
    assert f"bytes={held}-" in hub.ranges()


def test_failure_between_two_looks_is_told_too(host, hub):
    hub.faults = [404]
    assert host(wait=0)["finished"] is False
    host.systemd.process.wait(20)
    with pytest.raises(StoreError, match="HTTP 404"):
        host(wait=0)
    assert len(starts(host)) == 1


def test_flipped_byte_publishes_nothing(host, hub):
    hub.faults = ["flip"]
    with pytest.raises(StoreError, match="is not the published file: sha256"):
        host()
    assert not os.path.exists(host.model.path)
    assert not os.path.exists(os.path.join(host.model.staging, os.path.basename(FIRST)))


def test_a_second_run_attaches(host, hub):
    hub.faults = ["drip"]
    assert host(wait=0)["finished"] is False
    first = host(run_id="two", wait=0)
    assert (first["finished"], first["changed"]) == (False, True)
    assert host(run_id="two")["finished"]
    assert len(starts(host)) == 1


def test_killed_unit_is_started_again_and_resumes(host, hub):
    hub.faults = ["drip"]
    host(wait=0)
    part = os.path.join(host.model.staging, os.path.basename(FIRST) + ".part")
    deadline = time.monotonic() + 10
    while (not os.path.exists(part) or os.path.getsize(part) < 1 << 20) and time.monotonic() < deadline:
        time.sleep(0.01)
    host.systemd.process.kill()
    host.systemd.process.wait()
    held = os.path.getsize(part)
    assert host()["finished"]
    assert len(starts(host)) == 2
    assert hub.ranges()[1] == f"bytes={held}-"


def test_a_unit_that_always_dies_is_given_up(host):
    host.systemd.program = ["/bin/false"]
    with pytest.raises(StoreError, match=r"ended 3 times without bringing a byte \(result signal, status 9\): last words"):
        host()
    assert len(starts(host)) == 3


def test_systemd_that_refuses_is_quoted(host):
    host.systemd.refuses = "Failed to start transient service unit: Unknown assignment"
    with pytest.raises(StoreError, match=r"systemd would not start the transfer as llamacpp-fetch-.*Unknown assignment.*systemd 247"):
        host()


def test_secrets_reach_the_transfer_but_no_argument_and_no_file_that_stays(host, hub, tmp_path, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://user:proxysecret@127.0.0.1:9")
    assert host(token="hf_secret")["finished"]
    assert hub.requests[0][2]["Authorization"] == "Bearer hf_secret"
    shutil.rmtree(host.systemd.credentials)
    written = "".join(path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file())
    for secret in ("hf_secret", "proxysecret"):
        assert secret not in str(host.systemd.argv)
        assert secret not in written


def test_full_disk_is_told_before_anything_starts(host, monkeypatch):
    monkeypatch.setattr(Model, "free_bytes", lambda _self: (1000, "/var"))
    for check_mode in (True, False):
        with pytest.raises(StoreError, match=r"needs 5\.2 MB more .* has 0\.0 MB free"):
            host(check_mode=check_mode)
    assert starts(host) == []


def test_missing_user_is_told(host, monkeypatch):
    def missing(name):
        raise KeyError(name)

    monkeypatch.setattr(_fetch_unit.pwd, "getpwnam", missing)
    with pytest.raises(StoreError, match="user llamacpp-fetch does not exist"):
        host()


def test_absent_stops_and_removes(host, hub, tmp_path):
    hub.faults = ["drip"]
    host(wait=0)
    result = host(state="absent", files=[])
    assert (result["changed"], result["finished"]) == (True, True)
    assert host.systemd.process.poll() is not None
    assert os.listdir(tmp_path / "models") == []
    assert host(state="absent", files=[])["changed"] is False
