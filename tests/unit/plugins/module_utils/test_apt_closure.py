# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Packages are named by what apt prints, and their index is the archive's own, with files of one folder."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from ansible_collections.onprem.llamacpp.plugins.module_utils import _apt_closure
from ansible_collections.onprem.llamacpp.plugins.module_utils._apt_closure import Apt, ClosureError

CONTENT = {"git_2.47.3-0+deb13u1_amd64.deb": b"git", "ca-certificates_20250419_all.deb": b"certificates"}
URIS = """Reading package lists...
'http://deb.debian.org/debian/pool/main/g/git/git_2.47.3-0%2bdeb13u1_amd64.deb' git_1%3a2.47.3-0+deb13u1_amd64.deb 3 MD5Sum:0
'http://deb.debian.org/debian/pool/main/c/ca-certificates/ca-certificates_20250419_all.deb' ca-certificates_20250419_all.deb 12 SHA256:0
"""
GIT, CERTIFICATES = (
    f"""Package: {name}
Version: {version}
Architecture: {architecture}
Depends: libc6 (>= 2.34), perl
Description: something
 of more than one line
Homepage: https://example.org
Tag: one,
 two
Filename: pool/main/x/{file}
Size: {len(CONTENT[file])}
SHA256: {hashlib.sha256(CONTENT[file]).hexdigest()}
"""
    for (name, version, architecture), file in zip(
        [("git", "1:2.47.3-0+deb13u1", "amd64"), ("ca-certificates", "20250419", "all")], CONTENT, strict=True
    )
)


class Tools:
    """apt's programs, answering from text; downloads appear under apt's own names."""

    def __init__(self, shown: str = f"{GIT}\n{CERTIFICATES}\n", code: int = 0, content: dict[str, bytes] | None = None) -> None:
        self.shown, self.code, self.calls = shown, code, []
        self.content = CONTENT if content is None else content

    def __call__(self, argv: list[str]) -> tuple[int, str, str]:
        folder, words = argv[2], argv[argv.index("-q") + 1 :]
        self.calls.append(words)
        if self.code:
            return self.code, "", "W: a warning\nE: Unable to locate package gti\n"
        if words[0] == "show":
            return 0, self.shown, ""
        if words[0] == "download":
            for name, content in self.content.items():
                (Path(folder) / name.replace("git_", "git_1%3a")).write_bytes(content)
        return 0, URIS if "--print-uris" in words else "", ""


@pytest.fixture
def apt(tmp_path: Path) -> Apt:
    return Apt(str(tmp_path / "state"), Tools())


def test_the_set_is_resolved_on_an_empty_system(tmp_path: Path, apt: Apt) -> None:
    packages = _apt_closure.closure(apt, ["git"])
    assert [(item.name, item.version, item.file) for item in packages] == [
        ("ca-certificates", "20250419", "ca-certificates_20250419_all.deb"),
        ("git", "1:2.47.3-0+deb13u1", "git_2.47.3-0+deb13u1_amd64.deb"),
    ]
    assert apt.run.calls[1] == ["show", "git:amd64=1:2.47.3-0+deb13u1", "ca-certificates=20250419"]
    assert (tmp_path / "state/status").read_bytes() == b""
    assert f"Dir::State::status={tmp_path / 'state/status'}" in apt.options


def test_the_index_names_files_of_its_own_folder_and_little_else(apt: Apt) -> None:
    text = _apt_closure.index(_apt_closure.closure(apt, ["git"]))
    assert "Filename: ./git_2.47.3-0+deb13u1_amd64.deb\n" in text
    assert "Depends: libc6 (>= 2.34), perl\n" in text
    assert "SHA256: " in text
    assert "Description" not in text
    assert " two" not in text
    assert text.count("\n\n") == 1


def test_downloads_get_the_names_of_the_index(tmp_path: Path, apt: Apt) -> None:
    _apt_closure.download(apt, _apt_closure.closure(apt, ["git"]), str(tmp_path / "to"))
    assert {path.name: path.read_bytes() for path in (tmp_path / "to").iterdir()} == CONTENT


def test_a_download_of_other_bytes_is_refused(tmp_path: Path) -> None:
    apt = Apt(str(tmp_path / "state"), Tools(content={**CONTENT, "git_2.47.3-0+deb13u1_amd64.deb": b"got"}))
    with pytest.raises(ClosureError, match=r"git_2.47.3-0\+deb13u1_amd64.deb did not arrive"):
        _apt_closure.download(apt, _apt_closure.closure(apt, ["git"]), str(tmp_path / "to"))
    assert "git_2.47.3-0+deb13u1_amd64.deb" not in os.listdir(tmp_path / "to")


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        pytest.param(Tools(code=100), "E: Unable to locate package gti$", id="apt's own words"),
        pytest.param(Tools(shown=f"{GIT}\n"), "describes 1 of 2 packages", id="a package that is not described"),
        pytest.param(Tools(shown=GIT.replace("SHA256:", "MD5:")), "git without file, size or SHA256", id="no hash"),
    ],
)
def test_what_cannot_be_resolved_is_told_in_a_sentence(tmp_path: Path, tools: Tools, message: str) -> None:
    with pytest.raises(ClosureError, match=message):
        _apt_closure.closure(Apt(str(tmp_path), tools), ["gti"])
