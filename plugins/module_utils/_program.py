# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A program of ours as one file that Python runs: the modules that this host was sent, under the names they import each other by."""

from __future__ import annotations

import inspect
import sys
import zipfile
from collections.abc import Sequence

from ansible_collections.onprem.llamacpp.plugins.module_utils import _transfer

PACKAGE = _transfer.__name__.rpartition(".")[0]
# The transfer and everything that it imports.
PARTS = (
    "_blocks",
    "_buffer",
    "_connections",
    "_file_state",
    "_file_transfer",
    "_files",
    "_http",
    "_journal",
    "_pace",
    "_part",
    "_progress",
    "_ranges",
    "_segments",
    "_shared",
    "_source",
    "_sources",
    "_supply",
    "_transfer",
    "_verify",
)


def write_program(path: str, parts: Sequence[str] = PARTS, entry: str = "_transfer") -> None:
    """Write modules that are loaded here to ``path``; ``entry``, one of them, has a ``main`` that takes the arguments."""
    folders = PACKAGE.split(".")
    with zipfile.ZipFile(path, "w") as archive:
        for depth in range(1, len(folders) + 1):
            archive.writestr("/".join([*folders[:depth], "__init__.py"]), "")
        for name in parts:
            archive.writestr("/".join([*folders, f"{name}.py"]), inspect.getsource(sys.modules[f"{PACKAGE}.{name}"]))
        archive.writestr("__main__.py", f"import sys\n\nfrom {PACKAGE} import {entry}\n\nsys.exit({entry}.main(sys.argv))\n")
