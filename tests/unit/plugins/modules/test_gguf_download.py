# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module's decisions, with a stand-in for systemd that runs the real transfer as a real process."""

from __future__ import annotations

import errno
import json
import os
import pwd
import shutil
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from hub_server import COMMIT, REPO_ID, Hub

from ansible_collections.onprem.llamacpp.plugins.module_utils import _fetch_unit, _journal
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
            state = "inactive" if ended else "active"
            return 0, f"{state}\n" if "--value" in argv else f"ActiveState={state}\nResult=signal\nExecMainStatus=9\n", ""
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

    def run(check_mode=False, state="present", files=None, commit=COMMIT, **params):
        known = {
            "sources": [{"transport": "hub", "url": hub.url, "token": ""}],
            "verify": "none",
            "user": "llamacpp-fetch",
            "timeout": 5.0,
            "retries": 0,
            "connections": 1,
            "files_at_once": 1,
            "rate_limit": 0,
            "window": "",
            "ca_file": None,
            "wait": 20.0,
            "run_id": "one",
        }
        module = SimpleNamespace(params={**known, **params}, check_mode=check_mode)
        model = Model(str(tmp_path / "models"), REPO_ID, commit, "Q2_K", hub.listing() if files is None else files)
        run.model = model
        return (gguf_download.fetch if state == "present" else gguf_download.remove)(module, model)

    run.systemd = systemd
    yield run
    if systemd.process:
        systemd.process.kill()
        systemd.process.wait()


def received(host):
    """Bytes that the journal of the first file knows."""
    return _journal.bytes_present(host.model.staging, host.model.files[:1])


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
    held = received(host)
    assert 0 < held < len(DATA)
    assert host(run_id="two")["finished"]
    assert f"bytes={held}-4194303" in hub.ranges()


def test_failure_between_two_looks_is_told_too(host, hub):
    hub.faults = [404]
    assert host(wait=0)["finished"] is False
    host.systemd.process.wait(20)
    with pytest.raises(StoreError, match="HTTP 404"):
        host(wait=0)
    assert len(starts(host)) == 1


def test_flipped_byte_publishes_nothing(host, hub):
    hub.damaged = {9}
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
    hub.files[FIRST] = DATA * 8  # 40 MiB in four seconds
    hub.faults = ["drip"] * 10
    host(wait=0)
    deadline = time.monotonic() + 10
    while not received(host) and time.monotonic() < deadline:
        time.sleep(0.01)
    host.systemd.process.kill()
    host.systemd.process.wait()
    held = received(host)
    assert held > 0
    assert host()["finished"]
    assert len(starts(host)) == 2
    assert f"bytes={held}-{(held // (8 << 20) + 1) * (8 << 20) - 1}" in hub.ranges()


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
    assert host(sources=[{"transport": "hub", "url": hub.url, "token": "hf_secret"}])["finished"]
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
    stopped = [argv[-1].rpartition("-")[0] for argv in host.systemd.argv if argv[:2] == ["systemctl", "stop"]]
    # To this systemd a process is every unit that it is asked about.
    assert stopped == ["llamacpp-swarm-fill", "llamacpp-fetch"]
    assert os.listdir(tmp_path / "models") == []
    assert host(state="absent", files=[])["changed"] is False


OTHER = "89abcdef0123456789abcdef0123456789abcdef"


def published(host, path=FIRST):
    return os.path.join(host.model.path, os.path.basename(path))


def spoil(path, position=9):
    """Damage a published file as a disk does it: no time changes."""
    times = os.stat(path)
    with open(path, "r+b") as stream:
        stream.seek(position)
        byte = stream.read(1)[0]
        stream.seek(position)
        stream.write(bytes([byte ^ 1]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_files_of_another_commit_are_linked_and_only_the_rest_is_fetched(host, hub, tmp_path):
    host()
    first = published(host)
    hub.requests.clear()
    hub.files["Q2_K/M-Q2_K-00002-of-00002.gguf"] = b"changed"
    told = host(check_mode=True, commit=OTHER)["msg"]
    assert "Would download 1 files, 0.0 MB of 5.2 MB" in told
    assert "Would link 1 files, 5.2 MB" in told
    result = host(commit=OTHER, run_id="two")
    assert (result["finished"], result["changed"]) == (True, True)
    assert all("00002" in path for _m, path, _h in hub.requests)
    assert os.path.samefile(first, published(host))
    manifest = json.loads((Path(host.model.path) / "manifest.json").read_text())
    assert [entry["blocks"][-1] for entry in manifest["files"]] == [item["sha256"] for item in hub.listing()]
    assert host(commit=OTHER, run_id="three")["changed"] is False


def test_a_model_whose_files_are_all_there_costs_no_request(host, hub):
    host()
    hub.requests.clear()
    assert host(commit=OTHER, run_id="two")["finished"]
    assert hub.requests == []
    assert host.model.complete()


@pytest.mark.parametrize("verify", ["sizes", "full"])
def test_a_model_that_is_right_stays_as_it_is(host, hub, verify):
    host()
    hub.requests.clear()
    before = os.stat(host.model.path).st_ino
    began = len(starts(host))
    result = host(verify=verify, run_id="two")
    assert (result["finished"], result["changed"], result["repaired"]) == (True, False, False)
    assert os.stat(host.model.path).st_ino == before
    assert len(starts(host)) - began == (verify == "full")
    assert hub.requests == []
    assert not os.path.exists(host.model.staging)


def test_damage_is_found_and_repaired_and_good_files_are_linked(host, hub):
    host()
    good = os.stat(published(host, "M-Q2_K-00002-of-00002.gguf")).st_ino
    spoil(published(host))
    assert host(verify="sizes", run_id="two")["changed"] is False
    told = host(verify="full", run_id="three", check_mode=True)
    assert told["changed"] is False
    assert "Would read 2 published files, 5.2 MB" in told["msg"]
    result = host(verify="full", run_id="three")
    assert (result["finished"], result["changed"], result["repaired"]) == (True, True, True)
    assert Path(published(host)).read_bytes() == DATA
    assert os.stat(published(host, "M-Q2_K-00002-of-00002.gguf")).st_ino == good


def test_a_file_that_was_written_to_is_read_when_times_are_compared(host, hub):
    host()
    with open(published(host), "r+b") as stream:
        stream.write(b"damage")
    assert host(run_id="two")["changed"] is False
    result = host(verify="sizes", run_id="three")
    assert (result["changed"], result["repaired"]) == (True, True)
    assert Path(published(host)).read_bytes() == DATA
    assert host(verify="sizes", run_id="four")["changed"] is False


def test_a_file_that_was_written_to_is_replaced_by_a_copy_of_another_commit(host, hub, tmp_path):
    host()
    shutil.copytree(host.model.path, tmp_path / "models" / "org--Other" / OTHER / "Q2_K")
    with open(published(host), "r+b") as stream:
        stream.write(b"damage")
    hub.requests.clear()
    result = host(verify="sizes", run_id="two")
    assert (result["changed"], result["repaired"]) == (True, True)
    assert Path(published(host)).read_bytes() == DATA
    assert hub.requests == []


def test_a_missing_file_is_fetched_alone(host, hub):
    host()
    os.remove(published(host, "M-Q2_K-00002-of-00002.gguf"))
    hub.requests.clear()
    assert host(run_id="two")["changed"] is True
    assert host.model.complete()
    assert all("00002" in path for _m, path, _h in hub.requests)


def test_a_damaged_model_that_cannot_be_repaired_stays_published(host, hub):
    host()
    spoil(published(host))
    hub.always = 404
    with pytest.raises(StoreError, match="HTTP 404"):
        host(verify="full", run_id="two")
    assert os.path.getsize(published(host)) == len(DATA)


def test_a_copy_that_vanishes_while_the_rest_is_fetched_is_fetched_too(host, hub, tmp_path):
    host()
    hub.files["Q2_K/M-Q2_K-00002-of-00002.gguf"] = bytes(3 << 20)
    hub.faults = ["drip"]
    assert host(commit=OTHER, run_id="two", wait=0)["finished"] is False
    shutil.rmtree(tmp_path / "models" / "org--Repo-GGUF" / COMMIT)
    assert host(commit=OTHER, run_id="two")["finished"]
    assert Path(published(host)).read_bytes() == DATA


def test_directory_before_hub(host, hub, tmp_path):
    (tmp_path / "usb").mkdir()
    for path, data in hub.files.items():
        (tmp_path / "usb" / os.path.basename(path)).write_bytes(data)
    sources = [{"transport": "directory", "url": str(tmp_path / "usb")}, {"transport": "hub", "url": hub.url}]
    assert host(sources=sources)["finished"]
    assert hub.requests == []
    assert f"--property=BindReadOnlyPaths=-{tmp_path}/usb" in starts(host)[0]
    assert json.loads((Path(host.model.path) / "manifest.json").read_text())["source"] == str(tmp_path / "usb")


@pytest.mark.parametrize(
    ("root", "directories", "protection"),
    [
        ("/var/lib/models", [], "yes"),
        ("/var/lib/models", ["/mnt/usb"], "yes"),
        ("/var/lib/models", ["/mnt/usb", "/home/me/usb"], "tmpfs"),
        ("/home/models", ["/home/me/usb"], "read-only"),
    ],
)
def test_homes_stay_closed_as_far_as_they_can(root, directories, protection):
    assert _fetch_unit.protect_home(root, directories) == protection


def test_ca_file_is_handed_over_as_a_credential(host, tmp_path):
    with pytest.raises(StoreError, match="CA file /nowhere does not exist on this host"):
        host(ca_file="/nowhere")
    (tmp_path / "ca.pem").write_text("")
    assert host(ca_file=str(tmp_path / "ca.pem"))["finished"]
    assert f"--property=LoadCredential=ca:{tmp_path}/ca.pem" in starts(host)[0]


def test_labels_are_restored_where_selinux_is_on(host, tmp_path, monkeypatch):
    (tmp_path / "enforce").write_text("1")
    monkeypatch.setattr(_fetch_unit, "SELINUX", str(tmp_path / "enforce"))
    host()
    assert ["restorecon", "-R", host.model.path] in host.systemd.argv


def test_read_only_file_system_is_told(host, monkeypatch, tmp_path):
    def read_only(path, *_more):
        raise OSError(errno.EROFS, "Read-only file system", path)

    monkeypatch.setattr(os, "mkdir", read_only)
    with pytest.raises(OSError, match="Read-only file system"):
        host()
    assert starts(host) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        pytest.param({"sources": []}, "name at least one", id="no source"),
        pytest.param({"sources": [{"transport": "hub", "url": "ftp://x"}]}, "'ftp://x' is not an http or https URL", id="other protocol"),
        pytest.param({"sources": [{"transport": "directory", "url": "usb"}]}, "'usb' is not an absolute path", id="relative directory"),
        pytest.param({"connections": 0}, "connections 0 is not usable: it is a number from 1 to 16", id="no connection"),
        pytest.param({"rate_limit": -1}, "rate_limit -1 is not usable", id="negative limit"),
        pytest.param({"window": "22-6"}, "written like 22:00-06:00", id="window"),
    ],
)
def test_options_that_make_no_sense(change, told):
    known = {"sources": [{"transport": "hub", "url": "http://x"}], "connections": 4, "files_at_once": 2, "rate_limit": 0, "window": ""}
    with pytest.raises(StoreError, match=told):
        gguf_download.check_params({**known, **change})
