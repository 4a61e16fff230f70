# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The example fleet's page, as the playbook writes it, and a headless browser to open it in."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jinja2
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

ROOT = Path(__file__).resolve().parents[2]
# A host whose name is markup, and whose facts are too.
HOSTILE = "<script>document.title='broken'</script>"


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What playbooks/plan.yml writes for inventories/example and one hostile host."""
    folder = tmp_path_factory.mktemp("plan")
    facts = {
        **{"schema_version": 2, "hostname": HOSTILE, "collected_at": "2026-11-02T06:00:00Z", "memory": {"total": 540 * 10**9}},
        **{"devices": [], "disks": [{"path": "/var/lib/llamacpp/models", "free": 2 * 10**12}], "listeners": []},
    }
    hosts = {HOSTILE: {"llama_hardware_recorded": facts, "llama_plan_use_recorded": True}}
    extra = folder / "hostile.json"
    extra.write_text(json.dumps({"all": {"children": {"gpu_hosts": {"hosts": hosts}}}}))
    wish = ["-e", "llama_plan_endpoint=http://127.0.0.1:9", "-e", f"llama_plan_output={folder}/out"]
    done = subprocess.run(
        ["ansible-playbook", "playbooks/plan.yml", "-i", "inventories/example", "-i", str(extra), *wish],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (folder / "out/plan.html").exists(), done.stdout + done.stderr
    return folder / "out"


@pytest.fixture(scope="session")
def render(tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict[str, Any]], Path]:
    """Makes the page of any document."""

    def page(document: dict[str, Any]) -> Path:
        template = (ROOT / "roles/llama_plan/templates/plan.html.j2").read_text()
        target = tmp_path_factory.mktemp("page") / "plan.html"
        target.write_text(jinja2.Environment().from_string(template).render(__llama_plan_fleet={"json": json.dumps(document)}))
        return target

    return page


@pytest.fixture(params=["light", "dark"])
def browser(request: pytest.FixtureRequest) -> Iterator[webdriver.Chrome]:
    """A browser that prefers light, then one that prefers dark; it keeps its console and its requests."""
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1360,1150"):
        options.add_argument(argument)
    options.binary_location = "/usr/bin/chromium"
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    driver.scheme = request.param
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": request.param}]})
    yield driver
    driver.quit()
