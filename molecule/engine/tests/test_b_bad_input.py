# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is told of builds that cannot be made, and that nothing half done is left where releases are."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import plays
import pytest
from conftest import ARCHIVE, BUILD, CONVERGE, INVENTORY, RELEASES, newest, refused, releases, variables


@pytest.mark.parametrize(
    ("values", "words"),
    [
        pytest.param(
            {"llama_engine_tag": "b11999"},
            ["b11999 could not be cloned from file:///srv/engine.git", "has this tag"],
            id="tag-that-is-not-there",
        ),
        pytest.param(
            {"llama_engine_commit": "0123456789abcdef"},
            ["but llama_engine_commit is 0123456789abcdef", "tag was moved"],
            id="another-commit",
        ),
        pytest.param(
            {"llama_engine_source": "archive", "llama_engine_archive": {**ARCHIVE, "sha256": "ab" * 32}},
            ["has the sha256", "abababab", "correct the checksum"],
            id="another-checksum",
        ),
        pytest.param(
            {
                "llama_engine_source": "archive",
                "llama_engine_archive": {**ARCHIVE, "url": "http://10.87.0.1:9/x.tar.gz", "sha256": "ab" * 32},
            },
            ["http://10.87.0.1:9/x.tar.gz could not be downloaded on builder", "refused", "put the file on the controller"],
            id="archive-that-is-not-there",
        ),
        pytest.param(
            {"llama_engine_source": "archive", "llama_engine_archive": {**ARCHIVE, "folder": "nope", "sha256": ""}},
            ["has no llama.cpp in the folder nope", "on builder", "Its folders are llama.cpp.", "Set llama_engine_archive.folder"],
            id="folder-that-is-not-in-the-archive",
        ),
        pytest.param(
            {"llama_engine_git_url": "http://10.87.0.1:9/llama.cpp"},
            ["could not be cloned from http://10.87.0.1:9", "can reach it"],
            id="no-way-out",
        ),
        pytest.param(
            {"llama_engine_cmake_options": ["-DCMAKE_CXX_FLAGS=-B/srv/killed"]},
            ["A compiler or the linker ran out of memory", "llama_engine_jobs", "build.log"],
            id="out-of-memory",
        ),
    ],
)
def test_a_build_that_fails(play: Any, taker: Any, builder: Any, values: dict[str, Any], words: list[str]) -> None:
    before = releases(taker), releases(builder)
    archive = values.get("llama_engine_archive")
    if archive and not archive["sha256"]:
        checksum = builder.check_output("sha256sum /srv/engine.tar.gz").split()[0]
        values = {**values, "llama_engine_archive": {**archive, "sha256": checksum}}
    refused(play(llama_engine_keep=9, **values), *words)
    assert (releases(taker), releases(builder)) == before


def test_packages_that_another_program_keeps_from_the_builder(play: Any, taker: Any, builder: Any) -> None:
    """As unattended upgrades do while they install. The wait is not begun again."""
    before = releases(taker), releases(builder)
    builder.check_output("apt-get remove -qq -y pkg-config pkgconf")
    with plays.locked_by_upgrades(builder, plays.PACKAGES):
        run = play(llama_engine_cmake_options=["-DLOCKED=ON"], llama_engine_package_timeout=3, llama_engine_keep=9)
    told = "could not be installed on builder: The package manager stayed locked for longer than llama_engine_package_timeout"
    refused(run, f"{told}: unattended-upgr (PID")
    assert "RETRYING" not in run.output
    assert (releases(taker), releases(builder)) == before


def test_no_room_is_told_before_anything_is_done(play: Any, builder: Any) -> None:
    """In check mode too."""
    for arguments in (("--check",), ()):
        run = play(*arguments, llama_engine_tag="b11550", llama_engine_cpu="all", llama_engine_build_path="/srv/small/build")
        refused(run, "on builder needs 2.0 GB at /srv/small/build", "has 0.1 GB free")
    assert builder.check_output("ls /srv/small") == ""


def test_no_host_of_the_platform(play: Any) -> None:
    refused(play(llama_engine_platform="ubuntu-22.04"), "none is a ubuntu-22.04", "llama_builders")


def test_an_artifact_that_was_changed_is_not_unpacked(play: Any, taker: Any) -> None:
    """Whoever changes it, by accident or not, has to change its checksum too."""
    wish = {"llama_engine_tag": "b11550", "llama_engine_keep": 9}
    artifact = newest("b11550", "native")
    name = artifact.name.removesuffix(".tar.gz")
    whole = artifact.read_bytes()
    taker.check_output(f"rm -rf {RELEASES}/{name}")
    artifact.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        sums = [hashlib.sha256(content).hexdigest() for content in (artifact.read_bytes(), whole)]
        for arguments in (("--check",), ()):
            refused(play(*arguments, **wish), f"has the sha256 {sums[0]}", sums[1], "Remove it and run again")
        assert name not in releases(taker)
    finally:
        artifact.write_bytes(whole)
    assert play(**wish).status == 0
    assert name in releases(taker)


def building(builder: Any) -> str:
    """The processes that work in a folder of the builds."""
    return builder.check_output(f'for process in /proc/[0-9]*; do case "$(readlink $process/cwd)" in {BUILD}/*) echo $process; esac; done')


def test_a_build_that_takes_too_long_is_ended(play: Any, taker: Any, builder: Any) -> None:
    before = releases(taker), releases(builder)
    builder.check_output("touch /srv/wait")
    try:
        run = play(llama_engine_cmake_options=["-DSLOW=ON"], llama_engine_build_timeout=20, llama_engine_keep=9)
        refused(
            run, "longer than llama_engine_build_timeout, 20 seconds, and was ended", "llama_builders with more processors", "build.log"
        )
        assert building(builder) == ""
        assert builder.file(re.findall(r"The log there is (\S+/build[.]log)", run.text)[-1]).exists
    finally:
        builder.check_output("rm /srv/wait")
    assert (releases(taker), releases(builder)) == before


def test_an_interrupted_build_leaves_no_release_and_the_next_run_ends_it(play: Any, taker: Any, builder: Any) -> None:
    before = releases(taker), releases(builder)
    builder.check_output("touch /srv/wait")
    # The only build of this tag that may be under way: builds that failed keep their folders.
    wish = {"llama_engine_tag": "b11550", "llama_engine_cmake_options": ["-DINTERRUPTED=ON"], "llama_engine_keep": 9}
    run = plays.start_playbook(INVENTORY, "--limit", "taker", *variables(**wish), playbook=CONVERGE)
    try:
        plays.wait_until(lambda: builder.run(f"cd {BUILD}/b11550-* && test -e build.pid && test -e objects/build.ninja").rc == 0, 300)
    finally:
        run.kill()
        run.wait()
    assert (releases(taker), releases(builder)) == before
    # The tag is the second commit of the repository.
    assert builder.check_output(f"git -C {BUILD}/b11550-*/source rev-list --count HEAD") == "1"
    pid = builder.check_output(f"cat {BUILD}/b11550-*/build.pid")
    assert builder.run(f"test -d /proc/{pid}").rc == 0, "the build should outlive its run"
    # Where memory runs out, it goes before a server does.
    assert builder.check_output(f"cat /proc/{pid}/oom_score_adj") == "1000"
    # It takes what another build would count on, so another is not begun.
    other = play(llama_engine_cmake_options=["-DOTHER=ON"], llama_engine_keep=9)
    refused(other, "builder is still building b11550-", f"end it on builder with pkill --session {pid}")
    assert builder.run(f"test -d /proc/{pid}").rc == 0
    again = plays.start_playbook(INVENTORY, "--limit", "taker", *variables(**wish), playbook=CONVERGE)
    try:
        plays.wait_until(lambda: builder.run(f"test -d /proc/{pid}").rc != 0, 300)
    finally:
        builder.check_output("rm /srv/wait")
        output, _none = again.communicate(timeout=300)
    assert again.returncode == 0, output[-3000:]
    assert len(releases(taker)) == len(before[0]) + 1
    # What builds before it have left is gone too.
    assert builder.check_output(f"ls {BUILD}") == "ccache"
    assert not [name for name in releases(builder) if name.startswith(".")]
