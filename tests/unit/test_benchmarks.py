# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The benchmarks can be started; what they measure is no matter of tests."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.onprem.llamacpp.plugins.plugin_utils._deployment import environment_file

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


@pytest.fixture(name="probe")
def fixture_probe(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The program that runs on the host of the serving figures."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks/serving_lab"))
    return importlib.import_module("probe")


def test_settings_are_read_as_systemd_reads_them(probe: Any, tmp_path: Path) -> None:
    told = {"LLAMA_ARG_MODEL": "/a b/$m.gguf", "LLAMA_ARG_PORT": "8080", "LLAMACPP_ARGS": '--no-repack --note "a \\"b\\""'}
    (tmp_path / "server.env").write_text(environment_file(told))
    assert probe.settings(str(tmp_path / "server.env")) == told


def test_server_that_ends_or_never_answers_is_not_waited_for_without_end(probe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "ask", lambda *_arguments, **_more: {})
    with pytest.raises(SystemExit, match="has ended"):
        probe.healthy(1, lambda: False)
    monkeypatch.setattr(probe, "HEALTHY_SECONDS", 0)
    with pytest.raises(SystemExit, match="no server was healthy"):
        probe.healthy(1)


def test_every_benchmark_loads() -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/bench.py", "--only", "nothing"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "no figure is called nothing; there are rerun_remote_calls" in done.stderr
