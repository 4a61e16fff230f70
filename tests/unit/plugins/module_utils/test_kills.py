# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kill -9 at random moments: a real process of the real program, the bytes that it costs counted where they are served.

KILLS is how often (default 5).
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hub_server import COMMIT, REPO_ID, Hub

from ansible_collections.onprem.llamacpp.plugins.module_utils import _journal
from ansible_collections.onprem.llamacpp.plugins.module_utils._program import PARTS, write_program

KILLS = int(os.environ.get("KILLS", "5"))
MIB = 2**20
CONNECTIONS = 4
# As much as the system may hold for a connection between the server and the journal, and what the journal may lag behind.
COST = 64 * MIB * CONNECTIONS
NAMES = [f"Q2_K/M-Q2_K-0000{number}-of-00002.gguf" for number in (1, 2)]


@pytest.fixture
def hub():
    made = Hub({NAMES[0]: os.urandom(96 * MIB), NAMES[1]: os.urandom(33 * MIB + 7)})
    yield made
    made.close()


@pytest.fixture
def command(hub, tmp_path):
    (tmp_path / "staging").mkdir()
    job = {
        "sources": [{"transport": "hub", "url": hub.url}],
        "repo_id": REPO_ID,
        "commit": COMMIT,
        "files": hub.listing(),
        "staging": str(tmp_path / "staging"),
        "connections": CONNECTIONS,
        "rate_limit": 40 * MIB,  # so that there is something to kill
    }
    (tmp_path / "job.json").write_text(json.dumps(job))
    write_program(str(tmp_path / "transfer.pyz"))
    return [sys.executable, "-I", str(tmp_path / "transfer.pyz"), str(tmp_path / "job.json")]


def present(tmp_path, hub):
    return _journal.bytes_present(str(tmp_path / "staging"), hub.listing())


def test_killed_at_random_moments_it_goes_on(hub, tmp_path, command):
    chance = random.Random()
    kept = []
    job = json.loads((tmp_path / "job.json").read_text())
    # So that it lasts for all kills: a second each on average, in which the journal is written about once.
    (tmp_path / "job.json").write_text(json.dumps({**job, "rate_limit": sum(item["size"] for item in job["files"]) // KILLS}))
    for number in range(KILLS):
        had, sent = present(tmp_path, hub), hub.sent
        with subprocess.Popen(command) as process:
            early = chance.random() < 0.2
            while not early and hub.sent == sent and process.poll() is None:
                time.sleep(0.02)
            time.sleep(chance.uniform(0.0, 2.0))
            while number == KILLS - 1 and process.poll() is None and not present(tmp_path, hub):
                time.sleep(0.02)  # so that there is something to go on from
            process.kill()
        time.sleep(0.1)
        held = present(tmp_path, hub)
        assert held >= had
        assert hub.sent - sent - (held - had) <= COST
        kept.append(held)
    assert kept[-1] > 0
    subprocess.run(command, check=True, timeout=300)
    for name in NAMES:
        assert (tmp_path / "staging" / os.path.basename(name)).read_bytes() == hub.files[name]


def test_memory_stays_small(tmp_path, command):
    most = 0
    with subprocess.Popen(command) as process:
        while process.poll() is None:
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{process.pid}/status").read_text()
                most = max([most, *(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))])
            time.sleep(0.02)
    assert process.returncode == 0
    assert 10_000 < most < 100_000  # KiB


def test_the_program_has_every_module_that_it_imports_and_no_other(tmp_path):
    write_program(str(tmp_path / "transfer.pyz"))
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); from {0} import _transfer; print(*(n for n in sys.modules if '.module_utils._' in n))"
    )
    package = "ansible_collections.onprem.llamacpp.plugins.module_utils"
    done = subprocess.run(
        [sys.executable, "-I", "-c", program.format(package), str(tmp_path / "transfer.pyz")], check=True, capture_output=True, text=True
    )
    assert sorted(name.rpartition(".")[2] for name in done.stdout.split()) == sorted(PARTS)


def interpreters() -> list[str]:
    """This Python, the system's, and whatever others of 3.9 and later pyenv has."""
    pyenv = glob.glob(os.path.expanduser("~/.pyenv/versions/3.*/bin/python3"))
    old = [path for path in pyenv if int(path.split(os.sep)[-3].split(".")[1]) >= 9]
    return sorted({sys.executable, *filter(None, [shutil.which("python3", path="/usr/bin")]), *old})


@pytest.mark.parametrize("interpreter", interpreters())
def test_the_program_runs_on_old_and_new_interpreters(hub, tmp_path, command, interpreter):
    job = json.loads((tmp_path / "job.json").read_text())
    (tmp_path / "job.json").write_text(json.dumps({**job, "rate_limit": 0}))
    subprocess.run([interpreter, *command[1:]], check=True, timeout=60)
    assert (tmp_path / "staging" / os.path.basename(NAMES[0])).read_bytes() == hub.files[NAMES[0]]
