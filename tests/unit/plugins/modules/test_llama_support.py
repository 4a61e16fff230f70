# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is collected of a host, and that nothing secret is in it."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.onprem.llamacpp.plugins.action.llama_support import pack
from ansible_collections.onprem.llamacpp.plugins.modules import llama_support

KEY, OTHER = "5f" * 32, "named-key-of-alice-0123"
DEPLOYMENT = "a" * 12


@pytest.fixture(name="collected")
def fixture_collected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A host whose key stands wherever it could get."""
    config, state = tmp_path / "etc/instances/main", tmp_path / "state/main"
    folder = config / "deployments" / DEPLOYMENT
    folder.mkdir(parents=True)
    (config / "current").symlink_to(f"deployments/{DEPLOYMENT}")
    (folder / "deployment.json").write_text(json.dumps({"id": DEPLOYMENT, "quant": "UD-Q2_K_XL", "port": 8080}))
    (folder / "server.env").write_text(f"LLAMA_ARG_CTX_SIZE=2048\nPLANTED={KEY}\n")
    (config / "api-keys").write_text(KEY + "\n")
    (config / "api-keys").chmod(0o600)
    (tmp_path / "etc/front.map").write_text(f'"Bearer {OTHER}" "alice";\n')
    (tmp_path / "etc/front.map").chmod(0o600)
    (state / DEPLOYMENT).mkdir(parents=True)
    (state / DEPLOYMENT / "gate.json").write_text(json.dumps({"passed": True, "answer": "Paris is the capital"}))
    (state / DEPLOYMENT / "request.json").write_text(json.dumps({"prompts": [{"prompt": "capital of France"}], "port": 8080}))
    (state / "switch.json").write_text(json.dumps({"state": "committed", "gate": {"answer": "Paris is the capital"}, "log_tail": [KEY]}))

    def run(argv: list[str]) -> tuple[int, str, str]:
        if argv[0] == "journalctl":
            return 0, f"load_tensors: fine\nsomebody printed {KEY} and {OTHER}\nrequest: capital of France\n", ""
        return (0, f"Environment=X={KEY}\n", "") if argv[0] == "systemctl" else (127, "", "")

    monkeypatch.setattr(llama_support._hardware, "collect", lambda *_args, **_kwargs: {"hostname": "gpu-a", "seen": KEY})
    return llama_support.collect(
        100, {"status.json": f'{{"state": "ok", "key": "{KEY}"}}'}, run, str(tmp_path / "etc/instances"), str(tmp_path / "state")
    )


def test_what_a_helper_needs_is_there(collected: dict[str, str]) -> None:
    base = "instances/main"
    wanted = {
        "facts.json",
        "status.json",
        f"{base}/switch.json",
        f"{base}/server.log",
        f"{base}/unit.txt",
        f"{base}/{DEPLOYMENT}/gate.json",
    }
    assert wanted <= collected.keys()
    assert "load_tensors: fine" in collected[f"{base}/server.log"]
    assert json.loads(collected[f"{base}/{DEPLOYMENT}/deployment.json"])["quant"] == "UD-Q2_K_XL"


@pytest.mark.parametrize("secret", [KEY, OTHER, "Paris", "France"])
def test_what_is_secret_is_not(collected: dict[str, str], secret: str) -> None:
    assert [name for name, text in collected.items() if secret in text] == []


def test_tarball_is_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "gpu-a.tar.gz"
    pack(str(path), "gpu-a", {"facts.json": "{}", "instances/main/switch.json": "{}"})
    assert path.stat().st_mode & 0o777 == 0o600
    with tarfile.open(path) as archive:
        members: list[Any] = archive.getmembers()
    assert [member.name for member in members] == ["gpu-a/facts.json", "gpu-a/instances/main/switch.json"]
    assert list(tmp_path.iterdir()) == [path]
