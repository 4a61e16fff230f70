# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a bundle is: a directory with everything that a deployment needs, its checksums and its index.

``SHA256SUMS`` names every file, as ``sha256sum -c`` reads it, and is written last: what it does not name is not part of
the bundle. ``bundle.json`` says what the files are for. A part is a folder of it, made from inputs that it names:

    models/<org>--<repo>/<commit>/<quant>/   shards and manifest.json, as on a host
    headers/                                 the headers of the shards, as the controller keeps them
    engines/                                 built engines, as the controller keeps them
    sources/                                 the engine's source
    packages/<platform>-<architecture>/      the distribution's packages, with an index for its package manager
    wheels/                                  what the controller's Python needs
    collection/                              this collection

Sizes are bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from ansible_collections.onprem.llamacpp.plugins.module_utils._files import read_json, sha256_of
from ansible_collections.onprem.llamacpp.plugins.module_utils._quant import SHA256, QuantError, check_path

INDEX = "bundle.json"
SUMS = "SHA256SUMS"
MANIFEST = "manifest.json"
SCHEMA_VERSION = 1
LINE = re.compile(r"^(?P<sha256>[0-9a-f]{64}) [ *](?P<path>.+)$")


class BundleError(Exception):
    """One line for the user: which file of which bundle, and what to do."""


class Damage(NamedTuple):
    """A file that is not as the checksums say."""

    path: str
    reason: str


def read_sums(folder: str) -> dict[str, str]:
    """The files of a bundle with their checksums. Raises BundleError where there is no bundle, or a garbled one."""
    path = os.path.join(folder, SUMS)
    try:
        with open(path, encoding="utf-8") as stream:
            lines = stream.read().splitlines()
    except FileNotFoundError:
        raise BundleError(f"There is no bundle at {folder}: it has no {SUMS}. Check the path and whether the disk is mounted.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    sums = {}
    for line in lines:
        found = LINE.match(line)
        if not found:
            raise BundleError(f"{path} is garbled: {line[:80]!r} is no checksum. Run bundle.yml again.")
        try:
            sums[check_path(found["path"])] = found["sha256"]
        except QuantError as error:
            raise BundleError(f"{path} is refused. {error}") from error
    return sums


def write_sums(folder: str, sums: dict[str, str]) -> None:
    """Replace the checksums at once, sorted by path."""
    _write(os.path.join(folder, SUMS), "".join(f"{sums[path]}  {path}\n" for path in sorted(sums)))


def _write(path: str, text: str) -> None:
    with open(path + ".new", "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(path + ".new", path)


def select(sums: dict[str, str], prefixes: Iterable[str]) -> dict[str, str]:
    """The files whose path begins with one of ``prefixes``."""
    chosen = tuple(prefixes)
    return {path: digest for path, digest in sums.items() if path.startswith(chosen)}


def damages(folder: str, sums: dict[str, str], read: bool = True) -> list[Damage]:
    """The files that are not as ``sums`` say; without ``read`` only those that are not there or empty."""
    found = []
    for path, expected in sums.items():
        where = os.path.join(folder, path)
        try:
            if not os.path.isfile(where):
                found.append(Damage(path, "is missing"))
            elif os.path.getsize(where) == 0:
                found.append(Damage(path, "is empty"))
            elif read and sha256_of(where) != expected:
                found.append(Damage(path, "has another SHA-256 than its checksum"))
        except OSError as error:
            found.append(Damage(path, f"cannot be read ({error.strerror})"))
    return found


def refuse(folder: str, found: list[Damage]) -> None:
    """Raise BundleError when there is damage; the first few files are named."""
    if found:
        shown = "; ".join(f"{item.path} {item.reason}" for item in found[:5])
        more = f"; {len(found) - 5} more" if len(found) > 5 else ""
        raise BundleError(
            f"The bundle {folder} is refused: {shown}{more}. Nothing of it was used. Run bundle.yml on the connected machine again, "
            "which mends just that, or copy the bundle again."
        )


def read_index(folder: str) -> dict[str, Any]:
    """What ``bundle.json`` says. Raises BundleError where it is of another version."""
    index = read_json(os.path.join(folder, INDEX))
    if index.get("schema_version") != SCHEMA_VERSION or not isinstance(index.get("parts"), dict):
        raise BundleError(
            f"{os.path.join(folder, INDEX)} is no index of version {SCHEMA_VERSION}: it has {index.get('schema_version')}."
            " Make the bundle with the release of the collection that is deployed."
        )
    return index


def files_of(folder: str, kinds: list[str], inputs: dict[str, Any]) -> dict[str, str]:
    """Files, with checksums, of the parts of some kinds whose inputs hold ``inputs``; all files where no kind is named.

    Models are described only where kinds are named: nothing but a transfer moves weights. Raises BundleError.
    """
    sums = read_sums(folder)
    if not kinds:
        return sums
    about = select(sums, [INDEX])
    refuse(folder, damages(folder, about))
    parts = read_index(folder)["parts"]
    wanted = [prefix for prefix, part in parts.items() if part["kind"] in kinds and inputs.items() <= part["inputs"].items()]
    files = {path: digest for path, digest in select(sums, wanted).items() if not path.endswith(".gguf")}
    return {**files, **about} if "model" in kinds else files


def whole_parts(folder: str, sums: dict[str, str]) -> dict[str, dict[str, Any]]:
    """The parts of the index of which every file is there."""
    try:
        parts = read_index(folder)["parts"]
    except BundleError:
        return {}
    kept = {}
    for prefix, part in parts.items():
        files = select(sums, [prefix])
        if files and not damages(folder, files, read=False):
            kept[prefix] = part
    return kept


def known_hashes(folder: str) -> dict[str, str]:
    """Checksums of the models' shards from their manifests, which are only written beside verified files."""
    known = {}
    for top, _folders, names in os.walk(os.path.join(folder, "models")):
        if MANIFEST not in names:
            continue
        for item in read_json(os.path.join(top, MANIFEST)).get("files") or []:
            path = os.path.join(top, str(item.get("name")))
            if SHA256.match(str(item.get("sha256"))) and os.path.isfile(path) and os.path.getsize(path) == item.get("size"):
                known[os.path.relpath(path, folder)] = item["sha256"]
    return known


def files_below(folder: str, prefix: str) -> list[str]:
    """The files of a part, as paths in the bundle. What begins with a dot is work that was not finished."""
    found = []
    for top, folders, names in os.walk(os.path.join(folder, prefix)):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [os.path.relpath(os.path.join(top, name), folder) for name in names if not name.startswith(".")]
    return sorted(found)


def seal(folder: str, parts: dict[str, dict[str, Any]], about: dict[str, Any]) -> bool:
    """Write index and checksums for ``parts``, prefix to ``{kind, inputs}``; True when either has changed.

    Weights are not read again; everything else is. Raises BundleError for a part without files, and OSError.
    """
    known = known_hashes(folder)
    sums, described = {}, {}
    for prefix in sorted(parts):
        paths = files_below(folder, prefix)
        if not paths:
            raise BundleError(
                f"{os.path.join(folder, prefix)} is empty, though it was to hold {parts[prefix]['kind']}. Run bundle.yml again."
            )
        for path in paths:
            sums[path] = known.get(path) or sha256_of(os.path.join(folder, path))
        described[prefix] = dict(parts[prefix], bytes=sum(os.path.getsize(os.path.join(folder, path)) for path in paths), files=len(paths))
    text = json.dumps({"schema_version": SCHEMA_VERSION, **about, "parts": described}, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    sums[INDEX] = hashlib.sha256(text.encode()).hexdigest()
    with contextlib.suppress(BundleError):
        if read_sums(folder) == sums and sha256_of(os.path.join(folder, INDEX)) == sums[INDEX]:
            return False
    _write(os.path.join(folder, INDEX), text)
    write_sums(folder, sums)
    return True


def find_model(folder: str, repo_id: str, revision: str) -> tuple[str, list[dict[str, Any]]]:
    """Commit and files, ``{path, size, sha256}``, of what a bundle holds of a repository. Raises BundleError."""
    parts = [part["inputs"] for part in read_index(folder)["parts"].values() if part.get("kind") == "model"]
    there = [inputs for inputs in parts if inputs["repo_id"] == repo_id]
    wanted = [inputs for inputs in there if revision in (inputs["commit"], inputs["revision"])]
    commits = {inputs["commit"] for inputs in wanted}
    if not wanted:
        held = ", ".join(sorted({f"{i['repo_id']} {i['quant']} at {i['revision']} ({i['commit'][:12]})" for i in parts})) or "no model"
        raise BundleError(f"The bundle {folder} has nothing of {repo_id} at {revision}. It holds {held}.")
    if len(commits) > 1:
        raise BundleError(
            f"The bundle {folder} holds {repo_id} at {revision} with several commits: {', '.join(sorted(commits))}. Name one."
        )
    commit = commits.pop()
    files = []
    for inputs in wanted:
        manifest = read_json(os.path.join(folder, model_prefix(inputs), MANIFEST))
        if not manifest.get("files"):
            raise BundleError(f"The bundle {folder} has no {model_prefix(inputs)}{MANIFEST}. Run bundle.yml again.")
        files += [{key: item[key] for key in ("path", "size", "sha256")} for item in manifest["files"]]
    return commit, files


def model_prefix(inputs: dict[str, Any]) -> str:
    """The folder of a model in a bundle, with a slash at its end."""
    return f"models/{inputs['repo_id'].replace('/', '--')}/{inputs['commit']}/{inputs['quant']}/"
