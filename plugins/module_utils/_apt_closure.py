# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A set of Debian packages with everything that they depend on, as a repository in one folder.

The set is closed over an empty system, not over the one it is made on: what the target lacks is then in it whatever the
target has, and where a package is tied to an exact version of another, both are. apt resolves, fetches and verifies, with a
state of its own, so that neither root nor a change of the system's is needed, and from the system's own sources, keys and proxies.
"""

from __future__ import annotations

import os
import re
import shutil
import urllib.parse
from typing import NamedTuple

from ansible_collections.onprem.llamacpp.plugins.module_utils._files import sha256_of
from ansible_collections.onprem.llamacpp.plugins.module_utils._host import Run

PACKAGES = "Packages"
URI = re.compile(r"^'(?P<uri>[^']+)' (?P<file>\S+) (?P<size>\d+)", re.MULTILINE)
FIELD = re.compile(r"^(?P<name>[A-Za-z0-9-]+): *(?P<value>.*)$", re.MULTILINE)
# Of no use to who installs, and most of an index.
DROPPED = ("Description", "Description-md5", "Tag", "Homepage", "Maintainer", "Original-Maintainer", "Suggests", "MD5sum", "SHA1", "SHA512")


class ClosureError(Exception):
    """One line for the user, with apt's own words."""


class Package(NamedTuple):
    """A package as its archive describes it; ``size`` in bytes, ``stanza`` its entry of the index."""

    name: str
    version: str
    file: str
    size: int
    sha256: str
    stanza: str


class Apt:
    """apt with lists, cache and status of its own below ``work``."""

    def __init__(self, work: str, run: Run) -> None:
        self.run = run
        for name in ("state/lists/partial", "cache/archives/partial"):
            os.makedirs(os.path.join(work, name), exist_ok=True)
        status = os.path.join(work, "status")
        with open(status, "w", encoding="ascii"):
            pass
        settings = {
            "Dir::State": os.path.join(work, "state"),
            "Dir::State::status": status,
            "Dir::Cache": os.path.join(work, "cache"),
            "Debug::NoLocking": "1",
            "APT::Install-Recommends": "0",
            "APT::Sandbox::User": "",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
        }
        self.options = [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]

    def __call__(self, program: str, *arguments: str, folder: str = "/") -> str:
        """What a program of apt's prints, run in ``folder``. Raises ClosureError."""
        code, out, err = self.run(["env", "-C", folder, program, *self.options, "-q", *arguments])
        if code != 0:
            said = [line for line in err.splitlines() if line.startswith("E:")] or err.splitlines()[-3:]
            raise ClosureError(f"{program} {arguments[0]} failed: {' '.join(said)[:600] or f'exit status {code}'}")
        return out


def closure(apt: Apt, names: list[str]) -> list[Package]:
    """The packages ``names`` and all that they need, by name. Raises ClosureError, also where one has no SHA-256."""
    out = apt("apt-get", "install", "--yes", "--print-uris", *names)
    exact = []
    for found in URI.finditer(out):
        name, version, architecture = urllib.parse.unquote(found["file"]).rsplit(".deb", 1)[0].split("_")
        exact.append(f"{name}:{architecture}={version}" if architecture != "all" else f"{name}={version}")
    if not exact:
        raise ClosureError(f"apt-get names no files for {' '.join(names)}.")
    packages = [_package(text) for text in apt("apt-cache", "show", *exact).split("\n\n") if text.strip()]
    if len({package.name for package in packages}) != len(exact):
        raise ClosureError(f"apt-cache describes {len(packages)} of {len(exact)} packages. Run again after apt-get update.")
    return sorted({package.name: package for package in packages}.values())


def _package(text: str) -> Package:
    fields = {found["name"]: found["value"] for found in FIELD.finditer(text)}
    try:
        file = os.path.basename(fields["Filename"])
        name, version, size, sha256 = fields["Package"], fields["Version"], int(fields["Size"]), fields["SHA256"]
    except (KeyError, ValueError):
        raise ClosureError(f"apt-cache describes {fields.get('Package', 'a package')} without file, size or SHA256.") from None
    return Package(name, version, file, size, sha256, stanza(text, file))


def stanza(text: str, file: str) -> str:
    """An index entry with its file in the folder of the index, without what only people read."""
    kept, keep = [], True
    for line in text.strip().splitlines():
        if not line.startswith((" ", "\t")):
            name = line.split(":", 1)[0]
            keep = name not in DROPPED
            if name == "Filename":
                line = f"Filename: ./{file}"  # noqa: PLW2901
        if keep:
            kept.append(line)
    return "\n".join(kept) + "\n"


def index(packages: list[Package]) -> str:
    """The text of ``Packages``."""
    return "\n".join(package.stanza for package in packages)


def download(apt: Apt, packages: list[Package], folder: str) -> None:
    """Fetch the packages into ``folder``, under the names that their index has. Raises ClosureError."""
    work = os.path.join(folder, ".partial")
    os.makedirs(work, exist_ok=True)
    apt("apt-get", "download", *(f"{package.name}={package.version}" for package in packages), folder=work)
    # apt writes epochs into names, which the index does not; the content tells which is which.
    found = {sha256_of(os.path.join(work, name)): os.path.join(work, name) for name in os.listdir(work)}
    for package in packages:
        if package.sha256 not in found:
            raise ClosureError(f"{package.file} did not arrive, or not with the SHA-256 {package.sha256}. Run again.")
        os.replace(found[package.sha256], os.path.join(folder, package.file))
    shutil.rmtree(work)
