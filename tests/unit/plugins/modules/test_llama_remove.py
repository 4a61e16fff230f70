# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module on a host in a temporary directory: what is gone, what stays, and what is refused."""

from __future__ import annotations

import json
import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.onprem.llamacpp.plugins.module_utils import _instance, _removal
from ansible_collections.onprem.llamacpp.plugins.modules import llama_remove

COMMIT = "0123456789abcdef0123456789abcdef01234567"
STRANGER = "etc/systemd/system/llamacpp-of-somebody-else.service"
BUILD = "b11549-cpu-x86_64-0f6d59c1"


class Host:
    """A deployed host below a temporary root, and what its tools are asked."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.asked: list[list[str]] = []
        self.active: set[str] = set()
        self.held = {"llama.cpp"}
        self.users = {"llamacpp", "llamacpp-fetch", "postgres"}
        self.fetching = ""
        self.proc = str(root.parent / f"{root.name}-proc")
        mounts = Path(self.proc, "self/mounts")
        mounts.parent.mkdir(parents=True)
        mounts.write_text("/dev/sda1 / ext4 rw 0 0\n")
        self.write("etc/systemd/system/llamacpp-of-somebody-else.service", "etc/hosts")
        for name in ("llamacpp@.service", "llamacpp-recover.service"):
            (root / "etc/systemd/system" / name).write_text(f"# {_removal.INSTALLED}.\n[Unit]\n")
        self.write("usr/local/libexec/llamacpp/llamacpp-switch", "usr/local/libexec/other/program")
        self.write(f"opt/llamacpp/releases/{BUILD}/bin/llama-server", "opt/llamacpp/build/ccache/x")
        self.write("run/llamacpp-fetch/0a1b2c3d/job.json", "run/llamacpp-swarm/0a1b2c3d-seed/job.json")
        (root / f"opt/llamacpp/releases/{BUILD}/build.json").write_text(json.dumps({"build_id": BUILD, "packages": {"llama.cpp": "1-1"}}))
        self.model = self.publish("UD-Q2_K_XL")

    def write(self, *paths: str) -> None:
        for path in paths:
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            (self.root / path).write_bytes(b"x" * mmap.PAGESIZE)

    def publish(self, quant: str) -> Path:
        folder = self.root / "var/lib/llamacpp/models/org--Repo" / COMMIT / quant
        self.write(str(folder.relative_to(self.root) / "m.gguf"))
        files = [{"path": "m.gguf", "name": "m.gguf", "size": mmap.PAGESIZE}]
        (folder / "manifest.json").write_text(json.dumps({"repo_id": "org/Repo", "commit": COMMIT, "quant": quant, "files": files}))
        return folder

    def deploy(self, name: str) -> None:
        self.write(
            f"etc/llamacpp/instances/{name}/api-keys", f"var/lib/llamacpp/instances/{name}/switch.json", f"var/cache/llamacpp/{name}/x"
        )
        folder = self.root / "etc/llamacpp/instances" / name / "deployments/abc"
        folder.mkdir(parents=True)
        (folder / "engine").symlink_to(self.root / "opt/llamacpp/releases" / BUILD)
        (folder / "model").symlink_to(self.model)
        (folder.parents[1] / "current").symlink_to("deployments/abc")
        self.write(f"etc/systemd/system/llamacpp@{name}.service.d/50-deployment.conf")
        self.write(f"etc/systemd/system/multi-user.target.wants/llamacpp@{name}.service")
        self.active.add(f"llamacpp@{name}.service")

    def run(self, argv: list[str]) -> tuple[int, str, str]:
        self.asked.append(argv)
        if argv[:2] == ["systemctl", "show"]:
            return 0, "active\n" if argv[-1] in self.active else "inactive\n", ""
        if argv[:2] == ["systemctl", "list-units"]:
            return 0, self.fetching, ""
        if argv[:3] == ["systemctl", "--quiet", "disable"]:
            self.active.discard(argv[-1])
            (self.root / "etc/systemd/system/multi-user.target.wants" / argv[-1]).unlink(missing_ok=True)
        elif argv[:2] == ["apt-mark", "showhold"]:
            return 0, "\n".join(self.held & set(argv[2:])), ""
        elif argv[:2] == ["apt-mark", "unhold"]:
            self.held.discard(argv[2])
        elif argv[0] == "userdel":
            self.users.discard(argv[1])
        return 0, "", ""

    def remove(self, *, check_mode: bool = False, **wish: Any) -> dict[str, Any]:
        params = {
            **{"instances": [], "engines": False, "models": False, "model_user": "llamacpp-fetch"},
            **{"engine_root": str(self.root / "opt/llamacpp"), "model_root": str(self.root / "var/lib/llamacpp/models")},
        }
        return llama_remove.remove({**params, **wish}, check_mode, self.run, str(self.root), self.proc)

    def tree(self) -> list[str]:
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*"))

    def files(self) -> list[str]:
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*") if not path.is_dir() or path.is_symlink())


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host(tmp_path)
    made.deploy("main")
    monkeypatch.setattr(_removal, "_is_user", lambda name: name in made.users)
    return made


ALL = {"instances": ["all"], "engines": True, "models": True}


def test_everything_that_is_ours_goes_and_nothing_else(host: Host) -> None:
    result = host.remove(**ALL)
    assert result["changed"]
    assert host.files() == ["etc/hosts", STRANGER, "usr/local/libexec/other/program"]
    assert [path for path in host.tree() if "llamacpp" in path] == [STRANGER]
    assert (host.users, host.held, host.active) == ({"postgres"}, set(), set())
    assert result["packages"] == ["llama.cpp"]
    assert ["systemctl", "daemon-reload"] in host.asked


def test_second_removal_changes_nothing(host: Host) -> None:
    host.remove(**ALL)
    before = host.tree()
    result = host.remove(**ALL)
    assert (result["changed"], result["diff"]["before"]) == (False, "")
    assert host.tree() == before


def test_check_mode_says_what_would_go_and_leaves_it(host: Host) -> None:
    before = host.tree()
    told = host.remove(check_mode=True, **ALL)
    assert host.tree() == before
    assert not any(argv[0] in ("userdel",) or "disable" in argv or "unhold" in argv for argv in host.asked)
    assert told["removed"] == host.remove(**ALL)["removed"]
    assert f"{host.root}/etc/llamacpp/instances/main\n" in told["diff"]["before"]


def test_what_is_not_asked_for_stays(host: Host) -> None:
    host.remove(instances=["main"])
    left = host.files()
    assert f"opt/llamacpp/releases/{BUILD}/build.json" in left
    assert any(path.endswith("manifest.json") for path in left)
    assert not any("instances" in path or "systemd" in path for path in left if path != STRANGER)
    assert host.users == {"llamacpp-fetch", "postgres"}


def test_another_instance_keeps_what_all_instances_share(host: Host) -> None:
    host.deploy("small")
    host.remove(instances=["small"])
    assert "etc/systemd/system/llamacpp@.service" in host.files()
    assert not [path for path in host.tree() if "small" in path]
    assert host.active == {"llamacpp@main.service"}
    assert "llamacpp" in host.users


def test_front_and_firewall_of_an_instance_go_with_it(host: Host) -> None:
    host.deploy("small")
    for name in ("main", "small"):
        host.write(
            f"etc/nginx/conf.d/llamacpp-{name}.conf", f"etc/llamacpp/front/{name}/upstream.conf", f"etc/llamacpp/front/{name}/key.pem"
        )
    host.write("etc/llamacpp/front/ca.pem", "etc/nginx/conf.d/theirs.conf", "var/log/nginx/llamacpp-main.log.1.gz")
    (host.root / "etc/llamacpp/firewall").mkdir()
    record = host.root / "etc/llamacpp/firewall/main.json"
    record.write_text(json.dumps({"kind": "ufw", "rules": [[8443, "10.0.0.0/8"]]}))
    (host.root / "etc/nginx/conf.d/llamacpp-main.conf").write_text("server {\n    listen 0.0.0.0:8443 ssl;\n}\n")
    assert host.remove(instances=["main"])["front_ports"] == [8443]
    assert sorted(path.name for path in (host.root / "etc/nginx/conf.d").iterdir()) == ["llamacpp-small.conf", "theirs.conf"]
    assert sorted(path.name for path in (host.root / "etc/llamacpp/front").iterdir()) == ["ca.pem", "small"]
    assert not record.exists()
    assert ["ufw", "delete", "allow", "proto", "tcp", "from", "10.0.0.0/8", "to", "any", "port", "8443"] in host.asked
    host.remove(**ALL)
    assert [path for path in host.tree() if "llamacpp" in path] == [STRANGER]
    assert "etc/nginx/conf.d/theirs.conf" in host.files()


def test_second_server_of_an_instance_goes_with_it(host: Host) -> None:
    host.active.add("llamacpp-beside@main.service")
    host.write("run/systemd/system/llamacpp-beside@main.service.d/50-deployment.conf")
    host.remove(instances=["main"])
    assert host.active == set()
    assert not (host.root / "run/systemd/system/llamacpp-beside@main.service.d").exists()


def test_drop_in_of_somebody_else_stays(host: Host) -> None:
    host.write("etc/systemd/system/llamacpp@main.service.d/90-mine.conf")
    host.remove(**ALL)
    assert "etc/systemd/system/llamacpp@main.service.d/90-mine.conf" in host.files()


def test_removal_that_was_interrupted_is_finished(host: Host) -> None:
    (host.root / "etc/systemd/system/llamacpp@main.service.d/50-deployment.conf").unlink()
    _removal.shutil.rmtree(host.root / "etc/llamacpp")
    host.model.rename(host.model.with_name(f".{host.model.name}.removed"))
    (host.model.with_name(f".{host.model.name}.removed") / "manifest.json").unlink()
    host.remove(**ALL)
    assert [path for path in host.tree() if "llamacpp" in path] == [STRANGER]


def refused(host: Host, **wish: Any) -> str:
    before = host.tree()
    result = host.remove(**wish)
    assert host.tree() == before
    assert not result["changed"]
    return "; ".join(result["refusals"])


def test_what_another_instance_needs_is_refused(host: Host) -> None:
    host.deploy("small")
    told = refused(host, instances=["main"], engines=True, models=True)
    assert f"deployment abc of instance small, which stays, needs the engine {host.root}/opt/llamacpp/releases/{BUILD}" in told
    assert f"needs the model {host.model}" in told


def test_engine_of_an_instance_that_nobody_asked_to_remove_is_refused(host: Host) -> None:
    assert "of instance main, which stays, needs the engine" in refused(host, engines=True)


def test_program_that_has_a_model_open_is_named(host: Host) -> None:
    host.proc = "/proc"
    with (host.model / "m.gguf").open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ):
        assert "has an open file below" in refused(host, **ALL)


def test_mirror_that_serves_the_models_is_named(host: Host) -> None:
    folder = host.root / "var/lib/llamacpp/mirror/files"
    folder.mkdir(parents=True)
    (folder / "m.gguf").symlink_to(host.model / "m.gguf")
    assert "the mirror of this host serves models" in refused(host, **ALL)


def test_switch_and_transfer_that_run_are_waited_for(host: Host) -> None:
    host.active.add("llamacpp-switch-main.service")
    units = ["llamacpp-fetch-0a1b2c3d.service", "llamacpp-swarm-seed-0a1b2c3d.service"]
    host.fetching = "".join(f"{unit} loaded active running\n" for unit in units)
    told = refused(host, **ALL)
    assert "a switch of main is running" in told
    assert all(f"{unit} brings a model or gives it to other hosts" in told for unit in units)
    assert host.asked[-1][-2:] == ["llamacpp-fetch-*", "llamacpp-swarm-*"]


def test_step_that_fails_names_its_command(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    right = host.run

    def run(argv: list[str]) -> tuple[int, str, str]:
        return (1, "", "user llamacpp is currently used by process 7") if argv[0] == "userdel" else right(argv)

    monkeypatch.setattr(host, "run", run)
    with pytest.raises(_removal.RemovalError, match="userdel llamacpp failed: user llamacpp is currently used by process 7"):
        host.remove(instances=["all"])


def test_a_name_that_no_instance_can_have_is_refused(run_module: Callable[..., tuple[int, dict[str, Any]]]) -> None:
    status, result = run_module("llama_remove", instances=["../etc"])
    assert status == 1
    assert result["msg"] == f"'../etc' is not a valid instance name: {_instance.NAME_RULE}."
