# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module asks a program that prints what a real build printed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from ansible_collections.onprem.llamacpp.plugins.modules import llama_engine_info
from ansible_collections.onprem.llamacpp.plugins.modules.llama_engine_info import package_files, why_not

ROOT = Path(__file__).resolve().parents[4]
FIXTURES = ROOT / "tests" / "unit" / "fixtures" / "capabilities"


def write_server(folder, text):
    server = folder / "llama-server"
    server.write_text("#!/bin/sh\n" + text)
    server.chmod(0o755)


@pytest.mark.parametrize("check", [pytest.param(False, id="run"), pytest.param(True, id="check-mode")])
def test_an_engine_that_runs(run_module, tmp_path, check):
    version, usage, devices = (FIXTURES / f"b11669.{name}.txt" for name in ("version", "help", "list-devices"))
    write_server(
        tmp_path,
        f"case $1 in --version) cat {version} >&2 ;; --help) cat {usage} ;; *) cat {devices} ;; esac\n",
    )
    _status, result = run_module("llama_engine_info", path=str(tmp_path), _ansible_check_mode=check)
    assert (result["changed"], result["runs"], result["version"]["number"]) == (False, True, 11669)
    assert len(result["capabilities"]["options"]) > 200
    assert (result["devices"], result["devices_text"]) == ([], "Available devices:\n  (none)")


@pytest.mark.parametrize(
    ("stub", "runs"),
    [pytest.param(True, True, id="with-the-release's-stand-in"), pytest.param(False, False, id="without")],
)
def test_a_cuda_engine_on_a_host_without_a_driver(run_module, tmp_path, stub, runs):
    version, usage, devices = (FIXTURES / f"b11669.{name}.txt" for name in ("version", "help", "list-devices"))
    (tmp_path / "bin").mkdir()
    if stub:
        (tmp_path / "lib/stubs").mkdir(parents=True)
    write_server(
        tmp_path / "bin",
        'if [ -z "$LD_LIBRARY_PATH" ]; then\n'
        "  echo 'x: error while loading shared libraries: libcuda.so.1: cannot open shared object file: No such file' >&2; exit 127\n"
        f"fi\ncase $1 in --version) cat {version} >&2 ;; --help) cat {usage} ;; *) cat {devices} ;; esac\n",
    )
    _status, result = run_module("llama_engine_info", path=str(tmp_path / "bin"))
    assert result["runs"] is runs
    if runs:
        assert (result["driver"], result["version"]["number"]) == (False, 11669)
    else:
        assert result["missing_libraries"] == ["libcuda.so.1"]


@pytest.mark.parametrize(
    ("text", "reason", "missing"),
    [
        pytest.param(None, "No such file", [], id="no-program"),
        pytest.param("echo hello\n", "hello", [], id="another-program"),
        pytest.param("kill -ILL $$\n", "instructions that this host's processor lacks", [], id="built-for-another-processor"),
        pytest.param(
            "echo 'x: error while loading shared libraries: libgomp.so.1: cannot open shared object file: No such file' >&2; exit 127\n",
            "needs libgomp.so.1",
            ["libgomp.so.1"],
            id="missing-library",
        ),
        pytest.param("[ $1 = --version ] && echo 'version: 1 (a)'\n", "lists no options", [], id="no-help"),
    ],
)
def test_an_engine_that_does_not_run(run_module, tmp_path, text, reason, missing):
    if text is not None:
        write_server(tmp_path, text)
    _status, result = run_module("llama_engine_info", path=str(tmp_path))
    assert not result["runs"]
    assert reason in result["reason"]
    assert result["missing_libraries"] == missing


def test_a_silent_program_is_told_as_such():
    assert why_not("p", 1, "") == "p --version ended with status 1: it printed nothing"


def test_programs_and_libraries_of_packages(tmp_path, monkeypatch):
    server, page, link = tmp_path / "llama-server", tmp_path / "llama-server.1", tmp_path / "libggml.so"
    server.write_bytes(b"\x7fELF and more")
    page.write_text("a manual")
    link.symlink_to(server)
    backend, other = (tmp_path / "backends0" / f"libggml-{name}.so" for name in ("cpu", "vulkan"))
    backend.parent.mkdir()
    for path in (backend, other):
        path.write_bytes(b"\x7fELF")
    listed = "\n".join(["/.", str(tmp_path), *map(str, (server, page, link, server, backend, tmp_path / "gone"))])
    monkeypatch.setattr(llama_engine_info._host, "run_command", lambda _argv: (0, listed, ""))
    found = package_files(["llama.cpp-tools"], lambda path: f"sha256 of {path}")
    assert found == {str(path): f"sha256 of {path}" for path in (backend, other, server)}
    assert package_files([], str) == {}


def test_the_files_of_a_release(run_module, tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "lib").mkdir()
    write_server(tmp_path / "bin", "exit 1\n")
    (tmp_path / "lib/libllama.so").symlink_to("libllama.so.0")
    (tmp_path / "build.json").write_text("{}")
    _status, result = run_module("llama_engine_info", path=str(tmp_path / "bin"), release=str(tmp_path))
    digest = hashlib.sha256((tmp_path / "bin/llama-server").read_bytes()).hexdigest()
    assert result["contents"] == {"bin/llama-server": digest, "lib/libllama.so": "-> libllama.so.0"}
