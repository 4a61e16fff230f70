# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An engine of packages that changed under its release does not start, and nothing is switched to it."""

from __future__ import annotations

import hashlib
import json
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[4] / "roles/llama_server/files"))

from llamacpp_switch import cli, engine, files, preflight

VERSIONS = {"llama.cpp-tools": "1:0.7.0+dfsg-2", "libggml0": "0.27.0-1"}


@pytest.fixture(name="release")
def fixture_release(tmp_path):
    """A release of two packaged files, as the role llama_engine publishes it."""
    (tmp_path / "usr").mkdir()
    digests = {}
    for name in ("libggml-base.so.0", "llama-server"):
        path = tmp_path / "usr" / name
        path.write_bytes(name.encode() * 100_000)
        digests[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
    folder = tmp_path / "release"
    folder.mkdir()
    build = {"build_id": "b11669-cpu-x86_64-0011aabb", "packages": VERSIONS, "files": digests}
    (folder / "build.json").write_text(json.dumps(build))
    return folder


def test_an_engine_that_is_as_it_was_made(release):
    assert engine.changed(release) == ""


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("llama-server", b"another version", id="a-program"),
        pytest.param("libggml-base.so.0", b"another version", id="a-library"),
        pytest.param("libggml-base.so.0", None, id="a-file-that-is-gone"),
    ],
)
def test_an_engine_that_changed(release, name, content):
    path = release.parent / "usr" / name
    path.unlink()
    if content:
        path.write_bytes(content)
    told = engine.changed(release)
    assert "b11669-cpu-x86_64-0011aabb was made of libggml0 0.27.0-1, llama.cpp-tools 1:0.7.0+dfsg-2" in told
    assert f"1 of its 2 files are no longer those, {path} first: packages do not go back" in told


def test_a_backend_that_came_later(release):
    folder = release.parent / "usr" / "backends0"
    folder.mkdir()
    (folder / "libggml-cpu.so").write_bytes(b"known")
    build = json.loads((release / "build.json").read_text())
    build["files"][str(folder / "libggml-cpu.so")] = hashlib.sha256(b"known").hexdigest()
    (release / "build.json").write_text(json.dumps(build))
    assert engine.changed(release) == ""
    (folder / "libggml-vulkan.so").write_bytes(b"new")
    told = engine.changed(release)
    assert f"would load {folder}/libggml-vulkan.so, which it was made without" in told


@pytest.mark.parametrize(
    "build", [pytest.param({"build_id": "b11549-cpu-x86_64-1", "files": {}}, id="built"), pytest.param(None, id="without-a-record")]
)
def test_an_engine_of_its_own_files_has_nothing_to_compare(tmp_path, build):
    if build:
        (tmp_path / "build.json").write_text(json.dumps(build))
    assert engine.changed(tmp_path) == ""


def test_verify_is_what_the_unit_asks_before_each_start(release, tmp_path, monkeypatch, capsys):
    layout = files.Layout("main", tmp_path)
    layout.deployment("a" * 12).mkdir(parents=True)
    (layout.deployment("a" * 12) / "engine").symlink_to(release)
    layout.link("current", "a" * 12)
    monkeypatch.setattr(cli, "Layout", lambda _name: layout)
    assert cli.main(["verify", "--instance", "main"]) == 0
    (tmp_path / "usr" / "llama-server").write_bytes(b"upgraded")
    assert cli.main(["verify", "--instance", "main"]) == 1
    assert "cannot serve any more" in capsys.readouterr().err


def test_a_switch_to_it_is_refused_before_anything_is_touched(release, tmp_path):
    layout, identity = files.Layout("main", tmp_path), "a" * 12
    (layout.deployment(identity)).mkdir(parents=True)
    (layout.deployment(identity) / "deployment.json").write_text("{}")
    (layout.deployment(identity) / "engine").symlink_to(release)
    (release / "bin").mkdir()
    (release / "bin" / "llama-server").symlink_to(tmp_path / "usr" / "llama-server")
    files.write_json(layout.recorded / identity / "request.json", {"model_path": str(tmp_path), "api_key": False})
    (tmp_path / "usr" / "libggml-base.so.0").write_bytes(b"upgraded")
    with pytest.raises(files.SwitchError, match="packages do not go back"):
        preflight.check(layout, None, identity)
