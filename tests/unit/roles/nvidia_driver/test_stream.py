# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From one stream of packages to another, with a program that notes what dnf is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize(
    ("stream", "asked"),
    [
        pytest.param("nvidia-driver:580-open", ["reset nvidia-driver", "enable nvidia-driver:580-open"], id="another"),
        pytest.param("", ["reset nvidia-driver"], id="none"),
    ],
)
def test_stream(tmp_path: Path, run_tasks: Any, stream: str, asked: list[str]) -> None:
    done = run_tasks("stream", {"one": {}}, {"_nvidia_driver_stream": stream}, {"dnf": f'echo "$@" >> {tmp_path}/asked\n'})
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "asked").read_text().splitlines() == [f"-y module {words}" for words in asked]
