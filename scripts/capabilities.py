# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows what a build of llama-server can be told, against the pinned build.

    python scripts/capabilities.py PATH/llama-server
    python scripts/capabilities.py PATH/llama-server --against tests/unit/fixtures/capabilities/b11669.help.txt
    python scripts/capabilities.py PATH/llama-server --save tests/unit/fixtures/capabilities
    python scripts/capabilities.py ~/.cache/onprem-llamacpp/engines/BUILD-ID.json

Ends with 1 when the build cannot be told something that a plan may need. --save keeps what it printed as a fixture. The record that
the controller's cache has of a build (or a release's build.json) tells the same, where the program itself does not run on this machine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / ".collections"))

from ansible_collections.onprem.llamacpp.plugins.module_utils import _capabilities  # noqa: E402
from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _intents  # noqa: E402

FIXTURES = ROOT / "tests/unit/fixtures/capabilities"
# They come with a build option, or went with the flag that replaced them.
CONDITIONAL = ("RPC_SERVERS", "MMAP", "MLOCK", "DIRECT_IO")
# What an older build is told instead.
INSTEAD = {"LOAD_MODE": "MMAP"}

Options = dict[str, Mapping[str, Any]]


def pinned() -> Path:
    """The help of the build that the role llama_engine takes by default."""
    defaults = yaml.safe_load((ROOT / "roles/llama_engine/defaults/main.yml").read_text())
    return FIXTURES / f"{defaults['llama_engine_tag']}.help.txt"


def by_name(listed: Iterable[Mapping[str, Any]]) -> Options:
    return {name: option for option in listed for name in option["names"]}


def of_help(path: Path) -> Options:
    return by_name(_capabilities.parse_help(path.read_text()))


def shape(option: Mapping[str, Any]) -> str:
    """How an option is given: its variable, its value and what that may be."""
    values = f" of {', '.join(option['values'])}" if option["values"] else ""
    return f"{option['env'] or 'no variable'}, {option['value'] or 'no value'}{values}"


def differences(old: Options, new: Options) -> list[str]:
    """Flags that went, came or changed their shape, one a line."""
    lines = [f"- {name}" for name in sorted(set(old) - set(new))]
    lines += [f"+ {name}  {shape(new[name])}" for name in sorted(set(new) - set(old))]
    return lines + [
        f"~ {name}  {shape(old[name])}  ->  {shape(new[name])}"
        for name in sorted(set(old) & set(new))
        if shape(old[name]) != shape(new[name])
    ]


def lacking(options: Options) -> list[str]:
    """Intents that no flag of the build carries, and whether that is harm."""

    def carried(name: str) -> bool:
        return bool(set(_intents.ALL[name].flags) & set(options))

    return [
        f"{name}: {intent.words} ({', '.join(intent.flags)})" + (f", harmless: {intent.without}" if intent.without else "")
        for name, intent in _intents.ALL.items()
        if name not in CONDITIONAL and not carried(name) and not (name in INSTEAD and carried(INSTEAD[name]))
    ]


def run(program: Path, argument: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(program.resolve()), argument], capture_output=True, text=True, errors="replace", timeout=120, check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("build", type=Path, help="llama-server of the build, or its record as JSON")
    parser.add_argument("--against", type=Path, default=pinned(), help="help text of the build to compare with, the pinned one by default")
    parser.add_argument("--save", type=Path, help="folder to keep what the program prints in")
    wish = parser.parse_args()

    if wish.build.suffix == ".json":
        if wish.save:
            parser.error("--save keeps what a program prints, and a record is none")
        record = json.loads(wish.build.read_text())
        text, options = record["version_text"], by_name(record["capabilities"]["options"])
    else:
        printed = {argument: run(wish.build, f"--{argument}") for argument in ("version", "help", "list-devices")}
        text, options = printed["version"].stdout + printed["version"].stderr, by_name(_capabilities.parse_help(printed["help"].stdout))
    version = _capabilities.parse_version(text)
    if version is None:
        print(f"{wish.build} says no version", file=sys.stderr)
        return 1
    if wish.save:
        for argument, done in printed.items():
            (wish.save / f"b{version['number']}.{argument}.txt").write_text(done.stderr if argument == "version" else done.stdout)
    found = lacking(options)
    print(f"build {version['number']}, {version['version'] or 'no version'}, commit {version['commit']}, {version['compiler']}")
    print(f"\nagainst {wish.against.name}:", *differences(of_help(wish.against), options) or ["no difference"], sep="\n")
    print("\nwhat it cannot be told:", *found or ["nothing that the collection may wish"], sep="\n")
    return int(any("harmless" not in line for line in found))


if __name__ == "__main__":
    sys.exit(main())
