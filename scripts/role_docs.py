# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes each role's README.md from its argument_specs, all entry points with options, and checks that the role's defaults say the same.

A default that is a template may stand in the role's defaults alone: in argument_specs every host evaluates it on every run.

``--check`` writes nothing and fails when a page is not what it would write.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]


def plain(text: str | list[str]) -> str:
    """Semantic markup as plain Markdown."""
    joined = " ".join(text) if isinstance(text, list) else text
    joined = re.sub(r"\bP\(onprem\.llamacpp\.(\w+)#role\)", r"[\1](../\1/README.md)", joined)
    return re.sub(r"\b[COVMIBE]\(((?:[^()]|\([^()]*\))*)\)", r"`\1`", joined).replace("|", "\\|").strip()


def shown(value: Any) -> str:
    """A default as it would be written in YAML."""
    return f"`{value if isinstance(value, str) and value else json.dumps(value)}`".replace("|", "\\|")


def table(options: dict[str, Any], defaults: dict[str, Any]) -> list[str]:
    """The variables of an entry point."""
    lines = ["| Variable | Type | Default | Meaning |", "|---|---|---|---|"]
    for name, option in options.items():
        kind = option["type"] + (f" of {option['elements']}" if "elements" in option else "")
        default = "**required**" if option.get("required") else shown(option.get("default", defaults.get(name)))
        choices = f" One of {', '.join(f'`{choice}`' for choice in option['choices'])}." if "choices" in option else ""
        lines.append(f"| `{name}` | {kind} | {default} | {plain(option['description'])}{choices} |")
    return lines


def sentences(description: str | list[str]) -> list[str]:
    """The paragraphs of a description."""
    return [plain(text) for text in ([description] if isinstance(description, str) else description)]


def page(role: str, spec: dict[str, Any], defaults: dict[str, Any]) -> str:
    """The README of a role: what it does, and each further entry point that reads variables of its own."""
    main = spec["main"]
    lines = [f"# onprem.llamacpp.{role}", "", plain(main["short_description"]) + ".", ""]
    lines += [*sentences(main["description"]), "", *table(main["options"], defaults)]
    for entry, said in spec.items():
        if entry != "main" and said["options"]:
            lines += ["", f"## `tasks_from: {entry}`", "", plain(said["short_description"]) + "."]
            lines += [*sentences(said.get("description", [])), "", *table(said["options"], defaults)]
    lines += ["", "Generated from `meta/argument_specs.yml`; `make docs` writes it anew.", ""]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail on a difference")
    check = parser.parse_args().check
    problems = []
    for path in sorted(ROOT.glob("roles/*/meta/argument_specs.yml")):
        folder = path.parents[1]
        spec = yaml.safe_load(path.read_text())["argument_specs"]
        defaults = yaml.safe_load((folder / "defaults/main.yml").read_text()) or {}
        stated = {name: option["default"] for name, option in spec["main"]["options"].items() if "default" in option}
        for name in sorted(defaults.keys() | stated.keys()):
            if name not in stated and name in spec["main"]["options"] and "{{" in str(defaults[name]):
                continue
            if name not in defaults or name not in stated or defaults[name] != stated[name]:
                problems.append(f"{folder.name}: {name} is {defaults.get(name)!r} in defaults, {stated.get(name)!r} in argument_specs")
        for entry, said in spec.items():
            other = {name for name, option in said["options"].items() if option.get("default") != stated.get(name, option.get("default"))}
            problems += [f"{folder.name}: {name} has another default for {entry} than for main" for name in sorted(other)]
        target = folder / "README.md"
        text = page(folder.name, spec, defaults)
        if not target.exists() or target.read_text() != text:
            if check:
                problems.append(f"{target.relative_to(ROOT)} is out of date: run make docs")
            else:
                target.write_text(text)
                print(f"wrote {target.relative_to(ROOT)}")
    for problem in problems:
        print(problem, file=sys.stderr)
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
