# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbook plan as a newcomer runs it: on the example inventory, without a network and without a single host."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _recorded

ROOT = Path(__file__).resolve().parents[3]
CLOSED = "http://127.0.0.1:9"
# A host whose facts are recorded; whoever connects to it all the same gets nowhere, and says so.
NOWHERE = {"ansible_host": "127.0.0.1", "ansible_port": 9, "ansible_connection": "ssh"}
FACTS = {
    **{"schema_version": 2, "collected_at": "2026-11-02T06:00:00Z", "hostname": "h", "memory": {"total": 540 * 10**9}, "devices": []},
    **{"disks": [{"path": "/var/lib/llamacpp/models", "free": 2 * 10**12}], "warnings": ["{{ 6 * 7 }}"]},
}


@pytest.fixture
def play(tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """Runs a playbook of the collection with extra variables; exit status and all of its output."""

    def run(*arguments: str, inventory: str = "inventories/example", playbook: str = "playbooks/plan.yml", **extra: Any) -> tuple[int, str]:
        done = subprocess.run(
            ["ansible-playbook", playbook, "-i", inventory, "-e", json.dumps({"llama_plan_endpoint": CLOSED, **extra}), *arguments],
            cwd=ROOT,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_LOCAL_TEMP": str(tmp_path / "tmp"), "COLUMNS": "100"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        return done.returncode, done.stdout

    return run


@pytest.fixture
def fleet(tmp_path: Path) -> Callable[..., str]:
    """Writes an inventory of unreachable hosts with the variables given."""

    def write(**hosts: dict[str, Any]) -> str:
        target = tmp_path / "fleet.yml"
        document = {"gpu_hosts": {"hosts": {name: {**NOWHERE, **values} for name, values in hosts.items()}}}
        target.write_text(json.dumps(document))
        return str(target)

    return write


def test_the_example_shows_one_of_each_and_writes_what_it_shows(play: Any, tmp_path: Path) -> None:
    status, told = play(llama_plan_output=str(tmp_path / "out"))
    assert status == 2
    assert "8 hosts: 6 accept, 1 downgrade, 1 refuse" in told
    assert "kimi-k2-instruct UD-Q2_K_XL is refused on t4-64: memory: UD-Q2_K_XL needs 96.0 GB" in " ".join(told.split())
    assert told.count(f"{CLOSED} cannot be reached") == 1
    assert "Traceback" not in told
    document = json.loads((tmp_path / "out/plan.json").read_text())
    jsonschema.validate(document, json.loads((ROOT / "docs/plan.schema.json").read_text()), cls=jsonschema.Draft202012Validator)
    assert len(document["plans"]) == 8
    assert "Plan of the fleet" in (tmp_path / "out/plan.html").read_text()


def test_a_wish_too_large_for_the_t4_hosts_is_refused_with_what_would_fit(play: Any) -> None:
    status, told = play("--limit", "t4-*", quant="UD-Q4_K_XL", quant_policy="refuse")
    assert status == 2
    for host, fits in (("t4-64", "UD-IQ1_S"), ("t4-96", "UD-Q2_K_XL"), ("t4-no-driver", "UD-IQ1_S")):
        sentence = f"kimi-k2-instruct UD-Q4_K_XL is refused on {host}: memory: UD-Q4_K_XL needs"
        assert sentence in " ".join(told.split())
        assert f"{fits} would fit" in " ".join(told.split())


HOSTS = ("t4-64", "t4-96", "t4-no-driver", "a10-192", "a10g-256", "a10-occupied", "a100x2-512", "cpu-512")


@pytest.mark.parametrize(
    ("wish", "quants"),
    [
        # The guide: with a T4 and 96 GB Q2_K_XL, with less TQ1_0; with more of a card Q2_K_XL, or what quality asks for.
        pytest.param({"quant": "auto"}, "TQ1_0 Q2_K_XL TQ1_0 Q2_K_XL Q2_K_XL TQ1_0 Q2_K_XL Q2_K_XL", id="tree"),
        pytest.param({"use_case": "development"}, "TQ1_0 TQ1_0 TQ1_0 TQ1_0 TQ1_0 TQ1_0 TQ1_0 TQ1_0", id="development"),
        pytest.param({"use_case": "production"}, "IQ1_S Q2_K_XL IQ1_S Q4_K_XL Q4_K_XL TQ1_0 Q4_K_XL Q2_K_XL", id="production"),
        pytest.param({"use_case": "edge"}, "IQ1_S IQ1_S IQ1_S IQ1_S IQ1_S TQ1_0 IQ1_S IQ1_S", id="edge"),
        pytest.param({"use_case": "research"}, "IQ1_S Q2_K_XL IQ1_S Q4_K_XL Q5_K_XL TQ1_0 Q5_K_XL Q3_K_XL", id="research"),
        pytest.param({"use_case": "quality"}, "IQ1_S Q2_K_XL IQ1_S Q4_K_XL Q4_K_XL TQ1_0 Q4_K_XL Q2_K_XL", id="quality"),
    ],
)
def test_hosts_of_every_kind_get_what_the_guide_says(play: Any, tmp_path: Path, wish: dict[str, str], quants: str) -> None:
    _status, told = play(llama_plan_output=str(tmp_path), **wish)
    plans = {plan["inventory_hostname"]: plan for plan in json.loads((tmp_path / "plan.json").read_text())["plans"]}
    assert [plans[name]["quant"] for name in HOSTS] == [f"UD-{quant}" for quant in quants.split()], told
    assert {plan["verdict"] for plan in plans.values()} == {"accept"}


REGIMES = {
    "t4-64": ("none", True),
    "t4-96": ("streaming", True),
    "t4-no-driver": ("streaming", True),
    "a10-192": ("streaming", True),
    "a10g-256": ("streaming", True),
    "a10-occupied": ("streaming", False),
    "a100x2-512": ("resident", True),
    "cpu-512": ("resident", False),
}


def test_hosts_of_every_kind_run_the_default_quant_in_their_regimes(play: Any, tmp_path: Path) -> None:
    play(llama_plan_output=str(tmp_path))
    plans = {plan["inventory_hostname"]: plan for plan in json.loads((tmp_path / "plan.json").read_text())["plans"]}
    assert {name: (plan["fit"], plan["placement"]["n_gpu_layers"] > 0) for name, plan in plans.items()} == REGIMES


@pytest.mark.parametrize(
    ("host", "extra", "sentence"),
    [
        pytest.param({"llama_plan_ram_reserve": "lots"}, {}, "argument 'llama_plan_ram_reserve' is of type str", id="text"),
        pytest.param({"llama_plan_ctx_size": -5}, {}, "llama_plan_ctx_size is -5, expected a whole number from 0", id="negative"),
        pytest.param({"llama_plan_link_speed": 0}, {}, "llama_plan_link_speed is 0, expected a whole number from 1", id="zero"),
        pytest.param(
            {"llama_hardware_recorded": {**FACTS, "schema_version": 1}},
            {},
            "the recorded facts of gpu-1 have schema_version 1, 2 is wanted: record them again",
            id="older facts",
        ),
        pytest.param({"llama_hardware_recorded": None}, {}, "gpu-1 has no recorded facts", id="no facts"),
        pytest.param({"llama_plan_cache_type_k": "q8"}, {}, "value of llama_plan_cache_type_k must be one of: f32, f16", id="cache type"),
        pytest.param(
            {"llama_plan_placement": {"ngl": 99}},
            {},
            "llama_plan_placement has ngl, which is not known: it may have n_gpu_layers",
            id="order",
        ),
    ],
)
def test_bad_input_is_told_in_a_sentence(play: Any, fleet: Any, host: dict[str, Any], extra: dict[str, Any], sentence: str) -> None:
    inventory = fleet(**{"gpu-1": {"llama_plan_use_recorded": True, "llama_hardware_recorded": FACTS, **host}})
    status, told = play(inventory=inventory, **extra)
    assert status == 2
    assert sentence in " ".join(told.replace("''", "'").split())
    assert "Traceback" not in told


def test_a_bad_host_does_not_keep_the_others_from_their_plans(play: Any, fleet: Any) -> None:
    hosts = {name: {"llama_plan_use_recorded": True, "llama_hardware_recorded": FACTS} for name in ("gpu-1", "gpu-2")}
    hosts["gpu-1"]["llama_plan_ctx_size"] = -5
    status, told = play(inventory=fleet(**hosts))
    assert status == 2
    assert "2 hosts: 1 accept, 1 without a plan" in told


def test_odd_recorded_facts_do_not_keep_the_others_from_their_plans(play: Any, fleet: Any) -> None:
    hosts = {name: {"llama_plan_use_recorded": True, "llama_hardware_recorded": FACTS} for name in ("gpu-1", "gpu-2")}
    hosts["gpu-1"]["llama_hardware_recorded"] = {**FACTS, "devices": [{"name": "T4"}]}
    status, told = play(inventory=fleet(**hosts))
    assert status == 2
    assert "2 hosts: 1 accept, 1 without a plan" in told
    assert "the recorded facts of gpu-1 cannot be planned with: devices[0].uuid is missing" in " ".join(told.split())
    assert "Traceback" not in told


def test_what_is_written_on_the_controller_is_no_change(play: Any, fleet: Any, tmp_path: Path) -> None:
    inventory = fleet(**{"gpu-1": {"llama_plan_use_recorded": True, "llama_hardware_recorded": FACTS}})
    for _run in range(2):
        status, told = play(inventory=inventory, llama_plan_output=str(tmp_path / "out"), llama_plan_record=str(tmp_path / "rec"))
        assert status == 0, told
        assert "changed=0" in told
        assert (tmp_path / "out/plan.json").exists()
        assert (tmp_path / "rec/gpu-1/llama_hardware.yml").exists()


def test_facts_are_recorded_and_planned_with_later(play: Any, fleet: Any, tmp_path: Path) -> None:
    inventory = Path(fleet(**{"gpu-1": {"llama_plan_use_recorded": True}}))
    first, later = tmp_path / "first", tmp_path / "later"
    for folder in (first, later):
        folder.mkdir()
        shutil.copy(inventory, folder)
    # Ansible finds host_vars beside an inventory.
    (first / "host_vars").mkdir()
    (first / "host_vars/gpu-1.yml").write_text(_recorded.document(FACTS))
    status, told = play(inventory=str(first / inventory.name), llama_plan_record=str(later / "host_vars"))
    assert status == 0, told
    assert "!unsafe '{{ 6 * 7 }}'" in (later / "host_vars/gpu-1/llama_hardware.yml").read_text()
    status, told = play(inventory=str(later / inventory.name), llama_plan_output=str(tmp_path / "out"))
    assert status == 0, told
    plan = json.loads((tmp_path / "out/plan.json").read_text())["plans"][0]
    assert plan["hardware"]["warnings"] == ["{{ 6 * 7 }}"]
    assert (plan["recorded"], plan["collected_at"]) == (True, FACTS["collected_at"])


def test_folders_are_meant_from_where_the_command_is_given(fleet: Any, tmp_path: Path) -> None:
    inventory = fleet(**{"gpu-1": {"llama_plan_use_recorded": True, "llama_hardware_recorded": FACTS}})
    folders = ["-e", "llama_plan_output=out", "-e", "llama_plan_record=kept"]
    subprocess.run(
        ["ansible-playbook", "onprem.llamacpp.plan", "-i", inventory, "-e", f"llama_plan_endpoint={CLOSED}", *folders],
        cwd=tmp_path,
        env={**os.environ, "PWD": str(tmp_path), "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections")},
        stdout=subprocess.DEVNULL,
        timeout=120,
        check=True,
    )
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["plan.html", "plan.json"]
    assert (tmp_path / "kept/gpu-1/llama_hardware.yml").exists()


def test_nothing_is_written_in_check_mode(play: Any, fleet: Any, tmp_path: Path) -> None:
    inventory = fleet(**{"gpu-1": {"llama_plan_use_recorded": True, "llama_hardware_recorded": FACTS}})
    status, told = play("--check", inventory=inventory, llama_plan_output=str(tmp_path / "out"), llama_plan_record=str(tmp_path / "rec"))
    assert status == 0, told
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "rec").exists()


def test_what_is_deployed_is_never_planned_on_recorded_facts(play: Any, fleet: Any) -> None:
    inventory = fleet(**{"gpu-1": {"llama_plan_use_recorded": True, "llama_hardware_recorded": FACTS}})
    status, told = play(inventory=inventory, playbook="playbooks/site.yml", llama_plan_use_recorded=True)
    assert status == 4
    assert "UNREACHABLE" in told


def test_hosts_see_their_own_plan_after_the_role(play: Any, fleet: Any, tmp_path: Path) -> None:
    hosts = {
        "gpu-1": {"llama_plan_use_recorded": True, "llama_hardware_recorded": FACTS},
        "gpu-2": {"llama_plan_use_recorded": True, "llama_hardware_recorded": {**FACTS, "memory": {"total": 101 * 10**9}}},
    }
    playbook = yaml.safe_load((ROOT / "playbooks/plan.yml").read_text())
    show = {
        "ansible.builtin.debug": {
            "msg": "{{ inventory_hostname }}={{ llama_plan_result.fit }} other={{ hostvars['gpu-1'].llama_plan_result.fit }}"
        }
    }
    playbook[0]["tasks"] = [show]
    target = tmp_path / "plan.yml"
    target.write_text(yaml.safe_dump(playbook))
    status, told = play(inventory=fleet(**hosts), playbook=str(target))
    assert status == 0, told
    assert "gpu-1=resident other=resident" in told
    assert "gpu-2=streaming other=resident" in told


def test_problems_that_are_made_of_the_facts_are_seen_once_there_are_facts(play: Any) -> None:
    problem = "{{ ['%s: none for ' ~ ansible_facts.llama_hardware.architecture] if ansible_facts.llama_hardware is defined else [] }}"
    wish = {"llama_plan_problems": problem % "engine", "llama_plan_cuda_problems": problem % "compiler", "llama_plan_backend": "cuda"}
    status, told = play(inventory="inventories/local", **wish)
    assert status == 2
    assert f"engine: none for {os.uname().machine}" in told
    assert f"toolkit: compiler: none for {os.uname().machine}" in told


def test_another_directory_for_models_is_what_facts_and_plan_look_at(play: Any, tmp_path: Path) -> None:
    """On this machine itself: a directory on a filesystem of its own that does not exist yet."""
    host = {
        "ansible_connection": "local",
        "ansible_python_interpreter": "{{ ansible_playbook_python }}",
        "llama_model_root": "/dev/shm/onprem-test/models",
        "llama_plan_backend": "cpu",
    }
    target = tmp_path / "here.yml"
    target.write_text(json.dumps({"gpu_hosts": {"hosts": {"here": host}}}))
    _status, told = play(inventory=str(target), llama_plan_output=str(tmp_path / "out"), llama_model_buffer_bytes=7 * 10**9)
    assert (tmp_path / "out/plan.json").exists(), told
    (plan,) = json.loads((tmp_path / "out/plan.json").read_text())["plans"]
    free = os.statvfs("/dev/shm")
    assert (plan["disk"]["path"], plan["disk"]["buffer"]) == ("/dev/shm/onprem-test/models", 7 * 10**9), told
    assert abs(plan["disk"]["free"] - free.f_bavail * free.f_frsize) < 10**9
    assert not os.path.exists("/dev/shm/onprem-test")


@pytest.mark.parametrize("allowed", [True, False], ids=["in place", "beside"])
def test_a_disk_that_cannot_hold_both(play: Any, fleet: Any, tmp_path: Path, allowed: bool) -> None:
    identity = {"repo_id": "unsloth/Kimi-K2-Instruct-GGUF", "commit": "a" * 40, "quant": "UD-Q2_K_XL"}
    model = {**identity, "path": "/var/lib/llamacpp/models/x", "bytes": 381 * 10**9, "complete": True}
    model.update(manifest={"files": []}, used_by=[{"instance": "main", "link": "current"}])
    facts = {
        **FACTS,
        "disks": [{"path": "/var/lib/llamacpp/models", "free": 300 * 10**9}],
        "models": [model],
        "instances": [],
        "warnings": [],
    }
    inventory = fleet(h={"llama_hardware_recorded": facts, "llama_plan_use_recorded": True})
    wish = {"quant": "UD-Q4_K_XL", "llama_plan_output": str(tmp_path / "out"), **({"llama_model_replace": "in_place"} if allowed else {})}
    status, told = play(inventory=inventory, **wish)
    told = " ".join(told.split())
    document = json.loads((tmp_path / "out/plan.json").read_text())
    jsonschema.validate(document, json.loads((ROOT / "docs/plan.schema.json").read_text()), cls=jsonschema.Draft202012Validator)
    removes = [entry["quant"] for entry in document["plans"][0]["disk"]["removes"]]
    if allowed:
        assert (status, removes) == (0, ["UD-Q2_K_XL"]), told
        assert "going back then needs a download of 381 GB, about 51 min" in told
    else:
        assert (status, removes) == (2, []), told
        assert (
            "set llama_model_replace: in_place, which removes UD-Q2_K_XL of unsloth/Kimi-K2-Instruct-GGUF at aaaaaaaa (381 GB) first"
            in told
        )


TINY = {"tiny": {"repo_id": "org/tiny-GGUF", "quants": {"Q4_0": {"bytes": 10**9}, "Q8_0": {"bytes": 2000 * 10**9}}}}
FURTHER = {"name": "small", "port": 8081, "model": "tiny", "quant": "Q4_0"}


def test_further_instances_are_planned_on_what_is_left(play: Any, fleet: Any, tmp_path: Path) -> None:
    """By the playbook: every instance has its table, its plan in the document, and its own plan where a variable names it."""
    facts = {**FACTS, "warnings": []}
    host = {"llama_plan_use_recorded": True, "llama_hardware_recorded": facts, "llama_plan_catalog": TINY}
    playbook = yaml.safe_load((ROOT / "playbooks/plan.yml").read_text())
    show = "{{ llama_plan_result.model }} of {{ llama_plan_results.keys() | join(',') }}"
    order = "{{ llama_plan_before_main | map(attribute='name') | join }} main {{ llama_plan_after_main | map(attribute='port') | join }}"
    playbook[0]["tasks"] = [
        {"ansible.builtin.debug": {"msg": f"now: {show}, {{{{ inventory_hostname }}}}: {order}"}},
        {
            "ansible.builtin.debug": {"msg": f"then: {show}"},
            "vars": {"llama_plan_instance": "{{ llama_instance }}"},
            "loop": "{{ llama_plan_results.keys() | difference(['main']) }}",
            "loop_control": {"loop_var": "llama_instance"},
        },
    ]
    target = tmp_path / "plan.yml"
    target.write_text(yaml.safe_dump(playbook))
    # An instance that holds most of the memory until now is to become a small one.
    large = {"fit": "resident", "memory": {"devices": [], "host": {"weights": 300 * 10**9}}}
    running = {"name": "small", "active": "active", "committed": True, "port": 8081, "plan": large}
    held = {**host, "llama_hardware_recorded": {**facts, "instances": [running]}}
    hosts = {"gpu-1": {**host, "llama_instances": [FURTHER]}, "gpu-2": host, "gpu-3": {**held, "llama_instances": [FURTHER]}}
    inventory = fleet(**hosts)
    status, told = play(inventory=inventory, playbook=str(target), llama_plan_output=str(tmp_path / "out"))
    assert status == 0, told
    assert "━━ gpu-1, instance small ━" in told and "3 hosts, 5 instances: 5 accept" in told
    assert "now: kimi-k2-instruct of main,small, gpu-1:  main 8081" in told and "gpu-3: small main" in told
    assert "then: tiny of main,small" in told
    document = json.loads((tmp_path / "out/plan.json").read_text())
    jsonschema.validate(document, json.loads((ROOT / "docs/plan.schema.json").read_text()), cls=jsonschema.Draft202012Validator)
    assert [(plan["inventory_hostname"], plan["instance"]) for plan in document["plans"]] == [
        ("gpu-1", "main"), ("gpu-1", "small"), ("gpu-2", "main"), ("gpu-3", "main"), ("gpu-3", "small"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("instance", "extra", "sentence"),
    [
        pytest.param(
            {"port": 8080}, {}, "port: 8080 is the port of small and the port of main too: give one of them another port", id="port"
        ),
        pytest.param({"quant": "Q8_0"}, {}, "tiny Q8_0 is refused on h, instance small: memory: Q8_0 needs", id="does not fit"),
        pytest.param({"qant": "x"}, {}, "llama_instances: small has qant, which is not known: did you mean quant?", id="unknown key"),
        pytest.param({}, {"llama_server_port": 9000}, "llama_server_port is given with -e, which would make it the same", id="for the run"),
    ],
)
def test_what_is_wrong_with_a_further_instance_refuses_its_host(
    play: Any, fleet: Any, instance: dict[str, Any], extra: dict[str, Any], sentence: str
) -> None:
    host = {"llama_plan_use_recorded": True, "llama_hardware_recorded": {**FACTS, "hostname": "h"}, "llama_plan_catalog": TINY}
    status, told = play(inventory=fleet(**{"gpu-1": {**host, "llama_instances": [{**FURTHER, **instance}]}}), **extra)
    assert status == 2
    assert sentence in " ".join(told.replace("''", "'").split())
    assert "Traceback" not in told


def test_facts_stay_where_nothing_asks_for_new_ones(
    play: Callable[..., tuple[int, str]], fleet: Callable[..., str], tmp_path: Path
) -> None:
    role = {"name": "onprem.llamacpp.llama_plan"}
    tasks = [
        {"name": "Plan", "ansible.builtin.import_role": role, "vars": {"_llama_plan_use_recorded": True}},
        {"name": "Plan again", "ansible.builtin.include_role": {**role, "tasks_from": "again"}, "when": False},
        {
            "name": "Confirm",
            "ansible.builtin.import_role": {**role, "tasks_from": "confirm"},
            "vars": {"llama_engine_result": {"build_id": ""}},
        },
        {"name": "Look", "ansible.builtin.assert": {"that": "__llama_plan_inputs.facts.hostname == 'h'"}},
    ]
    playbook = tmp_path / "again.yml"
    playbook.write_text(json.dumps([{"hosts": "gpu_hosts", "gather_facts": False, "tasks": tasks}]))
    facts = {"llama_hardware_recorded": FACTS, "llama_plan_require_listing": False}
    status, output = play(
        inventory=fleet(h=facts), playbook=str(playbook), llama_plan_quant_policy="force", llama_plan_require_driver=False
    )
    assert status == 0, output
