# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The benchmarks can be started; what they measure is no matter of tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


RUN = """
TASK [Collect facts] ****
<10.86.1.11> SSH: EXEC ssh facts
TASK [onprem.llamacpp.nvidia_driver : Decide what is done about the driver] ****
ok: [unchanged1]
TASK [onprem.llamacpp.cuda_toolkit : Look for the toolkit's parts] ****
<10.86.1.11> ESTABLISH SSH CONNECTION FOR USER: root
<10.86.1.11> SSH: EXEC ssh wheels
<10.86.1.11> (0, b'', b'')
<10.86.1.11> PUT file TO elsewhere
TASK [onprem.llamacpp.llama_engine : Install the engine] ****
PLAY RECAP ****
unchanged1 : ok=9 changed=0
"""


def test_calls_are_counted_by_role() -> None:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import unchanged  # noqa: PLC0415

    assert unchanged.remote_calls(RUN) == {"nvidia_driver": 0, "cuda_toolkit": 2, "llama_engine": 0}


def test_every_benchmark_loads() -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/bench.py", "--only", "nothing"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "no figure is called nothing; there are rerun_remote_calls" in done.stderr
