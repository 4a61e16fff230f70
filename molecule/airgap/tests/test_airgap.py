# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host with no way out serves from a bundle; what is damaged is refused by its name, and nothing half-done stays."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import BUNDLE, DISK, FOLDER
from plays import tree

SHARD = "Tiny-Kimi-K2-UD-Q2_K_XL-00002-of-00003.gguf"
REQUEST = """
import socket, sys, urllib.request
for url in ("http://deb.debian.org/", "https://huggingface.co/", "http://10.80.0.12/"):
    try:
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5)
        sys.exit(f"{url} answered")
    except OSError:
        pass
for address in ("151.101.2.132", "10.80.0.12"):
    try:
        socket.create_connection((address, 80), timeout=5)
        sys.exit(f"{address} answered")
    except OSError:
        pass
print("no way out")
"""


def variables(**values: Any) -> list[str]:
    return ["-e", json.dumps(values)]


@contextmanager
def tampered(host: Any, pattern: str, change: str) -> Iterator[str]:
    """The one file of the disk that a pattern means, changed for a while."""
    path = host.check_output(f"ls -d {DISK}/{pattern}")
    assert "\n" not in path
    host.check_output(f"cp -a {path} /root/kept")
    try:
        host.check_output(change.format(path=path))
        yield path
    finally:
        host.check_output(f"cp -a /root/kept {path}")


def forget_engine(host: Any) -> None:
    """As before the first deployment: neither the host nor the controller has the engine."""
    host.check_output("systemctl stop llamacpp@main; rm -rf /opt/llamacpp/releases")
    shutil.rmtree(FOLDER / "engines", ignore_errors=True)


def forget_model(host: Any) -> None:
    host.check_output("systemctl stop llamacpp@main; rm -rf /var/lib/llamacpp/models")


def complete(host: Any) -> str:
    key = host.check_output("grep -v '^#' /etc/llamacpp/instances/main/api-keys | head -1")
    body = {"prompt": "The quick brown fox", "n_predict": 16, "temperature": 0, "seed": 1}
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = urllib.request.Request("http://10.80.0.11:8080/completion", data=json.dumps(body).encode(), headers=headers)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=120) as answer:
        return json.load(answer)["content"]


def check_sums(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder, check=False, capture_output=True, text=True)


def weights_served(connected: Any) -> list[str]:
    """The files of weights that the mirror has been asked for, one for each request."""
    return connected.check_output("cat /var/log/nginx/*access*.log | grep -o 'resolve/[^ ]*gguf' || true").split()


def test_the_host_has_no_way_out(host: Any) -> None:
    assert host.run("python3 -c %s", REQUEST).stdout.strip() == "no way out"


def test_it_answers_from_the_bundle(host: Any) -> None:
    assert host.check_output("systemctl is-system-running") == "running"
    assert complete(host).strip()
    manifest = json.loads(host.file("/etc/llamacpp/instances/main/current/model/manifest.json").content_string)
    bundled = json.loads(next(BUNDLE.glob("models/*/*/UD-Q2_K_XL/manifest.json")).read_text())
    assert [(item["name"], item["sha256"]) for item in manifest["files"]] == [(item["name"], item["sha256"]) for item in bundled["files"]]
    folder = host.check_output("readlink -f /etc/llamacpp/instances/main/current/model")
    for item in manifest["files"]:
        assert host.file(f"{folder}/{item['name']}").sha256sum == item["sha256"]


def test_the_host_keeps_nothing_of_the_installation(host: Any) -> None:
    assert not host.file("/run/llamacpp-bundle").exists
    assert "llamacpp" not in host.check_output(
        "cat /etc/apt/sources.list /etc/apt/sources.list.d/* /etc/apt/apt.conf.d/* 2>/dev/null || true"
    )
    assert host.run("ls /var/lib/apt/lists | grep -c mnt_usb").stdout.strip() == "0"


def test_the_bundle_says_what_it_is_for_and_checks() -> None:
    index = json.loads((BUNDLE / "bundle.json").read_text())
    kinds = {part["kind"]: part["inputs"] for part in index["parts"].values()}
    assert set(kinds) == {"collection", "engine", "headers", "model", "packages", "source", "wheels"}
    assert (kinds["model"]["repo_id"], kinds["model"]["quant"]) == ("onprem/Tiny-Kimi-K2-GGUF", "UD-Q2_K_XL")
    assert kinds["source"] == {"kind": "git", "tag": "b11549", "url": "file:///srv/llama.cpp.git"}
    assert (kinds["packages"]["platform"], kinds["packages"]["architecture"]) == ("debian-13", "x86_64")
    assert check_sums(BUNDLE).returncode == 0


def test_a_second_making_fetches_nothing(play: Any, connected: Any) -> None:
    before, served = (BUNDLE / "SHA256SUMS").read_bytes(), weights_served(connected)
    made = play(playbook="playbooks/bundle.yml")
    assert made.status == 0, made.output[-3000:]
    assert {host: counters["changed"] for host, counters in made.stats.items()} == {"target": 0, "connected": 0}
    assert (BUNDLE / "SHA256SUMS").read_bytes() == before
    assert weights_served(connected) == served


def test_what_is_damaged_or_missing_is_fetched_again_and_nothing_else(play: Any, connected: Any) -> None:
    before = (BUNDLE / "SHA256SUMS").read_bytes()
    shard = next(BUNDLE.glob(f"models/*/*/*/{SHARD}"))
    package = next(BUNDLE.glob("packages/debian-13-x86_64/libgomp1_*.deb"))
    with shard.open("r+b") as stream:
        stream.seek(100_000)
        stream.write(b"damage")
    package.unlink()
    assert check_sums(BUNDLE).returncode == 1
    served = weights_served(connected)

    made = play(playbook="playbooks/bundle.yml")

    assert made.status == 0, made.output[-3000:]
    assert f"{SHARD} has another SHA-256 than its checksum" in made.text
    assert f"{package.name} is missing" in made.text
    assert check_sums(BUNDLE).returncode == 0
    assert (BUNDLE / "SHA256SUMS").read_bytes().splitlines()[-1] == before.splitlines()[-1]
    assert {path.rpartition("/")[2] for path in weights_served(connected)[len(served) :]} == {SHARD}


def test_a_tampered_shard_is_refused_and_nothing_is_published(host: Any, play: Any) -> None:
    forget_model(host)
    with tampered(host, f"models/*/*/*/{SHARD}", "printf damage | dd of={path} bs=1 seek=100000 conv=notrunc status=none"):
        refused = play()
    assert refused.status != 0
    assert SHARD in refused.text
    assert "Traceback" not in refused.output
    assert host.run("find /var/lib/llamacpp/models -name manifest.json").stdout == ""


@pytest.mark.parametrize(
    ("pattern", "change", "sentence"),
    [
        (
            "engines/b11549-*/*.tar.gz",
            "printf damage | dd of={path} bs=1 seek=1000 conv=notrunc status=none",
            "has another SHA-256 than its checksum",
        ),
        ("packages/debian-13-x86_64/libgomp1_*.deb", "rm {path}", "is missing"),
        (
            "packages/debian-13-x86_64/libgomp1_*.deb",
            "printf damage | dd of={path} bs=1 seek=1000 conv=notrunc status=none",
            "has another SHA-256",
        ),
    ],
    ids=["engine", "missing package", "tampered package"],
)
def test_what_the_engine_needs_is_refused_when_damaged(host: Any, play: Any, pattern: str, change: str, sentence: str) -> None:
    forget_engine(host)
    host.check_output("dpkg --force-depends --purge libgomp1 2>/dev/null || true")
    with tampered(host, pattern, change) as path:
        refused = play()
    assert refused.status != 0
    assert f"{path.removeprefix(DISK + '/')} {sentence}" in refused.text
    assert f"The bundle {DISK} is refused" in refused.text
    assert host.run("find /opt/llamacpp/releases -name build.json").stdout == ""
    assert not host.file("/run/llamacpp-bundle").exists


def test_a_disk_that_is_not_there_is_told(host: Any, play: Any) -> None:
    refused = play(*variables(llama_model_bundle="/mnt/none", llama_engine_bundle="/mnt/none"))
    assert refused.status != 0
    assert "There is no bundle at /mnt/none: it has no SHA256SUMS" in refused.text


def test_a_disk_at_the_controller_serves_as_well(host: Any, play: Any) -> None:
    place = variables(llama_bundle_at="controller", llama_model_bundle=str(BUNDLE), llama_engine_bundle=str(BUNDLE))
    deployed = play(*place)
    assert deployed.status == 0, deployed.output[-3000:]
    assert host.file("/opt/llamacpp/releases").exists
    assert not host.file("/var/lib/llamacpp/bundle").exists
    assert complete(host).strip()
    before = tree(host)
    assert play(*place).stats["target"]["changed"] == 0
    assert tree(host) == before
