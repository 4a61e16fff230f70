# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One build for all hosts, its pin moved and moved back, and releases that go in the end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import plays
import pytest
from conftest import ARCHIVE, BUILD, CONVERGE, ENGINES, INVENTORY, RELEASES, newest, releases, variables

COMPILERS = "for program in cc c++ gcc cmake ninja git; do command -v $program; done; true"
INSTANCE = "/etc/llamacpp/instances/main"
HITS = f"CCACHE_DIR={BUILD}/ccache ccache --print-stats | awk '/^(direct|preprocessed)_cache_hit/ {{ hits += $2 }} END {{ print +hits }}'"
# The builds that are under way.
BUILDING = f'for file in {BUILD}/*/build.pid; do test ! -e "$file" || test ! -d "/proc/$(cat "$file")" || echo "$file"; done'


@pytest.fixture
def deployed(taker: Any) -> Iterator[Any]:
    """Makes a deployment of a release the current or the previous one, as far as pruning looks at it."""

    def deploy(link: str, build_id: str) -> None:
        folder = f"{INSTANCE}/deployments/{link}"
        taker.check_output(
            f"mkdir -p {folder} && ln -sfn {RELEASES}/{build_id} {folder}/engine && ln -sfn deployments/{link} {INSTANCE}/{link}"
        )

    yield deploy
    taker.check_output(f"rm -rf {INSTANCE}")


def test_the_builder_has_built_and_the_taker_has_no_compiler(taker: Any, builder: Any) -> None:
    name = newest("b11549").name.removesuffix(".tar.gz")
    assert releases(taker) == releases(builder) == [name]
    assert taker.check_output(COMPILERS) == ""
    assert builder.check_output(f"ls {BUILD}") == "ccache"


def test_the_artifact_lists_what_it_holds(taker: Any) -> None:
    artifact = newest("b11549")
    build = json.loads(artifact.with_name(artifact.name.replace(".tar.gz", ".json")).read_text())
    # The sums of all files, without the links, as the host finds them.
    listed = {path: value for path, value in build["contents"].items() if not value.startswith("->")}
    sums = taker.check_output(f"cd {RELEASES}/{build['build_id']} && sha256sum {' '.join(listed)}")
    assert dict(reversed(line.split("  ")) for line in sums.splitlines()) == listed
    assert "bin/llama-server" in listed
    assert build["number"] == 11549
    # What the engine said of itself and of its devices, as it does on the host.
    for asked, told in (("--version", "version_text"), ("--list-devices", "devices_text")):
        assert build[told].strip() == taker.check_output(f"{RELEASES}/{build['build_id']}/bin/llama-server {asked} 2>&1").strip()
    assert taker.file(f"{RELEASES}/{build['build_id']}/build.log").contains("llama-server")


def test_packages_are_a_release_and_held(packaged: Any) -> None:
    (name,) = releases(packaged)
    held = set(packaged.check_output("apt-mark showhold").split())
    assert held == {"llama.cpp-tools", "llama.cpp-tools-extra", "libggml0", "libllama0"}
    assert packaged.check_output(f"{RELEASES}/{name}/bin/llama-server --version 2>&1")


def test_a_new_pin_is_built_beside_the_old_one_and_gone_back_from(play: Any, taker: Any, builder: Any) -> None:
    (before,) = releases(taker)
    run = play(llama_engine_tag="b11550", llama_engine_keep=1)
    assert run.status == 0, run.output[-3000:]
    assert len(releases(taker)) == len(releases(builder)) == 2
    commit = json.loads(taker.check_output(f"cat {RELEASES}/b11550-*/build.json"))["commit"]
    assert taker.check_output(f"{RELEASES}/b11550-*/bin/llama-server --version 2>&1").splitlines()[0] == f"version: 11550 ({commit[:9]})"
    # Back: the release is there, nothing is asked and nothing is done.
    run = play(llama_engine_keep=1)
    assert (run.status, run.stats["taker"]["changed"], "delegated" in run.output) == (0, 0, False)
    assert before in releases(taker)


def test_a_lost_artifact_is_packed_again_where_the_release_is(play: Any, taker: Any, builder: Any, tmp_path: Path) -> None:
    """And comes as a file: Ansible would read it into memory as base64 where an inventory makes the builder's user root for every task."""
    for path in ENGINES.glob("b11550-*"):
        path.unlink()
    taker.check_output(f"rm -r {RELEASES}/b11550-*")
    built = builder.check_output(f"stat -c %Y {RELEASES}/b11550-*/build.json")
    inventory = tmp_path / "become.yml"
    inventory.write_text("all: {hosts: {builder: {ansible_become: true}}}\n")
    run = play("-i", str(inventory), "-vvv", llama_engine_tag="b11550", llama_engine_keep=1)
    assert run.status == 0, run.output[-3000:]
    assert "Fetch the packed release" in run.output and "slurp.py" not in run.output
    assert "Configure and compile" not in run.output
    assert builder.check_output(f"stat -c %Y {RELEASES}/b11550-*/build.json") == built
    assert newest("b11550").exists()


def test_a_second_build_of_the_same_is_the_same_and_one_that_is_not_is_told(play: Any, builder: Any) -> None:
    run = play(host="builder", playbook="playbooks/reproduce.yml")
    assert run.status == 0, run.output[-3000:]
    assert "files are the same" in run.text
    name = newest("b11549").name.removesuffix(".tar.gz")
    library = f"{RELEASES}/{name}/lib/libggml-base.so"
    assert builder.check_output(f"{RELEASES}/{name}/bin/llama-server --source") == "../source/base.cpp"
    builder.check_output(f"cp {library} /srv/whole && printf x >> {library}")
    try:
        run = play(host="builder", playbook="playbooks/reproduce.yml")
    finally:
        builder.check_output(f"cp /srv/whole {library}")
    assert run.status != 0
    assert "lib/libggml-base.so differs" in run.text
    assert not [name for name in releases(builder) if name.startswith(".")]


def test_releases_that_nothing_needs_go_and_those_that_serve_stay(play: Any, taker: Any, deployed: Any) -> None:
    old, new = (newest(tag).name.removesuffix(".tar.gz") for tag in ("b11549", "b11550"))
    deployed("current", new)
    deployed("previous", old)
    run = play(llama_engine_tag="b11550", llama_engine_cpu="baseline")
    assert run.status == 0, run.output[-3000:]
    assert len(releases(taker)) == 3
    deployed("previous", new)
    # Both runs want the newest pin; only the first release is needed by nobody now.
    wish = {"llama_engine_tag": "b11550", "llama_engine_cpu": "baseline"}
    would = play("--check", "--diff", **wish)
    assert f"-{RELEASES}/{old}" in would.output
    assert old in releases(taker)
    did = play("--diff", **wish)
    assert f"-{RELEASES}/{old}" in did.output
    assert (old in releases(taker), len(releases(taker))) == (False, 2)
    assert play(**wish).stats["taker"]["changed"] == 0


def test_one_build_with_backends_that_are_chosen_at_the_start(play: Any, taker: Any) -> None:
    run = play(llama_engine_cpu="all", llama_engine_keep=9)
    assert run.status == 0, run.output[-3000:]
    (found,) = taker.check_output(f"ls {RELEASES}/*/bin/libggml-cpu-*.so").split()
    assert taker.check_output(f"ls {found.rsplit('/', 2)[0]}/lib") == "libggml-base.so"


def test_an_archive_is_built_as_a_repository_is(play: Any, taker: Any, builder: Any) -> None:
    before = set(releases(taker))
    checksum = builder.check_output("sha256sum /srv/engine.tar.gz").split()[0]
    wish = {"llama_engine_source": "archive", "llama_engine_archive": {**ARCHIVE, "sha256": checksum}, "llama_engine_keep": 9}
    run = play(**wish)
    assert run.status == 0, run.output[-3000:]
    (made,) = set(releases(taker)) - before
    build = json.loads(taker.check_output(f"cat {RELEASES}/{made}/build.json"))
    assert (build["source"]["kind"], build["number"]) == ("archive", 11549)
    assert play(**wish).stats["taker"]["changed"] == 0


def test_kinds_are_built_at_once_and_not_compiled_anew(taker: Any, builder: Any, tmp_path: Path) -> None:
    """Both on the builder. Their options are no compiler's, so its cache has what was compiled before in another folder."""
    kinds = {name: {"llama_engine_cmake_options": [f"-DKIND={name}"]} for name in ("taker", "builder")}
    (tmp_path / "kinds.yml").write_text(json.dumps({"all": {"hosts": kinds}}))
    before, hits = set(releases(builder)), int(builder.check_output(HITS))
    options = ["-i", str(tmp_path / "kinds.yml"), "--limit", "taker,builder", *variables(engine_hosts="all", llama_engine_keep=9)]
    builder.check_output("touch /srv/wait")
    run = plays.start_playbook(INVENTORY, *options, playbook=CONVERGE)
    try:
        plays.wait_until(lambda: len(builder.check_output(BUILDING).split()) == 2, 300)
    finally:
        builder.check_output("rm /srv/wait")
        output, _none = run.communicate(timeout=600)
    assert run.returncode == 0, output[-3000:]
    assert len(set(releases(builder)) - before) == 2
    # The library and five programs, twice.
    assert int(builder.check_output(HITS)) - hits == 12


def test_settings_of_others_are_told(play: Any, packaged: Any) -> None:
    packaged.check_output("mkdir -p /etc/llama.cpp && printf 'ctx-size = 4096\\n' > /etc/llama.cpp/config.ini")
    try:
        run = play(host="packaged")
    finally:
        packaged.check_output("rm -r /etc/llama.cpp")
    assert (run.status, run.stats["packaged"]["changed"]) == (0, 0)
    assert "/etc/llama.cpp/config.ini is not ours and sets ctx-size" in run.text
