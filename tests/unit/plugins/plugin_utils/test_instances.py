# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What llama_instances may say, which ports and devices that comes to, and that the roles agree with the table of keys."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _instances

ROOT = Path(__file__).resolve().parents[4]
SMALL = {"name": "small", "port": 8081}


def test_what_is_not_said_has_the_roles_default() -> None:
    defaults: dict[str, Any] = {}
    for role in ("llama_plan", "llama_server"):
        defaults.update(yaml.safe_load((ROOT / "roles" / role / "defaults/main.yml").read_text()))
    for name, key in _instances.KEYS.items():
        if name not in (*_instances.REQUIRED, "revision"):
            assert defaults[key.variable] == key.default, name
    assert _instances.read([SMALL])[0]["ctx_size"] == 0


def test_the_plan_takes_the_servers_variables_for_what_they_are() -> None:
    defaults = yaml.safe_load((ROOT / "roles/llama_server/defaults/main.yml").read_text())
    text = yaml.safe_load((ROOT / "roles/llama_plan/vars/main.yml").read_text())["_llama_plan_serving"]
    assumed = {name: yaml.safe_load(value) for name, value in re.findall(r"(llama_server_\w+) \| default\(([^)]*)\)", text)}
    assert len(assumed) == 6
    assert assumed == {name: defaults[name] for name in assumed}


def test_site_tells_the_roles_every_variable_that_they_read_of_an_instance() -> None:
    tasks = yaml.safe_load((ROOT / "playbooks/site.yml").read_text())[0]["tasks"]
    told = [task["vars"] for task in tasks if "instance" in str(task.get("loop_control"))]
    assert len(told) == 3
    for variables in told:
        assert sorted(variables) == _instances.lasting()
        keys = {variable: name for name, key in _instances.KEYS.items() for variable in (key.variable, _instances.ALSO.get(name))}
        assert variables == {variable: f"{{{{ llama_instance.{keys[variable]} }}}}" for variable in variables}


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        pytest.param({"name": "x"}, "llama_instances is {'name': 'x'}, expected a list of mappings", id="no list"),
        pytest.param(["x"], "llama_instances[0] is 'x', expected a mapping", id="no mapping"),
        pytest.param([{"port": 8081}], "llama_instances: number 1 has no name", id="no name"),
        pytest.param([{"name": "small"}], "llama_instances: small has no port", id="no port"),
        pytest.param([{**SMALL, "name": "main"}], "llama_instances has main, which is what the other variables describe", id="main"),
        pytest.param([{**SMALL, "name": "Small_1"}], "'Small_1' is not a valid instance name", id="a name that no unit can have"),
        pytest.param([SMALL, {**SMALL, "port": 8082}], "llama_instances has small twice", id="twice"),
        pytest.param([{**SMALL, "quants": "x"}], "small has quants, which is not known: did you mean quant?", id="a key that is near"),
        pytest.param([{**SMALL, "xyz": 1}], "small has xyz, which is not known: it may have name, port, model", id="another key"),
        pytest.param([{**SMALL, "port": "8081"}], "port of small is '8081', expected a whole number", id="a port in quotes"),
        pytest.param([{**SMALL, "devices": "CUDA0"}], "devices of small is 'CUDA0', expected a list", id="devices that are no list"),
        pytest.param([{**SMALL, "require_gpu": 1}], "require_gpu of small is 1, expected true or false", id="a number for a choice"),
        pytest.param([{"name": "a"}, {"port": 1}], "a has no port; llama_instances: number 2 has no name", id="all at once"),
    ],
)
def test_a_mistake_is_told_in_a_sentence(declared: Any, words: str) -> None:
    with pytest.raises(_instances.InstancesError) as error:
        _instances.read(declared)
    assert words in str(error.value)


def test_what_is_given_for_the_whole_run_would_hold_for_every_instance() -> None:
    assert _instances.read([SMALL], extra=["quant", "llama_plan_ctx_size"])
    assert _instances.read([], extra=["llama_server_port"]) == []
    with pytest.raises(_instances.InstancesError, match="llama_server_port is given with -e"):
        _instances.read([SMALL], extra=["llama_server_port"])


def test_an_instance_has_its_own_wish_and_the_hosts_settings() -> None:
    main = {"model": "big", "quant": "Q9", "ctx_size": 9, "threads": 4, "placement": {"n_cpu_moe": 3}, "problems": ["no"], "ram_reserve": 7}
    (small,) = _instances.read([{**SMALL, "model": "tiny", "placement": {"n_gpu_layers": "all"}}])
    told = _instances.settings(small, main)
    assert (told["instance"], told["port"], told["model"], told["quant"]) == ("small", 8081, "tiny", "UD-Q2_K_XL")
    assert (told["ctx_size"], told["threads"], told["problems"], told["ram_reserve"]) == (0, None, [], 7)
    assert told["placement"]["n_gpu_layers"] > 0
    (bad,) = _instances.read([{**SMALL, "parallel": 0, "cache_type_k": "q9"}])
    with pytest.raises(_instances.InstancesError, match=r"llama_instances: small: parallel is 0, expected .*; cache_type_k is 'q9'"):
        _instances.settings(bad, main)


FRONT = {"fronted": True, "metrics": True, "overlap": "auto"}


@pytest.mark.parametrize(
    ("serving", "instances", "words"),
    [
        pytest.param({}, [{}], "", id="apart"),
        pytest.param({}, [{"port": 8080}], "port: 8080 is the port of b and the port of main too", id="main's port"),
        pytest.param({}, [{"port": 18080, "front_port": 8443}], "", id="without a front its ports are free"),
        pytest.param({"fronted": True}, [{}], "port: 8443 is the front_port of b and the front_port of main too", id="fronts"),
        pytest.param({"fronted": True}, [{"front_port": 8444}], "", id="fronts apart"),
        pytest.param(FRONT, [{"front_port": 8444}], "9464 is the front_metrics_port of b and", id="metrics"),
        pytest.param(FRONT, [{"front_port": 8444, "front_metrics_port": 9465}], "", id="metrics apart"),
        pytest.param(
            {"fronted": True}, [{"port": 18080, "front_port": 8444}], "18080 is the port of b and the spare_port of main", id="spare"
        ),
        pytest.param({"fronted": True, "overlap": "never"}, [{"port": 18080, "front_port": 8444}], "", id="no spare port is used"),
        pytest.param(
            {"fronted": True}, [{"front_port": 8444, "spare_port": 8081}], "8081 is the spare_port of b and its port too", id="own"
        ),
        pytest.param({}, [{}, {"port": 8081}], "8081 is the port of c and the port of b too", id="each other's"),
        pytest.param({"fronted": True}, [{"front_port": 99999}], "front_port of b is 99999, expected a port", id="no port"),
    ],
)
def test_ports(serving: dict[str, Any], instances: list[dict[str, Any]], words: str) -> None:
    declared = _instances.read([{**SMALL, **given, "name": name} for name, given in zip("bc", instances)])
    main = {"port": 8080, "spare_port": 0, "front_port": 8443, "front_metrics_port": 9464}
    taken = {"main": _instances.ports(main, serving), **{each["name"]: _instances.ports(each, serving) for each in declared}}
    told = [said for own in _instances.clashes(taken).values() for said in own]
    assert (words in " ".join(told)) if words else not told


CARDS = [
    {"uuid": "GPU-a", "engine_name": "CUDA0", "name": "T4", "pci_address": "0000:3b:00.0"},
    {"uuid": "", "engine_name": "CUDA1", "name": "T4", "pci_address": "0000:5e:00.0"},
]


@pytest.mark.parametrize(
    ("wishes", "shares", "words"),
    [
        pytest.param({"main": [], "b": []}, {"main": None, "b": None}, "", id="nobody names any"),
        pytest.param({"main": [], "b": ["CUDA1"]}, {"main": ["GPU-a"], "b": ["0000:5e:00.0"]}, "", id="the rest is main's"),
        pytest.param({"main": ["gpu-A"], "b": [1]}, {"main": ["GPU-a"], "b": ["0000:5e:00.0"]}, "", id="by UUID and number"),
        pytest.param({"main": [0, "CUDA1"], "b": []}, {"main": ["GPU-a", "0000:5e:00.0"], "b": []}, "", id="nothing is left"),
        pytest.param({"main": [0, "GPU-a"], "b": []}, {"main": ["GPU-a"], "b": ["0000:5e:00.0"]}, "", id="one by two names"),
        pytest.param({"main": [0], "b": ["0000:3b:00.0"]}, {"main": ["GPU-a"], "b": []}, "which is for main alone", id="wanted twice"),
        pytest.param(
            {"main": [], "b": ["CUDA7"]},
            {"main": None, "b": []},
            "b is to use CUDA7, which this host does not have: it has CUDA0",
            id="none",
        ),
    ],
)
def test_devices_are_shared_out(wishes: dict[str, list[Any]], shares: dict[str, Any], words: str) -> None:
    found = _instances.share_out(CARDS, wishes)
    assert {name: share.uuids for name, share in found.items()} == shares
    told = " ".join(said for share in found.values() for said in share.problems)
    assert (words in told) if words else not told
