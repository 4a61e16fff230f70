# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate: what it asks, what it takes for an answer, and what it records."""

from __future__ import annotations

import re

import pytest
from switch_host import NEW, OLD, OLDER, devices, evidence, files, front, outside, preflight, questions, transaction
from switch_host import gate as gates


def test_gate_records_what_it_saw(host):
    host.deploy(NEW, devices=["CUDA0"])
    host.run(NEW)
    gate, actual = host.record(NEW, "gate.json"), host.record(NEW, "actual.json")
    assert gate["passed"] and gate["answer"] == "The capital of France is Paris." and gate["build_info"] == "b11549-abc"
    assert (gate["tokens_per_second"], gate["prompt_tokens_per_second"]) == (12.35, 99.5)
    assert actual["buffers"] == {"CPU_Mapped": {"model": 171 * 2**20}, "CUDA0": {"model": 512 * 2**20, "KV": 64 * 2**20}}


def test_gate_compares_the_memory_with_the_plan(host):
    host.deploy(NEW, devices=["CUDA0"])
    shares = [
        {"engine_name": "CUDA0", "weights": 500 * 2**20, "context": 64 * 2**20, "compute": 0},
        {"engine_name": "CUDA1", "weights": 0, "context": 0, "compute": 0},
    ]
    files.write_json(host.layout.recorded / NEW / "plan.json", {"memory": {"devices": shares}})
    host.run(NEW)
    told = {"engine_name": "CUDA0", "planned": 564 * 2**20, "actual": 576 * 2**20, "capacity": 0, "error_percent": 2.1}
    assert host.record(NEW, "actual.json")["devices"] == [told]


GB = 10**9
PLANNED = {"weights": 4 * GB, "context": GB, "compute": GB, "cache": 8 * GB}
HOSTS = {
    "as-planned": ({"CPU": {"model": 3 * GB, "KV": GB, "compute": GB}, "CPU_REPACK": {"model": GB}}, 6 * GB, 0),
    "beside-a-device": ({"CUDA0": {"model": 90 * GB}, "CUDA_Host": {"model": 4 * GB, "compute": GB}}, 5 * GB, 0),
    "more-than-planned": ({"CPU": {"model": 7 * GB}}, 7 * GB, 1),
}


@pytest.mark.parametrize(("found", "actual", "notes"), HOSTS.values(), ids=HOSTS)
def test_memory_of_the_host_is_compared_too(found, actual, notes):
    (told,) = evidence.compared_host(PLANNED, found)
    assert (told["engine_name"], told["planned"], told["actual"]) == ("host", 6 * GB, actual)
    broken, missed = evidence.too_much([told])
    assert (broken, len(missed)) == ([], notes)


@pytest.mark.parametrize("found", [{"CPU_Mapped": {"model": GB}, "CPU": {"KV": GB}}, {"CUDA0": {"model": GB}}], ids=["mapped", "none"])
def test_what_the_system_decides_is_not_compared(found):
    assert evidence.compared_host(PLANNED, found) == []


def test_missing_planned_device_is_refused(host):
    host.deploy(NEW, devices=["CUDA0", "CUDA1"])
    assert "planned devices are not in use: CUDA1" in host.run(NEW)["reason"]


DEADLINES = {
    # 100 GB at a measured 1 GB/s: six passes of 100 s, and the grace.
    "measured": (1e9, 100_000_000_000, 630),
    "assumed": (0.0, 100_000_000_000, 6030),
    "small": (1e9, 1000, 30),
}


@pytest.mark.parametrize(("speed", "size", "deadline"), DEADLINES.values(), ids=DEADLINES)
def test_deadline_follows_size_and_disk(host, speed, size, deadline):
    host.deploy(NEW, grace_seconds=30, model_bytes=size)
    host.layout.link("current", NEW)
    host.systemd.restart()
    gate = gates.Gate(host.layout, host.systemd, NEW, lambda _progress: None, speed).run()
    assert gate["deadline_seconds"] == deadline


ANSWER_SECONDS = {
    # 380 GB at 0.5 GB/s are read in 760 s; a token every 16 s, of which there are 256 for a tool.
    "streamed as planned": (0.5e9, 380 * 10**9, {"expected": 1 / 16}, {}, 3 * (760 + 256 * 16)),
    "slower than planned": (0.5e9, 380 * 10**9, {"expected": 1 / 16}, {"tokens_per_second": 1 / 32}, 3 * (760 + 256 * 32)),
    "streamed, nothing known": (1e9, 2 * 10**9, {}, {}, 3 * (2 + 256 * 2)),
    "disk not measured": (0.0, 380 * 10**9, {"expected": 1.0}, {}, 3 * (3800 + 256)),
    "fast": (1e9, 4 * 10**9, {"expected": 50.0}, {}, 900),
}


@pytest.mark.parametrize(("speed", "size", "planned", "benchmark", "seconds"), ANSWER_SECONDS.values(), ids=ANSWER_SECONDS)
def test_time_for_an_answer_follows_size_disk_and_speed(host, monkeypatch, speed, size, planned, benchmark, seconds):
    host.deploy(
        NEW, "tool called", answer_seconds=900, model_bytes=size, speed={"minimum": 0, "benchmark_share": 0, "expected": None, **planned}
    )
    files.write_json(host.layout.recorded / NEW / "plan.json", {"fit": "streaming"})
    files.write_json(host.layout.recorded / NEW / "benchmark.json", benchmark)
    host.layout.link("current", NEW)
    host.systemd.restart()
    given, ask_really = [], gates.Api.ask
    monkeypatch.setattr(
        gates.Api, "ask", lambda api, *arguments, **more: given.append(more.get("timeout")) or ask_really(api, *arguments, **more)
    )
    gates.Gate(host.layout, host.systemd, NEW, lambda _progress: None, speed).run()
    assert given[-1] == seconds  # the tool


@pytest.mark.parametrize("speed", [0.0, 2e9], ids=["assumed", "measured"])
def test_old_deployment_is_given_the_time_that_its_disk_needs(serving, monkeypatch, speed):
    monkeypatch.setattr(preflight, "disk_speed", lambda _path: speed)
    serving.deploy(NEW, "gibberish")
    assert serving.run(NEW)["state"] == "undone"
    assert serving.record(OLD, "gate.json")["disk_bytes_per_second"] == (speed or 100_000_000)


def test_disk_that_is_assumed_to_give_nothing_gives_something(host):
    host.deploy(NEW, disk_floor=0)
    assert host.run(NEW)["state"] == "committed"


SEES = {
    "itself": ("CUDA0", ["CUDA0"], True),
    "with-suffix": ("RPC0", ["RPC0[127.0.0.1:50052]"], True),
    "host-buffer-of-the-kind": ("CUDA0", ["CUDA_Host"], False),
    "longer-number": ("CUDA1", ["CUDA10"], False),
    "split": ("CUDA0", ["CUDA0_Split"], True),
}


@pytest.mark.parametrize(("name", "seen", "expected"), SEES.values(), ids=SEES)
def test_device_is_found_among_buffers(name, seen, expected):
    assert evidence.sees(name, seen) is expected


ANSWERS = {
    "content": ({"choices": [{"message": {"content": "Paris"}}]}, "Paris"),
    "reasoning": ({"choices": [{"message": {"content": None, "reasoning_content": "Hm."}}]}, "Hm."),
    "no-choices": ({"choices": []}, ""),
    "not-a-completion": ({"error": {}}, ""),
    "wrong-types": ({"choices": [["x"]]}, ""),
}


@pytest.mark.parametrize(("document", "text"), ANSWERS.values(), ids=ANSWERS)
def test_answer_text(document, text):
    assert questions.read_answer(document).text == text


def test_gate_asks_every_prompt_and_takes_the_best_speed(host):
    host.deploy(NEW, prompts=[ask("?"), ask("France?", expect="paris"), ask("Capital?", pattern=r"P\w+s\.$")])
    assert host.run(NEW)["gate"]["tokens_per_second"] == 12.35


def ask(prompt: str, **more: object) -> dict[str, object]:
    return {"prompt": prompt, "expect": "", "pattern": "", "max_tokens": 8, **more}


def test_every_question_gets_the_same_answer_each_time(host):
    """Each prompt and the tool are asked greedily, with one seed, and with nothing kept from another request."""
    host.deploy(NEW, "tool called", prompts=[ask("The capital of France?"), ask("Italy?", max_tokens=16)])
    assert host.run(NEW)["state"] == "committed"
    asked = host.systemd.server.asked
    assert [body["messages"] for body in asked[:2]] == [
        [{"role": "user", "content": text}] for text in ("The capital of France?", "Italy?")
    ]
    assert [body["max_tokens"] for body in asked[:2]] == [8, 16]
    assert len(asked) == 3 and "tools" in asked[2]
    for body in asked:
        assert (body["temperature"], body["seed"], body["cache_prompt"]) == (0, 42, False)


def test_load_is_told_while_it_lasts(host, monkeypatch):
    """How much is read, of what, for how long and until when, in the journal that status reads."""
    monkeypatch.setattr(gates, "process_progress", lambda _pid: 45 * GB)
    told, note = [], transaction.Switch.note
    monkeypatch.setattr(transaction.Switch, "note", lambda switch, **changes: told.append(changes) or note(switch, **changes))
    host.deploy(NEW, "hang", model_bytes=100 * GB, disk_floor=1e15)
    assert host.run(NEW)["state"] == "undone"
    lines = [changes["progress"] for changes in told if "progress" in changes]
    assert any(re.fullmatch(r"loading, about 45\.0 of 100\.0 GB after \d+ s \(limit 1 s\)", line) for line in lines), lines


@pytest.mark.parametrize(("passed", "ahead", "offered"), [(True, False, False), (False, False, True), (True, True, True)])
def test_way_back_to_what_has_passed_does_not_offer_a_tool_again(host, passed, ahead, offered):
    host.deploy(NEW, "tool called", prompts=[ask("The capital of France?")])
    files.write_json(host.layout.recorded / NEW / "gate.json", {"passed": passed})
    assert host.run(NEW, ahead=ahead)["state"] == "committed"
    assert ["tools" in body for body in host.systemd.server.asked] == [False, *[True][:offered]]


WRONG = {
    "lacks-the-text": ("good", {"prompts": [ask("?"), ask("Italy?", expect="Rome")]}, "the answer to 'Italy?' lacks 'Rome'"),
    "no-match": ("good", {"prompts": [ask("?", pattern="^Rome")]}, "does not match '^Rome'"),
    "too-slow-for-the-user": (
        "good",
        {"speed": {"minimum": 20.0, "benchmark_share": 0.8, "expected": None}},
        "12.35 tokens/s are fewer than 20: llama_server_gate_min_tokens_per_second",
    ),
    "tool-unknown": ("tool unknown", {}, "names a tool that was not offered: 'get_wether'"),
    "tool-garbled": ("tool garbled", {}, "are no JSON object"),
    "tool-unparsed": ("tool unparsed", {}, "does not understand the model's tool calls: '<|tool_calls'"),
    "tool-required": ("good", {"tools": "required"}, "did not call the tool"),
}


@pytest.mark.parametrize(("behaviour", "request_", "reason"), WRONG.values(), ids=WRONG)
def test_deployment_that_answers_wrongly_does_not_stay(host, behaviour, request_, reason):
    host.deploy(NEW, behaviour, **request_)
    journal = host.run(NEW)
    assert journal["state"] == "undone" and reason in journal["reason"]


RIGHT = {
    "tool-called": ("tool called", {}),
    "tool-not-called": ("tool talked", {}),
    "tools-off": ("tool garbled", {"tools": "off"}),
    "no-tools-in-the-template": ("good", {}),
}


@pytest.mark.parametrize(("behaviour", "request_"), RIGHT.values(), ids=RIGHT)
def test_tools_that_are_understood_pass(host, behaviour, request_):
    host.deploy(NEW, behaviour, **request_)
    assert host.run(NEW)["state"] == "committed"


def test_benchmark_of_this_deployment_is_the_bar(host):
    host.deploy(NEW)
    files.write_json(host.layout.recorded / NEW / "benchmark.json", {"tokens_per_second": 20.0})
    assert "fewer than 16: 80% of the 20 that a benchmark of this deployment has shown" in host.run(NEW)["reason"]


def test_speed_below_the_plan_is_told_and_stays(host):
    host.deploy(NEW, speed={"minimum": 0.0, "benchmark_share": 0.8, "expected": 15.0})
    journal = host.run(NEW)
    assert journal["state"] == "committed"
    assert journal["gate"]["notes"] == ["12.35 tokens/s, the plan expected at least 15"]
    assert journal["gate"]["warnings"] == []


def test_memory_beyond_what_may_be_used_fails(host):
    host.deploy(NEW, devices=["CUDA0"])
    share = {"engine_name": "CUDA0", "weights": 500 * 2**20, "context": 0, "compute": 0, "capacity": 570 * 2**20}
    files.write_json(host.layout.recorded / NEW / "plan.json", {"memory": {"devices": [share]}})
    assert "CUDA0 took 0.60 GB, planned were 0.52 GB, and what may be used of it is 0.60 GB" in host.run(NEW)["reason"]


def test_only_loopback_answers_is_told(host):
    host.deploy(NEW, host="0.0.0.0", advertised="127.0.0.2")  # the test's server binds 127.0.0.1 alone
    journal = host.run(NEW)
    assert journal["state"] == "committed"
    told = f"only loopback answers: 127.0.0.2 port {host.port} does not, seen from this host"
    assert (journal["gate"]["reachable"], journal["gate"]["warnings"]) == ("loopback", [told])


REASONING = {
    "marks-in-the-answer": ({"content": "<think>Hm.</think>Paris", "reasoning_content": ""}, True),
    "marks-of-kimi": ({"content": "◁think▷Hm. Paris", "reasoning_content": ""}, True),
    "parsed": ({"content": "Paris", "reasoning_content": "They ask for a capital."}, False),
    "still-thinking": ({"content": "", "reasoning_content": "Paris, I think"}, False),
}


@pytest.mark.parametrize(("message", "wrong"), REASONING.values(), ids=REASONING)
def test_reasoning_must_be_parsed(message, wrong):
    answer = questions.read_answer({"choices": [{"message": message}]})
    assert bool(questions.prompt_problem(ask("?", expect="paris"), answer)) is wrong


GPU = "GPU-6ee1a3b4-5b57-9c38-6a6e-0d4f2f3a9e11"
FINE = devices.Health(0, [])
DEVICES = {
    "fine": ({GPU: FINE}, {GPU: FINE}, [], [], []),
    "no-ecc": ({GPU: devices.Health(None, [])}, {GPU: devices.Health(None, [])}, [], [], []),
    "new-errors": ({GPU: FINE}, {GPU: devices.Health(2, [])}, [], ["had 2 errors"], []),
    "old-errors": ({GPU: devices.Health(2, [])}, {GPU: devices.Health(2, [])}, [], [], ["has had 2 errors"]),
    "hot": ({GPU: FINE}, {GPU: devices.Health(0, ["hw_thermal_slowdown"])}, [], [], ["slowed down by hw_thermal_slowdown"]),
    "xid": ({GPU: FINE}, {GPU: FINE}, ["Xid 79 on 0000:1e:00, GPU has fallen off the bus."], ["Xid 79"], []),
}


@pytest.mark.parametrize(("before", "after", "xids", "bad", "told"), DEVICES.values(), ids=DEVICES)
def test_health_of_devices(before, after, xids, bad, told):
    found_bad, found_told = devices.problems(before, after, xids)
    assert [text in found for text, found in zip(bad, found_bad)] == [True] * len(found_bad)
    assert [text in found for text, found in zip(told, found_told)] == [True] * len(found_told)
    assert (len(found_bad), len(found_told)) == (len(bad), len(told))


def test_health_is_read_from_csv():
    text = f"{GPU}, 3, Not Active, Active, [N/A]\nGPU-b, [N/A], Not Active, Not Active, Not Active\nnonsense\n"
    assert devices.read_health(text) == {GPU: devices.Health(3, ["hw_thermal_slowdown"]), "GPU-b": devices.Health(None, [])}


def test_xids_of_programs_that_ended_are_no_fault_of_the_device():
    lines = [
        "NVRM: Xid (PCI:0000:1e:00): 79, pid=1234, name=llama-server, GPU has fallen off the bus.",
        "NVRM: Xid (PCI:0000:1e:00): 43, pid=1234, name=llama-server, Ch 00000008",
        "usb 1-1: new device",
    ]
    assert devices.read_xids(lines) == ["Xid 79 on 0000:1e:00, pid=1234, name=llama-server, GPU has fallen off the bus."]


def test_sick_device_undoes_the_switch(host, monkeypatch):
    host.deploy(NEW)
    share = {"engine_name": "CUDA0", "uuid": GPU, "weights": 0, "context": 0, "compute": 0}
    files.write_json(host.layout.recorded / NEW / "plan.json", {"memory": {"devices": [share]}})
    monkeypatch.setattr(devices, "ask_health", lambda _uuids: {GPU: FINE})
    monkeypatch.setattr(devices, "ask_xids", lambda _since, _addresses: ["Xid 48 on 0000:1e:00, double bit error"])
    assert "the driver reports Xid 48" in host.run(NEW)["reason"]


PART, NEIGHBOUR = "MIG-5c5b5b8f-0d5f-5a8e-9e2b-2a1c9d8e7f60", "GPU-0f0e0d0c-1111-2222-3333-444455556666"
NVIDIA_SMI = f"""#!/bin/sh
case "$*" in
  *pci.bus_id*) echo "{GPU}, 00000000:1E:00.0"; echo "{NEIGHBOUR}, 00000000:AF:00.0" ;;
  *--query-gpu=uuid,*) echo "{GPU}, 0, Not Active, Not Active, Not Active" ;;
  -L) echo "GPU 0: NVIDIA A100-SXM4-40GB (UUID: {GPU})"; echo "  MIG 3g.20gb     Device  0: (UUID: {PART})" ;;
esac
"""
XIDS = {
    "ours": ([GPU], "0000:1e:00", True),
    "that of another instance": ([GPU], "0000:af:00", False),
    "that of another domain": ([GPU], "0001:1e:00", False),
    "the whole of our part": ([PART], "0000:1e:00", True),
    "not of our part": ([PART], "0000:af:00", False),
    "one that the driver does not know": ([GPU, "GPU-unknown"], "0000:af:00", True),
}


@pytest.fixture(name="driver")
def fixture_driver(tmp_path, monkeypatch):
    """Two GPUs as nvidia-smi shows them; writes the kernel's log."""
    programs = tmp_path / "programs"
    programs.mkdir()

    def write(name, text):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)

    write("nvidia-smi", NVIDIA_SMI)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    return write


def plan_devices(host, uuids):
    shares = [{"engine_name": "CUDA0", "uuid": uuid, "weights": 0, "context": 0, "compute": 0} for uuid in uuids]
    files.write_json(host.layout.recorded / NEW / "plan.json", {"memory": {"devices": shares}})


@pytest.mark.parametrize(("uuids", "place", "counts"), XIDS.values(), ids=XIDS)
def test_only_errors_of_planned_devices_undo_a_switch(host, driver, uuids, place, counts):
    host.deploy(NEW)
    plan_devices(host, uuids)
    driver("journalctl", f"#!/bin/sh\necho 'NVRM: Xid (PCI:{place}): 79, GPU has fallen off the bus.'\n")
    journal = host.run(NEW)
    assert ("Xid 79" in journal["reason"]) is counts and (journal["state"] == "undone") is counts


def test_devices_of_which_nothing_is_known_are_a_warning(host, driver):
    host.deploy(NEW)
    plan_devices(host, [GPU, NEIGHBOUR])
    driver("journalctl", "#!/bin/sh\n")
    (warning,) = host.run(NEW)["gate"]["warnings"]
    assert warning.startswith(f"nvidia-smi says nothing of {NEIGHBOUR}: ")


def test_memory_that_the_log_does_not_tell_is_a_warning(host, monkeypatch):
    host.deploy(NEW)
    files.write_json(host.layout.recorded / NEW / "plan.json", {"memory": {"host": {"weights": GB}}})
    monkeypatch.setattr(host.systemd, "log", lambda *_arguments: [])
    journal = host.run(NEW)
    assert journal["state"] == "committed"
    assert journal["gate"]["warnings"] == ["the server's log says nothing of its memory, so that is not compared with the plan"]


ENDED_LATE = {
    "died": ({"ActiveState": "failed"}, "exit status 1"),
    "started again": ({"NRestarts": "1", "MainPID": "4343"}, "systemd has started it again"),
}


@pytest.mark.parametrize(("changes", "how"), ENDED_LATE.values(), ids=ENDED_LATE)
def test_server_that_ends_after_its_last_answer_does_not_stay(host, monkeypatch, changes, how):
    host.deploy(NEW)
    show = host.systemd.show
    ended = lambda *_arguments: monkeypatch.setattr(host.systemd, "show", lambda *_more: {**show(), **changes})  # noqa: E731
    monkeypatch.setattr(gates.Gate, "_advertised", ended)
    journal = host.run(NEW)
    assert (journal["state"], journal["committed"]) == ("undone", "")
    assert f"the server ended by itself: {how}" in journal["reason"]


URL = "https://one:8443"
SEEN = {
    # what the front answers, whether it is drained, why the deployment goes back, and where clients can reach it
    "well": ((200, 401, []), False, "", URL),
    "out of service": ((503, 401, []), True, "", URL),
    "down": ((0, 0, []), False, "", "loopback"),
    "astray": ((503, 401, []), False, "the front does not reach the server", ""),
    "open": ((200, 200, []), False, "a request without a key with 200 instead of 401", ""),
    "other name": ((200, 401, ["is for other names"]), False, "", URL),
}


@pytest.mark.parametrize(("seen", "drained", "reason", "reachable"), SEEN.values(), ids=SEEN)
def test_front_is_asked_through_its_address(host, monkeypatch, seen, drained, reason, reachable):
    host.deploy(NEW, front={"url": URL, "ca": "/ca.pem"})
    files.write_text(host.layout.front / "upstream.conf", f"server 127.0.0.1:{host.port};\n")
    if drained:
        front.Front(host.layout).drain()
    asked = []
    monkeypatch.setattr(outside, "look", lambda *arguments: asked.append(arguments) or outside.Seen(*seen))
    journal = host.run(NEW)
    assert asked == [(URL, "/ca.pem")] * 2  # before the old server is stopped, and at last
    assert (journal["state"] == "committed") is not bool(reason) and reason in journal["reason"]
    if not reason:
        gate = host.record(NEW, "gate.json")
        assert gate["reachable"] == reachable
        assert bool(gate["warnings"]) is (reachable == "loopback" or bool(seen[2]))


@pytest.fixture(name="expired")
def fixture_expired(serving, monkeypatch):
    """A host whose front has a certificate that ended while it served."""

    def look(url, _ca):
        raise files.SwitchError(f"the certificate of {url} has expired")

    for identity in (OLD, OLDER):
        request = serving.layout.recorded / identity / "request.json"
        files.write_json(request, {**files.read_json(request), "front": {"url": URL, "ca": ""}})
    files.write_text(serving.layout.front / "upstream.conf", f"server 127.0.0.1:{serving.port};\n")
    monkeypatch.setattr(outside, "look", look)
    return serving


def test_expired_certificate_is_met_before_anything_is_stopped(expired):
    expired.deploy(NEW, front={"url": URL, "ca": ""})
    before = list(expired.systemd.calls)
    journal = expired.run(NEW)
    assert (journal["state"], journal["reason"], journal["serving"]) == ("undone", f"the certificate of {URL} has expired", OLD)
    assert expired.systemd.calls == before and expired.links() == (OLD, OLDER)


def test_way_back_by_hand_is_open_behind_an_expired_certificate(expired):
    journal = expired.run(OLDER, ahead=False)
    assert (journal["state"], journal["serving"]) == ("committed", OLDER)
    assert journal["gate"]["warnings"] == [f"the certificate of {URL} has expired"]


def test_certificate_that_expires_during_a_switch_does_not_keep_the_old_deployment_out(expired):
    # The new one has no front, so that nothing is said of the certificate before the old one is gated again.
    expired.deploy(NEW, "gibberish")
    journal = expired.run(NEW)
    assert (journal["state"], journal["serving"], journal["reason"][:27]) == ("undone", OLD, "the completion is gibberish")
    assert journal["gate"]["warnings"] == [f"the certificate of {URL} has expired"]
