# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The real llama.cpp: taken as an artifact and as upstream packs its releases, and asked what it knows."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import CACHE, RELEASES, ROOT, connect, refused, releases, send

sys.path.insert(0, str(ROOT / "molecule/engine/files"))

from pack_release import pack

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _environment

REAL = {
    "llama_engine_cache": str(CACHE / "engines"),
    "llama_engine_git_url": "file:///srv/llama.cpp.git",
    "llama_engine_backend": "rpc",
    "llama_engine_force": ["rpc"],
    "llama_engine_keep": 9,
}
PLACEMENT = {
    **{"n_gpu_layers": 99, "n_cpu_moe": 3, "override_tensors": None, "tensor_split": None, "ctx_size": 16384, "cache_type_k": "f16"},
    **{"cache_type_v": "f16", "parallel": 1, "ubatch_size": 512, "load_mode": "none", "repack": True, "warmup": True, "cache_ram_mib": 0},
    **{"threads": 2, "numa": None, "rpc_servers": []},
}


@pytest.fixture(scope="module")
def real(play: Any, taker: Any) -> str:
    """The real engine's release on the taker. The first run makes it where the cache lacks it."""
    run = play(timeout=3600, **REAL)
    assert run.status == 0, run.output[-3000:]
    (name,) = [name for name in releases(taker) if name.startswith("b11549-rpc-")]
    return name


@pytest.fixture(scope="module")
def served(builder: Any, real: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Upstream's folder of releases on a web server; the variables that name it."""
    folder = tmp_path_factory.mktemp("releases")
    name, sha256 = pack(CACHE / "engines" / f"{real}.tar.gz", folder, "b11549")
    send("10.87.0.11", "/srv/releases/", folder / "b11549")
    yield {
        "llama_engine_source": "release",
        "llama_engine_backend": "rpc",
        "llama_engine_force": ["rpc"],
        "llama_engine_keep": 9,
        "llama_engine_release": {"url": "http://10.87.0.11:8000", "sha256": {name: sha256}},
    }


def test_a_host_without_a_compiler_takes_the_cached_engine(play: Any, taker: Any, real: str) -> None:
    taker.check_output(f"rm -r {RELEASES}/{real}")
    run = play(**REAL)
    assert (run.status, real in releases(taker)) == (0, True), run.output[-3000:]
    for program in ("c++", "cmake"):
        assert taker.run(f"command -v {program}").rc != 0, program


def test_no_room_for_a_release_is_told_before_anything_is_done(play: Any, taker: Any, real: str) -> None:
    """In check mode too."""
    taker.check_output("mkdir -p /srv/small && mount -t tmpfs -o size=8m tmpfs /srv/small")
    try:
        for arguments in (("--check",), ()):
            run = play(*arguments, llama_engine_root="/srv/small/engine", **REAL)
            refused(run, f"Unpacking {real} needs", "at /srv/small/engine, but the filesystem /srv/small has 0.0 GB free")
        assert taker.check_output("ls /srv/small") == ""
    finally:
        taker.check_output("umount /srv/small")


def test_upstreams_binaries_are_a_release(play: Any, taker: Any, served: dict[str, Any], real: str) -> None:
    run = play(**served)
    assert run.status == 0, run.output[-3000:]
    (name,) = set(releases(taker)) - {real} - {name for name in releases(taker) if not name.startswith("b11549-rpc-")}
    build = json.loads(taker.check_output(f"cat {RELEASES}/{name}/build.json"))
    assert (build["source"]["kind"], build["number"], build["glibc"]) == ("release", 11549, "2.35")
    assert len(build["capabilities"]["options"]) > 200
    assert re.search(r"build 11549|: 11549 ", taker.check_output(f"{RELEASES}/{name}/bin/llama-server --version 2>&1"))
    assert play(**served).stats["taker"]["changed"] == 0


@pytest.mark.parametrize(
    ("host", "values", "words"),
    [
        pytest.param(
            "builder",
            {"llama_engine_backend": "cuda"},
            ["needs glibc 2.39, but debian-12 has 2.36", "llama_engine_source git"],
            id="glibc-too-old",
        ),
        pytest.param("taker", {"llama_engine_tag": "b11550"}, ["no checksum of llama-b11550-bin-ubuntu-x64.tar.gz"], id="no-checksum"),
        pytest.param("taker", {"sha256": "ab" * 32}, ["abababab", "find out which of both is right"], id="another-checksum"),
        pytest.param("taker", {"url": "http://10.87.0.11:8000/none"}, ["could not be downloaded", "mirror of the site"], id="not-there"),
        pytest.param("taker", {"url": "http://10.87.0.1:9"}, ["could not be downloaded", "mirror of the site"], id="no-way-out"),
    ],
)
def test_binaries_that_are_refused(play: Any, served: dict[str, Any], host: str, values: dict[str, Any], words: list[str]) -> None:
    wish = {**served["llama_engine_release"]}
    if "url" in values:
        wish["url"] = values["url"]
    # Another identity, so that what was fetched before is not taken for it.
    wish["sha256"] = dict.fromkeys(wish["sha256"], values.get("sha256", "cd" * 32))
    others = {key: value for key, value in values.items() if key.startswith("llama_")}
    run = play(host=host, **{**served, "llama_engine_release": wish, **others})
    assert run.status != 0
    for word in words:
        assert word in run.text, run.output[-3000:]


def words_of(usage: str) -> set[str]:
    """All flags and environment variables that a help text names."""
    return set(re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*(?:\.[\w-]+)*", usage)) | set(re.findall(r"\(env: (\w+)\)", usage))


@pytest.mark.parametrize("name", ["taker", "packaged"])
def test_what_is_rendered_is_what_the_real_help_lists(name: str, real: str) -> None:
    host = connect(name)
    release = f"{RELEASES}/{real}" if name == "taker" else f"{RELEASES}/{releases(host)[0]}"
    build = json.loads(host.check_output(f"cat {release}/build.json"))
    known = words_of(host.check_output(f"{release}/bin/llama-server --help 2>&1"))
    listed = {flag for option in build["capabilities"]["options"] for flag in [*option["names"], option["env"]] if flag}
    assert listed <= known, sorted(listed - known)
    settings = {"model": "/models/a.gguf", "host": "127.0.0.1", "port": 8080, "alias": "a"}
    rendered = _environment.render({"placement": PLACEMENT}, build, settings)
    # What has no variable of its own comes as arguments.
    told = {*rendered, *(word for word in rendered.get("LLAMACPP_ARGS", "").split() if word.startswith("-"))} - {"LLAMACPP_ARGS"}
    assert {"LLAMA_ARG_PORT", "LLAMA_ARG_CTX_SIZE"} <= told <= known, sorted(told - known)
