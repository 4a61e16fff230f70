# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An installation that fails, and cannot be taken back either; what is tried again, and what is never done."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _driver_boot

ROLE = Path(__file__).resolve().parents[4] / "roles/nvidia_driver"

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


ENDS = [
    ({"failed": False}, True),
    ({"failed": True, "msg": "E: Sub-process /usr/bin/dpkg returned an error code (1)"}, True),
    ({"failed": True, "msg": "'/usr/bin/apt-get' failed: E: Could not get lock /var/lib/dpkg/lock-frontend."}, True),
    ({"failed": True, "msg": "E: Failed to fetch http://m/x.deb  Connection timed out\nE: Unable to fetch some archives"}, False),
]


def test_only_what_the_network_breaks_is_tried_again(tmp_path: Path) -> None:
    """A driver that does not compile takes minutes each time."""
    block = next(entry["block"] for entry in yaml.safe_load((ROLE / "tasks/install.yml").read_text()) if "block" in entry)
    pattern = yaml.safe_load((ROLE / "vars/main/main.yml").read_text())["_nvidia_driver_unfetched"]
    asked = []
    for task in [task for task in block if "ansible.builtin.apt" in task]:
        for result, done in ENDS:
            condition = f"({task['until']})" if done else f"not ({task['until']})"
            variables = {task["register"]: result, "_nvidia_driver_unfetched": pattern}
            asked.append({"ansible.builtin.assert": {"that": condition}, "vars": variables})
    assert len(asked) == 2 * len(ENDS)
    (tmp_path / "play.yml").write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": asked}]))
    run = subprocess.run(
        ["ansible-playbook", "-i", "localhost,", str(tmp_path / "play.yml")], capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stdout


def test_no_module_in_use_is_unloaded() -> None:
    """Neither by name nor by resetting its devices: programs may compute on them. A restart is what replaces a module."""
    texts = {
        path: path.read_text()
        for folder in ("tasks", "templates", "vars", "files")
        for path in (ROLE / folder).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    texts["files that are written"] = str(
        _driver_boot.files({"packages": ["x"], "fabric_manager": True, "manager": "apt", "lock": []}, "580.95.05")
    )
    unloading = re.compile(r"\brmmod\b|modprobe\W+(?:-r\b|--remove)|gpu-reset|\bunbind\b|modprobe:\s")
    assert len(texts) > 20
    assert [str(path) for path, text in texts.items() if unloading.search(text)] == []
    assert unloading.search("argv: [modprobe, -r, nvidia]") and unloading.search("argv: [nvidia-smi, --gpu-reset]")
