# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which quants a model repository holds, told from the names in its listing.

A quant is matched by its whole name: ``Q2_K`` never matches ``Q2_K_L`` or ``UD-Q2_K_XL``.
Everything here is pure: names and sizes in, dictionaries out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple, Optional

SHARD = re.compile(r"^(?P<stem>.+)-(?P<index>\d{5})-of-(?P<count>\d{5})$")
# "UD-" marks Unsloth's dynamic quants; the rest are llama.cpp's type names with publishers' suffixes.
QUANT = re.compile(
    r"(?:^|[-._])(?P<quant>(?:UD-)?(?:(?:I?Q|TQ)[1-9]\d*(?:_[A-Z0-9]+)*|BF16|FP?16|FP?32|(?:MX|NV)FP4(?:_MOE)?))$",
    re.IGNORECASE,
)
# These are GGUF files too, but never the weights that a server starts from.
COMPANION = re.compile(r"^mmproj[-._]|[-._]mmproj[-._]|imatrix", re.IGNORECASE)
SHA256 = re.compile(r"^[0-9a-f]{64}$")
COMMIT = re.compile(r"^[0-9a-f]{40}$")
REPO_ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}$")
QUANT_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
NAME_BYTES = 255  # the longest file name that common file systems hold


class QuantError(Exception):
    """What a user must be told about a repository's listing, in one or two sentences."""


class UnsafeName(QuantError):
    """A file name that could leave the directory it is meant for, or garble a terminal."""


class UnknownQuant(QuantError):
    """The repository has no quant of that name."""


class IncompleteQuant(QuantError):
    """The repository lists the quant, but not all of its files."""


class ShardName(NamedTuple):
    """One GGUF file name, taken apart. A file that is not split is number 1 of 1."""

    quant: str
    stem: str
    number: int
    total: int


def check_path(path: str) -> str:
    """Return ``path`` when it is a plain relative path; raise UnsafeName otherwise."""
    shown = repr(path)[:120]
    if not isinstance(path, str) or not path:
        raise UnsafeName("The listing holds a file without a name.")
    if any(ord(char) < 32 or ord(char) == 127 or 0xD800 <= ord(char) <= 0xDFFF for char in path):
        raise UnsafeName(f"The listing holds a file name with control characters, {shown}.")
    if path.startswith("/") or "\\" in path:
        raise UnsafeName(f"The listing holds an absolute or foreign path, {shown}.")
    for part in path.split("/"):
        if part in ("", ".", ".."):
            raise UnsafeName(f"The listing holds a path that leaves its directory, {shown}.")
        if len(part.encode("utf-8")) > NAME_BYTES:
            raise UnsafeName(f"The listing holds a file name longer than {NAME_BYTES} bytes, {shown}.")
    return path


def parse_path(path: str) -> Optional[ShardName]:
    """Take a path of the repository apart; None when it is not a quant's weight file."""
    folder, _slash, name = path.rpartition("/")
    if not name.lower().endswith(".gguf") or COMPANION.search(name):
        return None
    stem, index, count = name[: -len(".gguf")], 1, 1
    split = SHARD.match(stem)
    if split:
        stem, index, count = split.group("stem"), int(split.group("index")), int(split.group("count"))
    quant = _quant_of(stem, folder.rpartition("/")[2])
    if not quant or index < 1 or index > count:
        return None
    return ShardName(quant, f"{folder}/{stem}" if folder else stem, index, count)


def _quant_of(stem: str, folder: str) -> str:
    """The quant's name: the folder's where the file name ends with it or says nothing, else the file name's."""
    in_name, in_folder = QUANT.search(stem), QUANT.search(folder)
    if in_folder and (in_name is None or re.search(rf"(?:^|[-._]){re.escape(folder)}$", stem, re.IGNORECASE)):
        name = folder  # also keeps prefixes such as "smol-" that tell two sets of one type apart
    elif in_name:
        name = in_name.group("quant")
    else:
        return ""
    return name.upper() if name == name.lower() else name


def repo_quants(listing: Iterable[dict[str, Any]], hashed: bool = True) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """Sort a listing into quants and other files.

    ``listing`` holds ``{path, size (bytes), sha256}``; size and sha256 may be None. Returns the quants by name,
    smallest first, each ``{bytes, shards, complete, problem, files}`` with its files in shard order, and the rest.
    A quant without hashes is complete only where the listing is not ``hashed``.
    Raises UnsafeName for a name that must not reach a file system.
    """
    sets: dict[tuple[str, str, int], dict[int, dict[str, Any]]] = {}
    other: list[dict[str, Any]] = []
    seen = set()
    for entry in listing:
        path = check_path(entry["path"])
        if path in seen:
            raise QuantError(f"The listing names {path} twice.")
        seen.add(path)
        record = {"path": path, "size": entry.get("size"), "sha256": entry.get("sha256")}
        shard = parse_path(path)
        if shard is None:
            other.append(record)
        else:
            sets.setdefault((shard.quant, shard.stem, shard.total), {})[shard.number] = record

    quants: dict[str, dict[str, Any]] = {}
    for (name, stem, count), files in sorted(sets.items()):
        found = _describe(count, files, hashed)
        known = quants.get(name)
        if known is None or (found["complete"] and not known["complete"]):
            quants[name] = found
        elif found["complete"]:
            # Two whole sets under one name: guessing would serve the wrong weights one day.
            known["complete"] = False
            known["problem"] = f"two sets of files carry this name, one of them {stem}"
    ordered = sorted(quants.items(), key=lambda item: (item[1]["bytes"], item[0]))
    return dict(ordered), sorted(other, key=lambda record: record["path"])


def _describe(count: int, files: dict[int, dict[str, Any]], hashed: bool) -> dict[str, Any]:
    """One set of shards as it is returned, with the reason when it cannot be used."""
    missing = [index for index in range(1, count + 1) if index not in files]
    ordered = [files[index] for index in sorted(files)]
    problem = ""
    if missing:
        shown = ", ".join(str(index) for index in missing[:8]) + (", …" if len(missing) > 8 else "")
        problem = f"{len(missing)} of {count} shards missing ({shown})"
    elif not all(isinstance(record["size"], int) and record["size"] > 0 for record in ordered):
        problem = "the listing gives no size for some files"
    elif hashed and not all(SHA256.match(record["sha256"] or "") for record in ordered):
        problem = "the listing gives no sha256 for some files"
    return {
        "bytes": sum(record["size"] or 0 for record in ordered),
        "shards": count,
        "complete": not problem,
        "problem": problem,
        "files": ordered,
    }


def find_quant(quants: dict[str, dict[str, Any]], wanted: str, repo_id: str) -> tuple[str, dict[str, Any]]:
    """The quant called ``wanted`` (whole name, letter case aside) and its published spelling.

    Raises UnknownQuant with the names there are, or IncompleteQuant with what is missing.
    """
    by_lower = {name.lower(): name for name in quants}
    name = wanted if wanted in quants else by_lower.get(wanted.lower(), "")
    if not name:
        there = ", ".join(quants) or "no quant at all"
        raise UnknownQuant(f"{repo_id} has no quant {wanted}. It has, smallest first: {there}.")
    found = quants[name]
    if not found["complete"]:
        whole = ", ".join(other for other in quants if quants[other]["complete"]) or "none"
        raise IncompleteQuant(f"{name} of {repo_id} cannot be used: {found['problem']}. Quants that are whole: {whole}.")
    return name, found
