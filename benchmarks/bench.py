# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures every figure, or those named with ``--only a,b``, and writes build/bench.json.

A figure that could not be measured is absent from the file; whether a bar was met does not change the exit status.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import exposure
import fetching
import fitting
import planning
import second_host
import serving
import swarm
import unchanged
from headers import header_vs_ggufpy

ROOT = Path(__file__).resolve().parents[1]
DEMO = ["-i", "demo/inventory.yml", "-i", "tests/lab/inventory"]
DEMO_HOST = "10.77.0.11"


def run(command: list[str], **more: Any) -> str:
    """Runs a command in the project and returns its output; fails with it."""
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=1800, **more)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}")
    return done.stdout


def rerun_remote_calls() -> dict[str, Any]:
    """Modules, raw commands and transfers on an unchanged, serving host during a second site.yml (the demo's host)."""
    run(["demo/run.sh", "package"])
    wish = ["-e", "model=onprem/gemma-3-270m-GGUF", "-e", "quant=Q4_K_M"]
    output = run(["ansible-playbook", *DEMO, "site.yml", *wish, "-vvv"], env={**os.environ, "ANSIBLE_NOCOLOR": "1"})
    if not re.search(r"demo-host\s+: ok=\d+\s+changed=0\s", output):
        raise RuntimeError("the second run changed something, so it is not the figure that was asked for")
    # With pipelining, which ansible.cfg switches on, each module or raw command is one execution, and a transfer one more.
    calls = len(re.findall(rf"^<{re.escape(DEMO_HOST)}> (?:SSH: EXEC|PUT|FETCH)", output, re.MULTILINE))
    return {"value": calls, "unit": "calls", "bar": "<= 25", "against": "the demo's host, second run"}


FIGURES: dict[str, Callable[[], dict[str, Any]]] = {
    "rerun_remote_calls": rerun_remote_calls,
    "engine_noop_remote_calls": unchanged.engine_noop_remote_calls,
    "engine_artifact_seconds": second_host.engine_artifact_seconds,
    "header_vs_ggufpy": header_vs_ggufpy,
    "plan_vs_debug_task": planning.plan_vs_debug_task,
    "fetch_vs_curl": fetching.fetch_vs_curl,
    "fetch_vs_hf": fetching.fetch_vs_hf,
    "fetch_peak_rss_mib": fetching.fetch_peak_rss_mib,
    "fetch_resume_waste_mib": fetching.fetch_resume_waste_mib,
    "fetch_complete_seconds": fetching.fetch_complete_seconds,
    "fit_combinations": fitting.combinations,
    "fit_device_error_pct_max": fitting.device_error_percent,
    "fit_device_error_mib_max": fitting.device_error_mib,
    "fit_context_error_mib_max": fitting.context_error_mib,
    "fit_weights_error_mib_max": fitting.weights_error_mib,
    "exact_fit_seconds": fitting.exact_fit_seconds,
    "exposure_cpu": exposure.exposure_cpu,
    "exposure_cuda": exposure.exposure_cuda,
    "server_noop_remote_calls": serving.server_noop_remote_calls,
    "serve_vs_default_gen": serving.serve_vs_default_gen,
    "serve_vs_default_prompt": serving.serve_vs_default_prompt,
    "switch_gap_ratio": serving.switch_gap_ratio,
    "overlap_failed_requests": serving.overlap_failed_requests,
    "rollback_work_seconds": serving.rollback_work_seconds,
    "swarm_fill_ratio": swarm.fill_ratio,
    "swarm_origin_ratio": swarm.origin_ratio,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="names of figures, separated by commas")
    names = [name for name in parser.parse_args().only.split(",") if name] or list(FIGURES)
    unknown = sorted(set(names) - set(FIGURES))
    if unknown:
        parser.error(f"no figure is called {', '.join(unknown)}; there are {', '.join(FIGURES)}")
    started, clock = datetime.now(timezone.utc), time.monotonic()
    figures, failed = {}, False
    for name in names:
        try:
            figures[name] = FIGURES[name]()
            print(f"{name} = {figures[name]['value']} {figures[name]['unit']} (bar {figures[name]['bar']})", flush=True)
        except (RuntimeError, OSError, ValueError, subprocess.SubprocessError) as error:
            failed = True
            print(f"{name} could not be measured: {error}", file=sys.stderr, flush=True)
    meta = {
        "commit": run(["git", "rev-parse", "HEAD"]).strip(),
        "started": started.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "seconds": round(time.monotonic() - clock),
        "machine": f"{platform.system()} {platform.release()} {platform.machine()}, {os.cpu_count()} cores",
    }
    target = ROOT / "build" / "bench.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps({"meta": meta, "figures": figures}, indent=2) + "\n")
    print(f"wrote {target.relative_to(ROOT)}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
