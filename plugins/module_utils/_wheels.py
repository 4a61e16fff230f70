# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes a folder of programs, headers and libraries of Python wheels that carry them, such as NVIDIA's CUDA compiler.

A wheel is a zip archive. What lies under one folder of it (``nvidia/cu13``) is laid out as if it had been installed there;
its metadata is left out. Wheels know no links and mostly no permissions, so both are made here.
"""

from __future__ import annotations

import os
import re
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.onprem.llamacpp.plugins.module_utils._files import sha256_of

CHUNK = 1024 * 1024
MANIFEST = "wheels.json"

_SHARED = re.compile(r"(lib[^/]+\.so)\.\d[\d.]*$")


class WheelError(Exception):
    """A wheel that is missing or is not what was asked for."""


def normal(name: str) -> str:
    """A project's name as file names carry it."""
    return re.sub(r"[-_.]+", "_", name).lower()


def find(folder: str, wheels: Sequence[Mapping[str, str]]) -> list[str]:
    """The file of each wheel (C(name), C(version), C(sha256)) in a folder, verified.

    Raises:
        WheelError: with one line for all that is missing or differs.
    """
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    files, problems = [], []
    for wheel in wheels:
        start = f"{normal(wheel['name'])}-{wheel['version']}-"
        matching = [os.path.join(folder, name) for name in names if name.startswith(start) and name.endswith(".whl")]
        found = {path: sha256_of(path) for path in matching}
        good = [path for path, checksum in found.items() if checksum == wheel["sha256"]]
        if good:
            files.append(good[0])
        elif found:
            path, checksum = next(iter(found.items()))
            problems.append(f"{os.path.basename(path)} has the sha256 {checksum}, expected {wheel['sha256']}")
        else:
            problems.append(f"{wheel['name']} {wheel['version']} is missing")
    if problems:
        raise WheelError(f"{folder}: {'; '.join(problems)}")
    return files


def unpack(path: str, inside: str, target: str) -> None:
    """Lays what a wheel has under a folder of its own into the target, which may hold other wheels' files already."""
    root = f"{inside.strip('/')}/"
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            relative = entry.filename[len(root) :]
            if not entry.filename.startswith(root) or entry.is_dir() or not relative:
                continue
            if os.path.isabs(relative) or ".." in relative.split("/"):
                raise WheelError(f"{path}: {entry.filename} would lie outside the folder")
            file = os.path.join(target, relative)
            os.makedirs(os.path.dirname(file), mode=0o755, exist_ok=True)
            with archive.open(entry) as source, open(file, "wb") as sink:
                shutil.copyfileobj(source, sink, CHUNK)
            os.chmod(file, 0o755 if _is_program(file) else 0o644)


def _is_program(path: str) -> bool:
    """Programs and shared libraries start like ELF files; nothing else in these wheels is run."""
    with open(path, "rb") as stream:
        return stream.read(4) == b"\x7fELF"


def link(target: str) -> None:
    """The names that linkers look for: C(libx.so) beside C(libx.so.13), and C(lib64), where the compiler's profile looks."""
    library = os.path.join(target, "lib")
    for name in sorted(os.listdir(library)) if os.path.isdir(library) else []:
        match = _SHARED.match(name)
        if match and not os.path.lexists(os.path.join(library, match[1])):
            os.symlink(name, os.path.join(library, match[1]))
    if os.path.isdir(library) and not os.path.lexists(os.path.join(target, "lib64")):
        os.symlink("lib", os.path.join(target, "lib64"))


def manifest(wheels: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """What a folder was made of, as it is kept in it."""
    return {"schema_version": 1, "wheels": [{key: wheel[key] for key in ("name", "version", "sha256")} for wheel in wheels]}
