# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stands in for a model file that is not there: its header, and nothing behind it up to its full size."""

from __future__ import annotations

import os
from typing import Union


def write_stub(header: Union[bytes, bytearray, str], size: int, target: str, mode: int = 0o600) -> None:
    """Write ``header`` (its bytes, or the path of a file that holds them) to the new file ``target`` of ``size`` bytes.

    The file is sparse where the file system can do that; the engine sizes a model by it, and nothing may serve it.
    Raises OSError, FileExistsError among them, and ValueError when the header is longer than the file would be.
    """
    if isinstance(header, str):
        with open(header, "rb") as stream:
            header = stream.read()
    if len(header) > size:
        raise ValueError(f"a header of {len(header)} bytes does not fit into a file of {size}")
    with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "wb") as made:
        os.fchmod(made.fileno(), mode)
        made.write(header)
        made.truncate(size)
