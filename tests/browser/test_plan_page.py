# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet's page, opened from a file in a real browser: what it shows, by mouse and by keyboard, and that it asks nobody."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import HOSTILE
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

pytestmark = pytest.mark.browser


def text(browser: Any, css: str) -> str:
    return str(browser.find_element(By.CSS_SELECTOR, css).text)


def cells(browser: Any, host: str) -> dict[str, WebElement]:
    """The cells of a host's row by quant."""
    quants = [head.text.split("\n")[0] for head in browser.find_elements(By.CSS_SELECTOR, "#quants th")[1:]]
    for row in browser.find_elements(By.CSS_SELECTOR, "#hosts tr"):
        if row.find_element(By.TAG_NAME, "th").get_attribute("title") == host:
            return dict(zip(quants, row.find_elements(By.TAG_NAME, "td")))
    raise AssertionError(f"no row for {host}")


def focused(browser: Any) -> str:
    return str(browser.switch_to.active_element.get_attribute("aria-label"))


def luminance(colour: str) -> float:
    """Relative luminance of a computed colour such as rgb(1, 2, 3)."""
    parts = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(element: WebElement, ground: str) -> float:
    one, other = sorted((luminance(element.value_of_css_property("color")), luminance(ground)))
    return (other + 0.05) / (one + 0.05)


def test_the_map_says_with_words_what_it_says_with_colour(browser: Any, written: Path) -> None:
    browser.get((written / "plan.html").as_uri())
    assert text(browser, "#counts").replace("\n", " ") == "✔ 7 accept ▼ 1 downgrade ✘ 1 refuse"
    assert cells(browser, "t4-64")["UD-Q2_K_XL"].text == "☆ ✕ no"
    assert cells(browser, "t4-96")["UD-Q2_K_XL"].text == "★ ≈ streaming"
    assert cells(browser, "t4-no-driver")["UD-IQ1_S"].text == "★ ≈ streaming"
    assert cells(browser, "a100x2-512")["UD-Q2_K_XL"].text == "★ ◆ resident"
    told = cells(browser, "t4-64")["UD-Q2_K_XL"].get_attribute("aria-label")
    assert told.startswith("t4-64, UD-Q2_K_XL, 381 GB: does not fit, wished and refused, memory: UD-Q2_K_XL needs 96.0 GB")


def test_light_and_dark_are_both_readable(browser: Any, written: Path) -> None:
    browser.get((written / "plan.html").as_uri())
    paper = browser.find_element(By.TAG_NAME, "body").value_of_css_property("background-color")
    assert (luminance(paper) > 0.5) is (browser.scheme == "light")
    row = cells(browser, "a10-192")
    for quant in ("UD-TQ1_0", "UD-Q5_K_XL"):
        assert contrast(row[quant], row[quant].value_of_css_property("background-color")) >= 4.5
    resident = cells(browser, "cpu-512")["UD-TQ1_0"]
    assert contrast(resident, resident.value_of_css_property("background-color")) >= 4.5
    for css in ("h1", ".sub", ".hint"):
        assert contrast(browser.find_element(By.CSS_SELECTOR, css), paper) >= 4.5
    card = browser.find_element(By.CSS_SELECTOR, ".card").value_of_css_property("background-color")
    for verdict in ("accept", "downgrade", "refuse"):
        assert contrast(browser.find_element(By.CSS_SELECTOR, f".pill.{verdict}"), paper) >= 4.5
        assert contrast(browser.find_element(By.CSS_SELECTOR, f"th .{verdict}"), card) >= 4.5


def test_the_keyboard_reaches_every_cell(browser: Any, written: Path) -> None:
    browser.get((written / "plan.html").as_uri())
    for _press in range(4):  # search, verdict, link speed, map
        browser.switch_to.active_element.send_keys(Keys.TAB)
    if browser.switch_to.active_element.get_attribute("role") != "gridcell":
        browser.switch_to.active_element.send_keys(Keys.TAB)  # a scrolled region takes the focus as well
    assert focused(browser).startswith("t4-64, UD-Q2_K_XL")
    assert browser.switch_to.active_element.value_of_css_property("outline-style") == "solid"
    steps = [
        (Keys.ARROW_DOWN, "t4-96, UD-Q2_K_XL"),
        (Keys.ARROW_RIGHT, "t4-96, UD-IQ3_XXS"),
        (Keys.HOME, "t4-96, UD-TQ1_0"),
        (Keys.ARROW_LEFT, "t4-96, UD-TQ1_0"),
        (Keys.END, "t4-96, UD-Q5_K_XL"),
        (Keys.ARROW_UP, "t4-64, UD-Q5_K_XL"),
        (Keys.ARROW_UP, "t4-64, UD-Q5_K_XL"),
        (Keys.PAGE_DOWN, f"{HOSTILE}, UD-Q5_K_XL"),
    ]
    for key, expected in steps:
        browser.switch_to.active_element.send_keys(key)
        assert focused(browser).startswith(expected)
        assert text(browser, "#detail h2") == expected.rsplit(", ", 1)[0]
    assert len(browser.find_elements(By.CSS_SELECTOR, '#map [tabindex="0"]')) == 1


def test_download_time_follows_the_link(browser: Any, written: Path) -> None:
    browser.get((written / "plan.html").as_uri())
    cells(browser, "t4-96")["UD-Q2_K_XL"].click()
    assert text(browser, "#download") == "381 GB, about 51 min"
    link = browser.find_element(By.ID, "link")
    link.clear()
    link.send_keys("100")
    assert text(browser, "#download") == "381 GB, about 8.5 h"
    link.clear()  # nothing to compute with: the last answer stays
    assert text(browser, "#download") == "381 GB, about 8.5 h"


def test_memory_bars_show_the_parts_and_the_stranger(browser: Any, written: Path) -> None:
    browser.get((written / "plan.html").as_uri())
    cells(browser, "a100x2-512")["UD-Q2_K_XL"].click()
    tracks = [track.get_attribute("aria-label") for track in browser.find_elements(By.CSS_SELECTOR, "#detail .track")]
    assert [track.split(":")[0] for track in tracks] == ["CUDA0 NVIDIA A100 80GB PCIe", "CUDA1 NVIDIA A100 80GB PCIe", "Host memory"]
    for part in ("weights", "context", "compute", "headroom"):
        assert part in tracks[0]
    cells(browser, "a10-occupied")["UD-Q2_K_XL"].click()
    assert "other programs 21.7 GB" in browser.find_element(By.CSS_SELECTOR, "#detail .track").get_attribute("aria-label")
    for track in browser.find_elements(By.CSS_SELECTOR, "#detail .track"):
        width = sum(share.size["width"] for share in track.find_elements(By.TAG_NAME, "i"))
        assert width <= track.size["width"] + 1


def test_a_card_in_use_keeps_its_stranger_when_it_is_counted_anew(
    browser: Any, written: Path, render: Callable[[dict[str, Any]], Path]
) -> None:
    document = json.loads((written / "plan.json").read_text())
    plan = next(entry for entry in document["plans"] if entry["inventory_hostname"] == "a100x2-512")
    document["plans"] = [plan]
    (small, large), shares = plan["hardware"]["devices"], plan["memory"]["devices"]
    small["name"] = "Tesla T4"
    large.update(uuid="", pci_address="0000:af:00.0", foreign=3 * 10**9)
    plan["devices"] = [{**plan["devices"][1], "uuid": "0000:af:00.0", "engine_name": "CUDA0"}]
    shares[0].update(weights=0, context=0, compute=0)
    shares[1].update(uuid="0000:af:00.0", engine_name="CUDA0", capacity=shares[1]["capacity"] - 3 * 10**9)
    browser.get(render(document).as_uri())
    labels = [track.get_attribute("aria-label") for track in browser.find_elements(By.CSS_SELECTOR, "#detail .track")]
    assert [label.split(":")[0] for label in labels] == ["Tesla T4, not used", "CUDA0 NVIDIA A100 80GB PCIe", "Host memory"]
    assert "other programs" not in labels[0]
    assert "other programs 3.0 GB" in labels[1]


def test_searching_and_filtering(browser: Any, written: Path) -> None:
    browser.get((written / "plan.html").as_uri())
    browser.find_element(By.CSS_SELECTOR, "#verdict option:nth-child(4)").click()
    assert [row.text.split("\n")[0] for row in browser.find_elements(By.CSS_SELECTOR, "#hosts th")] == ["✘ t4-64"]
    find = browser.find_element(By.ID, "find")
    find.send_keys("nobody")
    assert text(browser, "#none") == "No host matches."
    assert not browser.find_element(By.ID, "detail").is_displayed()
    browser.find_element(By.CSS_SELECTOR, "#verdict option:nth-child(1)").click()
    find.clear()
    find.send_keys("A100")
    assert len(browser.find_elements(By.CSS_SELECTOR, "#hosts tr")) == 1
    assert text(browser, "#detail h2") == "a100x2-512"


def test_names_are_text_and_nothing_is_asked_or_complained_of(browser: Any, written: Path) -> None:
    page = written / "plan.html"
    browser.get(page.as_uri())
    cells(browser, HOSTILE)["UD-TQ1_0"].click()
    assert text(browser, "#detail h2") == HOSTILE
    assert browser.title == "Plan of the fleet"
    assert HOSTILE not in page.read_text()
    assert len(browser.find_elements(By.TAG_NAME, "script")) == 2
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith(("file:", "data:", "chrome:"))] == []


def test_five_hundred_hosts(browser: Any, written: Path, render: Callable[[dict[str, Any]], Path]) -> None:
    document = json.loads((written / "plan.json").read_text())
    plans = document["plans"]
    document["plans"] = [copy.deepcopy({**plans[number % len(plans)], "inventory_hostname": f"gpu-{number:03d}"}) for number in range(500)]
    began = time.monotonic()
    browser.get(render(document).as_uri())
    assert len(browser.find_elements(By.CSS_SELECTOR, "#hosts tr")) == 500
    assert time.monotonic() - began < 10
    browser.find_element(By.ID, "find").send_keys("gpu-499")
    assert text(browser, "#detail h2") == "gpu-499"
    assert browser.get_log("browser") == []


def test_a_fleet_without_plans(browser: Any, render: Callable[[dict[str, Any]], Path]) -> None:
    meta = {"schema_version": 1, "generator": "x", "generated_at": "2026-11-21T06:00:00Z", "notes": [], "unplanned": ["gpu-1"]}
    browser.get(render({"meta": meta, "plans": []}).as_uri())
    assert text(browser, "#notes") == "Without a plan: gpu-1"
    assert browser.get_log("browser") == []
