# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules that hold for the collection as a whole."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import jinja2.meta
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
SHORT = {"model", "quant", "quant_policy", "use_case"}
# What holds a bare expression rather than text with expressions in it.
EXPRESSIONS = {"when", "that", "until", "changed_when", "failed_when"}


def strings(value: Any, bare: bool = False) -> Iterator[str]:
    """Every template in a YAML document, bare expressions put in braces."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from strings(inner, key in EXPRESSIONS)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner, bare)
    elif isinstance(value, str):
        yield "{{ " + value + " }}" if bare and "{{" not in value else value


class Anything(dict):
    """Stands for Ansible's filters and tests, whose names only matter to the parser."""

    def __contains__(self, _key: object) -> bool:
        return True

    def get(self, _key: Any, _default: Any = None) -> Any:
        return str

    __getitem__ = get


def names(text: str) -> set[str]:
    """The variables that a template reads from outside."""
    environment = jinja2.Environment()
    environment.filters = environment.tests = Anything()
    return jinja2.meta.find_undeclared_variables(environment.parse(text))


def role_files() -> list[Path]:
    found = [path for pattern in ("tasks", "vars", "defaults", "handlers", "meta") for path in ROOT.glob(f"roles/*/{pattern}/**/*.yml")]
    return sorted(found + list(ROOT.glob("roles/*/templates/*")))


@pytest.mark.parametrize("path", role_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_role_reads_a_short_variable(path: Path) -> None:
    text = path.read_text()
    templates = [text] if path.parent.name == "templates" else list(strings(yaml.safe_load(text)))
    read: set[str] = set().union(*(names(template) for template in templates))
    assert not read & SHORT


def test_variables_that_roles_share_are_in_the_readme() -> None:
    prefixes = tuple(f"{path.name}_" for path in ROOT.glob("roles/*"))
    documents = [path.read_text() if path.parent.name == "templates" else yaml.safe_load(path.read_text()) for path in role_files()]
    read: set[str] = set().union(*(names(template) for document in documents for template in strings(document)))
    shared = {name for name in read if name.startswith("llama_") and not name.startswith(prefixes)}
    # Written by llama_plan_record, and set by the playbooks for each instance.
    nobody_sets = {"llama_hardware_recorded", "llama_instance"}
    assert {name for name in shared if f"| `{name}` |" not in (ROOT / "README.md").read_text()} == nobody_sets


def test_the_rule_sees_what_it_forbids() -> None:
    document = {"tasks": [{"when": "quant == 'x'"}, {"msg": "{{ model | default('y') }}"}, {"msg": "model"}]}
    assert set().union(*(names(template) for template in strings(document))) == {"quant", "model"}


@pytest.mark.parametrize("playbook", ["site.yml", "plan.yml"])
def test_playbooks_read_all_four(playbook: str) -> None:
    document = yaml.safe_load((ROOT / "playbooks" / playbook).read_text())
    read: set[str] = set().union(*(names(template) for template in strings(document)))
    assert read >= SHORT


@pytest.mark.parametrize("path", sorted(ROOT.glob("plugins/**/*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_plugins_state_their_licence(path: Path) -> None:
    head = path.read_text()[:400]
    assert "GNU General Public License v3.0+" in head
    assert "SPDX-License-Identifier: GPL-3.0-or-later" in head


@pytest.mark.parametrize("path", sorted(ROOT.glob("roles/*/meta/argument_specs.yml")), ids=lambda path: path.parents[1].name)
def test_every_variable_of_every_entry_point_is_in_the_page_of_its_role(path: Path) -> None:
    page = (path.parents[1] / "README.md").read_text()
    specs = yaml.safe_load(path.read_text())["argument_specs"]
    assert [name for spec in specs.values() for name in spec["options"] if f"| `{name}` |" not in page] == []


@pytest.mark.parametrize("path", sorted(ROOT.glob("roles/*/meta/argument_specs.yml")), ids=lambda path: path.parents[1].name)
def test_every_entry_point_that_is_declared_has_tasks(path: Path) -> None:
    entries = yaml.safe_load(path.read_text())["argument_specs"]
    assert [entry for entry in entries if not (path.parents[1] / f"tasks/{entry}.yml").is_file()] == []


@pytest.mark.parametrize(
    ("folder", "pattern"),
    [
        pytest.param("plugins/modules", r"(?<![\w/])[a-z]+(?:_[a-z]+)+", id="modules"),
        pytest.param("plugins/module_utils", r"(?<!\S)_\w+", id="module_utils"),
        pytest.param("plugins/plugin_utils", r"(?<!\S)_\w+", id="plugin_utils"),
    ],
)
def test_the_layout_in_the_architecture_names_every_file(folder: str, pattern: str) -> None:
    lines = (ROOT / "docs/architecture.md").read_text().split("## Layout")[1].splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith(f"{folder}/"))
    section = [lines[first].removeprefix(f"{folder}/"), *itertools.takewhile(lambda line: line.startswith(" "), lines[first + 1 :])]
    assert sorted(re.findall(pattern, "\n".join(section))) == sorted(
        path.stem for path in (ROOT / folder).glob("[!_]*.py" if "modules" in folder else "_*.py")
    )
