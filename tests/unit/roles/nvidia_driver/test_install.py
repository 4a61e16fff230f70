# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An installation that fails, and cannot be taken back either."""

from __future__ import annotations

from pathlib import Path
from typing import Any

DKMS = """[ "$1" != status ] || printf 'nvidia/580.95.05, 6.1, x86_64: installed\\nnvidia/580.95.05: added\\n'
"""


def test_the_cause_is_told_with_what_could_not_be_taken_back(tmp_path: Path, run_tasks: Any) -> None:
    driver = {"container": "", "loaded": [], "version": "", "record": {"version": "570.1.2", "packages": {}}, "kernels": [], "stream": ""}
    names: dict[str, list[str]] = {key: [] for key in ("packages", "companions", "headers", "headers_meta", "lock")}
    extra = {
        "_nvidia_driver_hardware": {"os": {"kernel": "6.1"}, "devices": [], "driver": driver},
        "__nvidia_driver_plan": {
            **names,
            "kernels": ["6.1", "6.2"],
            "manager": "apt",
            "modules": "open",
            "source": "nvidia",
            "module_stream": "",
            "version": "",
            "branch": "580",
        },
        "__nvidia_driver_choice": {"version": "580.95.05", "packages": {}, "problems": [], "headers": [], "install": []},
        # The lock of the new version cannot be written, and neither can the one of before.
        "_nvidia_driver_lock": str(tmp_path / "none/lock"),
        "__nvidia_driver_undo": {"purge": ["new"], "reinstall": ["old=1"]},
        "_nvidia_driver_files": {},
    }
    programs = {"dkms": DKMS, "modinfo": f'echo "$2" >> {tmp_path}/asked; exit 1\n'}
    done = run_tasks("install", {"one": {}}, extra, programs)
    told = " ".join(done.stdout.split())
    assert done.returncode == 2, done.stdout
    assert "one: The driver 580.95.05 (open modules, nvidia) cannot be installed. The package manager said:" in told, done.stdout
    assert "It could not be taken back whole either:" in told and "remove new, and install old=1 again." in told
    # The kernel that the modules were not built for, though the one that runs has them.
    assert set((tmp_path / "asked").read_text().split()) == {"6.2"}
