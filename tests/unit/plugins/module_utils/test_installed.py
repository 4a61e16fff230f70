# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of ours is on a host, read from documents as the roles leave them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ansible_collections.onprem.llamacpp.plugins.module_utils import _device, _installed, _instance

MIB = 2**20


def test_devices_of_an_engine() -> None:
    text = "Available devices:\n  RPC0: 127.0.0.1:50052 (24105 MiB, 20000 MiB free)\n"
    text += "  Vulkan0: llvmpipe (LLVM 19, 256 bits) (24105 MiB, 1 MiB free)\n"
    engine = {"build_id": "b1", "path": "/r", "intact": True, "build": {"backend": "rpc", "programs": {"llama-server": "bin/llama-server"}}}
    found, warnings = _installed.list_devices("rpc", [engine], [], None, lambda argv: (0, text, ""))
    assert [(entry["uuid"], entry["kind"], entry["total"]) for entry in found] == [
        ("RPC0", "rpc", 24105 * MIB),
        ("Vulkan0", "rpc", 24105 * MIB),
    ]
    assert warnings == []


def test_device_of_an_rpc_server_that_is_busy_with_our_own_server() -> None:
    device = _device.device("RPC0", "rpc", "RPC0", "127.0.0.1:50052", 24105 * MIB)
    instance = {"active": "active", "plan": {"engine_backend": "rpc", "devices": [{**device, "capacity": 1}]}}
    assert _installed.devices_in_use([instance]) == [device]
    assert _installed.devices_in_use([{**instance, "active": "failed"}]) == []


def test_the_engine_in_use_is_asked_before_a_newer_one() -> None:
    asked = []

    def run(argv: list[str]) -> tuple[int, str, str]:
        asked.append(argv[0])
        return 0, "Available devices:\n  (none)\n", "no Vulkan driver\n"

    programs = {"programs": {"llama-server": "bin/llama-server"}, "backend": "vulkan"}
    engines = [
        {"build_id": "b2", "path": "/r/b2", "intact": True, "build": {**programs, "number": 2}},
        {"build_id": "b3", "path": "/r/b3", "intact": True, "build": {**programs, "number": 3}},
        {"build_id": "b4", "path": "/r/b4", "intact": False, "build": {**programs, "number": 4}},
    ]
    devices, warnings = _installed.list_devices("vulkan", engines, [{"document": {"build_id": "b2"}}], None, run)
    assert (asked, devices) == (["/r/b2/bin/llama-server"], [])
    assert warnings == ["/r/b2/bin/llama-server --list-devices shows no device: no Vulkan driver"]


def publish(root: Path, size: int) -> None:
    folder = root / "org--tiny" / ("a" * 40) / "Q2_K"
    folder.mkdir(parents=True)
    (folder / "tiny.gguf").write_bytes(b"x" * size)
    files = [{"path": "tiny.gguf", "name": "tiny.gguf", "size": 10, "sha256": "0" * 64, "blocks": ["0" * 64]}]
    (folder / "manifest.json").write_text(
        json.dumps({"repo_id": "org/tiny", "commit": "a" * 40, "quant": "Q2_K", "files": files, "bytes": 10})
    )


@pytest.mark.parametrize(("size", "complete"), [(10, True), (9, False)])
def test_model_is_complete_when_every_size_is_right(tmp_path: Path, size: int, complete: bool) -> None:
    publish(tmp_path, size)
    (tmp_path / "org--broken" / "c" / "q").mkdir(parents=True)
    (tmp_path / "org--broken" / "c" / "q" / "manifest.json").write_text("{nonsense")
    found = _installed.models(str(tmp_path))
    assert [(entry["repo_id"], entry["quant"], entry["complete"]) for entry in found] == [("org/tiny", "Q2_K", complete)]
    assert [sorted(entry) for entry in found[0]["manifest"]["files"]] == [["name", "path", "sha256", "size"]]


def test_bytes_of_a_download_under_way_are_counted(tmp_path: Path) -> None:
    staging = tmp_path / "org--tiny" / ("a" * 40) / ".UD-Q2_K_XL.staging"
    staging.mkdir(parents=True)
    (staging / "one.gguf.part").write_bytes(b"x" * 1000)
    for path, day in ((staging / "one.gguf.part", 2), (staging, 1)):
        os.utime(path, (day * 86400,) * 2)
    expected = {"repo_id": "org/tiny", "commit": "a" * 40, "quant": "UD-Q2_K_XL", "bytes": 1000}
    expected.update(path=str(staging), modified_at="1970-01-03T00:00:00Z")
    assert _installed.partial_models(str(tmp_path)) == [expected]
    assert _installed.models(str(tmp_path)) == []


def test_a_model_tells_who_uses_it_and_what_its_removal_frees(tmp_path: Path) -> None:
    publish(tmp_path, 10)
    folder = tmp_path / "org--tiny" / ("a" * 40) / "Q2_K"
    manifest = (folder / "manifest.json").stat().st_size
    uses = [{"instance": "main", "link": "current", "path": str(folder)}, {"instance": "b", "link": "previous", "path": "/elsewhere"}]
    (found,) = _installed.models(str(tmp_path), uses)
    assert (found["used_by"], found["frees"]) == ([{"instance": "main", "link": "current"}], 10 + manifest)
    os.link(folder / "tiny.gguf", tmp_path / "adopted")
    (found,) = _installed.models(str(tmp_path), [{"instance": "b", "link": "current", "path": ""}])
    # A deployment that does not say what it needs may need any model.
    assert (found["used_by"], found["frees"]) == ([{"instance": "b", "link": "current"}], manifest)


@pytest.mark.parametrize(("there", "missing"), [(True, []), (False, ["current"])], ids=["there", "removed"])
def test_a_deployment_whose_model_was_removed(tmp_path: Path, there: bool, missing: list[str]) -> None:
    deployment = tmp_path / "etc/main/deployments/0123456789ab"
    deployment.mkdir(parents=True)
    (tmp_path / "etc/main/current").symlink_to("deployments/0123456789ab")
    (deployment / "model").symlink_to(tmp_path / "model")
    if there:
        (tmp_path / "model").mkdir()
    (found,) = _installed.instances(str(tmp_path / "etc"), str(tmp_path / "var"))
    assert found["models_missing"] == missing


@pytest.mark.parametrize(
    ("installed", "intact"),
    [
        ("llama.cpp-tools 0.7.0-1 hold\n", True),
        ("llama.cpp-tools 0.7.0-1 install\n", False),
        ("llama.cpp-tools 0.8.0-1 hold\n", False),
    ],
    ids=["as built and held", "hold gone", "another version"],
)
def test_packaged_engine_is_intact_while_its_package_is(tmp_path: Path, installed: str, intact: bool) -> None:
    release = tmp_path / "releases" / "b11669-cpu-x86_64-12345678"
    (release / "bin").mkdir(parents=True)
    (release / "bin/llama-server").write_text("#!/bin/sh\n")
    (release / "bin/llama-server").chmod(0o755)
    build = {"build_id": release.name, "programs": {"llama-server": "bin/llama-server"}, "packages": {"llama.cpp-tools": "0.7.0-1"}}
    (release / "build.json").write_text(json.dumps(build))
    found = _installed.engines(str(tmp_path), lambda argv: (0, installed, ""))
    assert [entry["intact"] for entry in found] == [intact]


def test_release_without_its_program_is_not_intact(tmp_path: Path) -> None:
    release = tmp_path / "releases" / "b1-cpu-x-1"
    release.mkdir(parents=True)
    (release / "build.json").write_text(json.dumps({"build_id": release.name, "programs": {"llama-server": "bin/llama-server"}}))
    assert [entry["intact"] for entry in _installed.engines(str(tmp_path))] == [False]


@pytest.mark.parametrize(
    ("engine", "used_by"),
    [
        pytest.param("b1-cpu-x-1", [{"instance": "main", "link": "current"}], id="this-release"),
        pytest.param("b2-cpu-x-2", [], id="another-release"),
        pytest.param("", [{"instance": "main", "link": "current"}], id="a-deployment-that-does-not-tell"),
    ],
)
def test_who_uses_a_release(tmp_path: Path, engine: str, used_by: list[dict[str, str]]) -> None:
    release = tmp_path / "releases" / "b1-cpu-x-1"
    release.mkdir(parents=True)
    (release / "build.json").write_text(json.dumps({"build_id": release.name}))
    deployment = tmp_path / "instances/main/deployments/0123456789ab"
    deployment.mkdir(parents=True)
    (tmp_path / "instances/main/current").symlink_to("deployments/0123456789ab")
    if engine:
        (deployment / "engine").symlink_to(tmp_path / "releases" / engine)
    uses = _instance.engine_uses(str(tmp_path / "instances"))
    assert [entry["used_by"] for entry in _installed.engines(str(tmp_path), uses=uses)] == [used_by]


JOURNALS = {
    "gate passed": ({"committed": "0123456789ab"}, True),
    "gate not passed yet": ({"committed": ""}, False),
    "gate not passed again": ({"committed": "0123456789ab", "to": "0123456789ab", "state": "failed"}, False),
    "going back failed": ({"committed": "0123456789ab", "to": "ba9876543210", "state": "failed"}, False),
    "went back": ({"committed": "0123456789ab", "to": "ba9876543210", "state": "undone"}, True),
    "another switch under way": ({"committed": "0123456789ab", "to": "ba9876543210", "state": "beside"}, True),
}


@pytest.mark.parametrize(("journal", "committed"), JOURNALS.values(), ids=JOURNALS)
def test_an_instance_is_committed_when_the_journal_says_so(tmp_path: Path, journal: dict[str, str], committed: bool) -> None:
    config, state = tmp_path / "etc" / "main", tmp_path / "var" / "main"
    deployment = config / "deployments" / "0123456789ab"
    deployment.mkdir(parents=True)
    (state / "0123456789ab").mkdir(parents=True)
    (config / "current").symlink_to("deployments/0123456789ab")
    (deployment / "deployment.json").write_text(json.dumps({"host": "127.0.0.1", "port": 9, "build_id": "b1"}))
    (state / "0123456789ab" / "plan.json").write_text(json.dumps({"quant": "Q2_K"}))
    (state / "switch.json").write_text(json.dumps(journal))
    (found,) = _installed.instances(str(tmp_path / "etc"), str(tmp_path / "var"))
    assert (found["name"], found["deployment"], found["committed"], found["healthy"]) == ("main", "0123456789ab", committed, False)
    assert (found["plan"], found["document"]["build_id"]) == ({"quant": "Q2_K"}, "b1")


@pytest.mark.parametrize(
    ("now", "backend", "intact"),
    [
        pytest.param("1:0.7.0+dfsg-2 hold", "", True, id="as-it-was"),
        pytest.param("1:0.8.0+dfsg-1 hold", "", False, id="upgraded"),
        pytest.param("1:0.7.0+dfsg-2 install", "", False, id="no-longer-held"),
        pytest.param("1:0.7.0+dfsg-2 hold", "libggml-vulkan.so", False, id="another-backend"),
        pytest.param("1:0.7.0+dfsg-2 hold", "README", True, id="another-file"),
    ],
)
def test_a_packaged_engine_is_intact(tmp_path: Path, now: str, backend: str, intact: bool) -> None:
    folder, backends = tmp_path / "releases" / "b11669-cpu", tmp_path / "backends0"
    backends.mkdir()
    (folder / "bin").mkdir(parents=True)
    program = folder / "bin" / "llama-server"
    program.write_text("")
    program.chmod(0o755)
    build = {
        "build_id": "b11669-cpu",
        "programs": {"llama-server": "bin/llama-server"},
        "packages": {"llama.cpp-tools": "1:0.7.0+dfsg-2"},
        "files": {str(backends / "libggml-cpu.so"): "00"},
    }
    (folder / "build.json").write_text(json.dumps(build))
    for name in ["libggml-cpu.so", *([backend] if backend else [])]:
        (backends / name).write_text("")
    (engine,) = _installed.engines(str(tmp_path), lambda _argv: (0, f"llama.cpp-tools {now}\n", ""))
    assert engine["intact"] is intact
