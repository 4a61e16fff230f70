# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sets what is wished of the host when it starts, and puts back what was there before when it stops.

``start`` writes down every value before it changes it; ``stop`` restores those that nobody else has changed since; ``check``
prints what cannot be set on this host. A setting that cannot be set is told and skipped, because a server serves without it.
"""

from __future__ import annotations

import glob
import json
import os
import re
import subprocess
import sys
from typing import Any, NamedTuple, Optional

WISH = "/etc/llamacpp/tuning.json"
BEFORE = "/run/llamacpp-tuning/before.json"


class Place(NamedTuple):
    """Where one value is: a file of the kernel, or the power limit of a device by its UUID."""

    path: str = ""
    device: str = ""

    @property
    def name(self) -> str:
        return self.path or f"power limit of {self.device}"

    def read(self) -> str:
        """The value now.

        :raises OSError: it cannot be read.
        """
        if self.device:
            limits = dict(
                line.split(", ") for line in nvidia("--query-gpu=uuid,power.limit", "--format=csv,noheader,nounits") if ", " in line
            )
            return limits.get(self.device, "")
        with open(self.path, encoding="utf-8") as handle:
            text = handle.read().strip()
        # Of several choices the kernel shows the one in use in brackets.
        chosen = re.search(r"\[(\S+)\]", text)
        return chosen.group(1) if chosen else text

    def write(self, value: str) -> None:
        """Set it.

        :raises OSError: it cannot be set.
        """
        if self.device:
            nvidia("-i", self.device, f"--power-limit={float(value):.0f}")
            return
        with open(self.path, "w", encoding="utf-8") as handle:
            handle.write(value)


def nvidia(*arguments: str) -> list[str]:
    """Lines that ``nvidia-smi`` prints.

    :raises OSError: it does not succeed.
    """
    try:
        done = subprocess.run(["nvidia-smi", *arguments], capture_output=True, text=True, timeout=60, check=False)
    except subprocess.SubprocessError as error:
        raise OSError(str(error)) from None
    if done.returncode != 0:
        raise OSError((done.stdout or done.stderr or "nvidia-smi failed").strip().splitlines()[0])
    return done.stdout.splitlines()


def places(setting: dict[str, Any], root: str) -> list[Place]:
    """Where a setting takes effect on this host; empty where it cannot."""
    name = setting["name"]
    if name == "governor":
        return [Place(path) for path in sorted(glob.glob(f"{root}/sys/devices/system/cpu/cpufreq/policy*/scaling_governor"))]
    if name == "transparent_hugepages":
        path = f"{root}/sys/kernel/mm/transparent_hugepage/enabled"
        return [Place(path)] if os.path.exists(path) else []
    if name == "readahead":
        try:
            device = os.stat(setting["path"]).st_dev
        except OSError:
            return []
        path = f"{root}/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb"
        return [Place(path)] if os.path.exists(path) else []
    try:
        return [Place(device=line.strip()) for line in nvidia("--query-gpu=uuid", "--format=csv,noheader")]
    except OSError:
        return []


def tries(setting: dict[str, Any], root: str) -> list[Optional[Place]]:
    """The places of a setting, or nothing once, so that its lack is told."""
    return [*places(setting, root)] or [None]


def problem(setting: dict[str, Any], place: Optional[Place]) -> str:
    """Why a setting cannot be set, in a sentence; empty when it can."""
    if place is None:
        return f"{setting['name']} is not set: this host has nothing that it is set by"
    if place.path and not os.access(place.path, os.W_OK):
        return f"{setting['name']} is not set: {place.path} cannot be written, as in a container"
    return ""


def load(path: str) -> Any:
    try:
        with open(path, encoding="utf-8") as handle:
            return json.load(handle)
    except (OSError, ValueError):
        return []


def start(wish: list[dict[str, Any]], before_path: str, root: str) -> None:
    """Set what is wished, writing down first what was there."""
    before: list[dict[str, str]] = load(before_path)
    known = {entry["path"] + entry["device"] for entry in before}
    for setting in wish:
        for place in tries(setting, root):
            said = problem(setting, place)
            if place is None or said:
                print(said)
                continue
            try:
                if place.path + place.device not in known:
                    before.append({"path": place.path, "device": place.device, "value": place.read(), "set": str(setting["value"])})
                    with open(before_path, "w", encoding="utf-8") as handle:
                        json.dump(before, handle)
                place.write(str(setting["value"]))
            except OSError as error:
                print(f"{setting['name']} is not set: {place.name}: {error.strerror or error}")
            else:
                print(f"{place.name} is {setting['value']}")


def stop(before_path: str) -> None:
    """Put back what was there, where it is still what ``start`` has set."""
    for entry in reversed(load(before_path)):
        place = Place(entry["path"], entry["device"])
        try:
            now = place.read()
            if same(now, entry["set"]):
                place.write(entry["value"])
                print(f"{place.name} is {entry['value']} again")
            elif now != entry["value"]:
                print(f"{place.name} is left at {now}, which somebody else has set")
        except OSError as error:
            print(f"{place.name} could not be put back: {error.strerror or error}")
    if os.path.exists(before_path):
        os.unlink(before_path)


def same(one: str, other: str) -> bool:
    """Whether two values mean the same; devices tell watts with decimals."""
    try:
        return float(one) == float(other)
    except ValueError:
        return one == other


def check(wish: list[dict[str, Any]], root: str) -> list[str]:
    """What of the wish cannot be set on this host."""
    said = [problem(setting, place) for setting in wish for place in tries(setting, root)]
    return list(dict.fromkeys(line for line in said if line))


def main(argv: list[str], wish_path: str = WISH, before_path: str = BEFORE, root: str = "") -> int:
    command = argv[0] if argv else ""
    if command == "start":
        start(load(wish_path), before_path, root)
    elif command == "stop":
        stop(before_path)
    elif command == "check":
        print(json.dumps(check(load(wish_path), root)))
    else:
        print("usage: llamacpp-tuning start|stop|check", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
