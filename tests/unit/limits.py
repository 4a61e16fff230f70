# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Proves that code gets by with so much memory and time."""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def limits(memory: int, seconds: float) -> Iterator[None]:
    """Inside, the process gets ``memory`` more bytes from the system, then MemoryError; and so many seconds of processor time."""
    held = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (held + memory, hard))
    began = time.process_time()
    try:
        yield
    finally:
        spent = time.process_time() - began
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        assert spent < seconds, f"took {spent:.1f} s of processor time instead of {seconds}"
