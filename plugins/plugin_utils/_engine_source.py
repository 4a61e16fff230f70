# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where an engine is built from: what identifies a source, and what is wrong with one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_TAG = re.compile(r"b([1-9]\d{0,6})$")
_COMMIT = re.compile(r"[0-9a-f]{7,40}$")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")

SHA256 = re.compile(r"[0-9a-f]{64}$")


def tag_number(tag: str) -> int:
    """Build number of a ``b<number>`` tag, 0 where the tag is not one."""
    match = _TAG.match(tag)
    return int(match.group(1)) if match else 0


def identity(wish: Mapping[str, Any], kind: str) -> dict[str, str]:
    """What identifies the source. An archive is its content, wherever it was fetched from."""
    if kind == "archive":
        archive = wish.get("archive") or {}
        content = {"sha256": str(archive.get("sha256", "")).lower(), "folder": str(archive.get("folder", "")).strip("/")}
    else:
        content = {"url": str(wish.get("git_url", ""))}
    # The commit is stamped into the programs of either.
    return {"kind": kind, **content, "commit": str(wish.get("commit", "")).lower()}


def pin_problems(wish: Mapping[str, Any]) -> list[str]:
    """What is wrong with the tag or the commit."""
    problems = []
    tag, commit = str(wish.get("tag", "")), str(wish.get("commit", ""))
    if not _TAG.match(tag):
        problems.append(f"llama_engine_tag is '{tag}'; builds are named by their number, like b11549.")
    if commit and not _COMMIT.match(commit.lower()):
        problems.append(f"llama_engine_commit is '{commit}'; it takes 7 to 40 hexadecimal digits.")
    return problems


def problems(wish: Mapping[str, Any], source: str) -> list[str]:
    """What is wrong with a source that is compiled."""
    found = pin_problems(wish)
    if source == "git" and not _URL.match(str(wish.get("git_url", ""))):
        found.append(f"llama_engine_git_url is '{wish.get('git_url', '')}'; it takes a URL such as https://… or file:///….")
    if source == "archive":
        archive = wish.get("archive") or {}
        if not archive.get("url"):
            found.append("llama_engine_source is archive, but llama_engine_archive.url names no URL and no path on the controller.")
        if not SHA256.match(str(archive.get("sha256", "")).lower()):
            found.append("llama_engine_source is archive, but llama_engine_archive.sha256 is not 64 hexadecimal digits.")
        folder = str(archive.get("folder", "")).strip("/")
        if not folder or ".." in folder.split("/"):
            found.append("llama_engine_archive.folder names no folder of the archive; take the one with llama.cpp's CMakeLists.txt.")
    return found
