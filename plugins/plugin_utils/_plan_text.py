# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Says plans in words: one table a host, and one for the fleet. Lines have 100 columns at most."""

from __future__ import annotations

import textwrap
from collections import Counter
from typing import Any, Optional

from ansible_collections.onprem.llamacpp.plugins.module_utils._words import amount

WIDTH = 100
NOTHING = "-"
TOGETHER = "\N{NO-BREAK SPACE}"  # a space at which no line ends
LABEL = 12
MAIN = "main"
BAR = 24
COLUMNS = {"Host": 24, "Verdict": 11, "Quant": 14, "Fit": 9, "Tokens/s": 12}  # of the fleet's table, at most
SYMBOLS = {"accept": "✔", "downgrade": "▼", "refuse": "✘"}
FITS = {
    "vram": "vram: all of it on the devices",
    "resident": "resident: all of it in the memory of devices and host",
    "streaming": "streaming: a part stays on disk, and is read again while the model answers",
    "none": "none",
}
SIZES = {
    "catalog": "estimated from file sizes",
    "headers": "computed from the headers of its files",
    "engine": "told by the engine itself",
}
SPEEDS = {
    "benchmark": "measured on this host",
    "bandwidth": "estimated from memory bandwidths",
    "guide": "a figure published for this quant",
}
NO_PLAN = "no plan: the host was not reached, or what is known of it cannot be planned with (see its error above)"


def refusal(result: dict[str, Any]) -> str:
    """One sentence or two for the user whose wish is refused."""
    where = whose({**result, "inventory_hostname": result["host"]})
    return f"{result['model']} {result['quant_requested']} is refused on {where}: " + "; ".join(result["reasons"])


def whose(result: dict[str, Any]) -> str:
    """The host of a plan, and the instance where it is a further one."""
    further = result.get("instance", MAIN) != MAIN
    return result["inventory_hostname"] + (f", instance {result['instance']}" if further else "")


def holds(entry: dict[str, Any]) -> str:
    """What another instance of the host has of its memory and of its devices."""
    devices = f" and {amount(entry['devices'])} of devices" if entry["devices"] else ""
    return f"{amount(entry['host'])} of memory{devices}"


def duration(seconds: int) -> str:
    """A time to wait, as precise as one needs it."""
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def speed(expected: dict[str, Any]) -> str:
    """Expected tokens per second as a range, or about the one figure there is; empty when nothing is expected."""
    low, high, middle = (expected.get(key) for key in ("low", "high", "tokens_per_second"))
    if low is not None and high is not None:
        if low == high:
            return f"{_figure(low)} tokens/s"
        return f"{_figure(low)} to {_figure(high)} tokens/s"
    return f"about {_figure(middle)} tokens/s" if middle is not None else ""


def _figure(value: float) -> str:
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"


def text(result: dict[str, Any], host: str = "", facts: str = "", link: Optional[int] = None) -> list[str]:
    """The table of one host.

    Args:
        result: the plan.
        host: the name to show, when not the one that the host gives itself.
        facts: where the facts are from, when they were not collected just now.
        link: bits per second that the download time was computed with.
    """
    name = host or whose({**result, "inventory_hostname": result["host"]})
    lines = [f"━━ {name} ".ljust(WIDTH, "━")[:WIDTH]]
    verdict = result["verdict"]
    refused = verdict == "refuse" or not result["placement"]
    quant = result["quant_requested"] if refused else result["quant"]
    instead = f" instead of {result['quant_requested']}" if quant != result["quant_requested"] else ""
    size = f", {amount(result['download']['bytes'])}" if result["download"] else ""
    lines += _row(f"{SYMBOLS[verdict]} {verdict}", f"{result['model']} {quant}{instead}{size}")
    if facts:
        lines += _row("facts", facts)
    lines += _given(result) if refused else _fitting(result, link)
    lines += _guide(result.get("guide", {}))
    for entry in result.get("beside", []) if not refused else []:
        known = "" if entry["declared"] else "; llama_instances does not declare it"
        lines += _row("beside", f"{entry['instance']}, which has {holds(entry)}{known}")
    for index, reason in enumerate(result["reasons"]):
        lines += _row("" if index else "because", f"· {reason}")
    for index, note in enumerate([*result.get("notes", []), *result["disk"].get("notes", [])]):
        lines += _row("" if index else "note", f"· {note}")
    for advisory in result.get("advisories", []):
        lines += _row(
            advisory.get("severity", "advice"), f"{advisory.get('text', '')} [{advisory.get('source') or advisory.get('id', '')}]"
        )
    fitting = [other for other in result["alternatives"] if other["verdict"] == "accept" and other["quant"] != result["quant"]]
    label = "would fit" if refused else "fits too"
    for fit in FITS:
        offers = [f"{other['quant']} ({amount(other['bytes'])})".replace(" ", TOGETHER) for other in fitting if other["fit"] == fit]
        if offers:
            lines += _row(label, f"{fit}: {', '.join(offers)}")
            label = ""
    return lines


def _guide(said: dict[str, Any]) -> list[str]:
    """What the publisher's guide says of the quant, which the plan may contradict."""
    parts = [f"{amount(said['ram_streaming'])} of RAM"] if "ram_streaming" in said else []
    parts += [f"{amount(said['vram_offload'])} on devices"] if "vram_offload" in said else []
    if "tokens_per_second" in said:
        parts.append(
            f"about {said['tokens_per_second']:g} tokens/s" + (f" with one {said['measured_on']}" if "measured_on" in said else "")
        )
    return _row("guide says", ", ".join(parts)) if parts else []


def _given(result: dict[str, Any]) -> list[str]:
    """What a host has to give, whatever is wished."""
    devices = [f"{device.get('name') or device['engine_name']} {amount(device['capacity'])}" for device in result["memory"]["devices"]]
    host = result["memory"]["host"]
    return _row("can give", ", ".join([*devices, f"RAM {amount(host['capacity'])}"])) if host else []


def _fitting(result: dict[str, Any], link: Optional[int]) -> list[str]:
    """What a plan that is carried out takes: regime, memory, disk, time."""
    place, host, disk, download = result["placement"], result["memory"]["host"], result["disk"], result["download"]
    lines = [*_row("fit", FITS[result["fit"]]), *_row("sizes", SIZES[result["basis"]])]
    in_use = {device["uuid"] for device in result["devices"]}
    for device in result["memory"]["devices"] if place["n_gpu_layers"] else []:
        used = device["weights"] + device["context"] + device["compute"]
        # Devices in use are counted anew, so the name of one that is not may be another's.
        label = device["engine_name"] if device["uuid"] in in_use else "not used"
        lines += _row(label, _gauge(used, device["capacity"], device.get("name", "")))
    used = sum(host[part] for part in ("weights", "context", "compute", "cache"))
    over = f"host memory; {amount(used - host['capacity'])} of it on disk" if used > host["capacity"] else "host memory"
    lines += _row("RAM", _gauge(used, host["capacity"], over))
    room = f"{amount(disk['required'])} needed, {amount(disk['free'])} free in {disk['path']}"
    lines += _row("disk", room if disk["required"] else f"nothing more needed in {disk['path']}")
    fetch = f"{amount(download['remaining'])}, about {duration(download['eta_seconds'])}" + (f" at {_rate(link)}" if link else "")
    lines += _row("download", fetch if download["remaining"] else "nothing, the model is on the host")
    expected = speed(result["expected"])
    lines += _row("speed", f"{expected}, {SPEEDS.get(result['expected']['basis'], '')}".rstrip(", ") if expected else "not known")
    estimate = result["expected"].get("estimate") or {}
    if speed(estimate):
        lines += _row("", f"{speed(estimate)} had been expected, {SPEEDS.get(estimate['basis'], '')}".rstrip(", "))
    experts = f", experts of {place['n_cpu_moe']} layers in host memory" if place["n_cpu_moe"] else ""
    where = "layers on the devices" if place["n_gpu_layers"] else "everything on the CPU"
    return lines + _row("placement", f"context {place['ctx_size']} tokens, {place['parallel']} slot(s), {where}{experts}")


def _row(label: str, value: str) -> list[str]:
    hanging = " " * (LABEL + 2 + (2 if value.startswith("· ") else 0))
    head = f" {label:<{LABEL}} "
    lines = textwrap.wrap(value, WIDTH, initial_indent=head, subsequent_indent=hanging, break_on_hyphens=False)
    return [line.replace(TOGETHER, " ") for line in lines] or [head.rstrip()]


def _gauge(used: int, capacity: int, name: str) -> str:
    """A bar of what is used, with the figures before it and the name behind it."""
    share = min(1.0, used / capacity) if capacity else 1.0
    full = round(share * BAR)
    return f"{amount(used):>8} of {amount(capacity):>8} {'█' * full}{'░' * (BAR - full)} {name}".rstrip()


def _rate(bits: int) -> str:
    for size, unit in ((10**9, "Gbit/s"), (10**6, "Mbit/s")):
        if bits >= size:
            return f"{bits / size:g} {unit}"
    return f"{bits} bit/s"


def short_of(result: dict[str, Any]) -> str:
    """What the wish lacks on a host, in the words of the planner; empty when it is met as wished."""
    wished = next((other for other in result["alternatives"] if other["quant"] == result["quant_requested"]), None)
    if result["verdict"] == "accept":
        return wished["short_of"] if wished and result["quant"] == result["quant_requested"] else ""
    return (wished["short_of"] if wished else "") or "; ".join(result["reasons"][:1])


def summary(entries: list[dict[str, Any]], unplanned: list[str]) -> list[str]:
    """The table of the fleet: verdict, quant, fit, expected speed and what is short, a host a row.

    Args:
        entries: plans, each with C(inventory_hostname).
        unplanned: names of hosts without a plan.
    """
    rows = []
    for entry in entries:
        refused = entry["verdict"] == "refuse"
        verdict = f"{SYMBOLS[entry['verdict']]} {entry['verdict']}"
        quant, fit = (NOTHING, NOTHING) if refused else (entry["quant"], entry["fit"])
        expected = NOTHING if refused else speed(entry["expected"]).removesuffix(" tokens/s") or NOTHING
        rows.append([whose(entry), verdict, quant, fit, expected, short_of(entry)])
    rows += [[name, "? none", NOTHING, NOTHING, NOTHING, NO_PLAN] for name in unplanned]
    widths = [min(most, max([len(head), *(len(row[index]) for row in rows)])) for index, (head, most) in enumerate(COLUMNS.items())]
    left = WIDTH - sum(widths) - 2 * len(widths)
    lines = ["  ".join([*(head.ljust(width) for head, width in zip(COLUMNS, widths)), "Short of"]), "─" * WIDTH]
    for row in rows:
        cells = [[_cut(cell, width)] for cell, width in zip(row, widths)]
        cells.append(textwrap.wrap(row[-1], left, max_lines=6, placeholder=" …", break_on_hyphens=False))
        for number in range(max(len(cell) for cell in cells)):
            parts = [cell[number] if number < len(cell) else "" for cell in cells]
            lines.append("  ".join(part.ljust(width) for part, width in zip(parts, [*widths, 0])).rstrip())
    counts = Counter(entry["verdict"] for entry in entries)
    told = [f"{counts[verdict]} {verdict}" for verdict in SYMBOLS if counts[verdict]] + (
        [f"{len(unplanned)} without a plan"] if unplanned else []
    )
    total = len({entry["inventory_hostname"] for entry in entries}) + len(unplanned)
    further = f", {len(entries)} instances" if len(entries) + len(unplanned) > total else ""
    return [*lines, "─" * WIDTH, f"{total} host{'' if total == 1 else 's'}{further}: {', '.join(told) or 'nothing planned'}"]


def paragraph(value: str) -> list[str]:
    """A remark about the whole fleet."""
    return textwrap.wrap(value, WIDTH, break_on_hyphens=False, break_long_words=False)


def _cut(value: str, width: int) -> str:
    return value if len(value) <= width else value[: width - 1] + "…"
