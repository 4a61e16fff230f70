# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two servers at once: when, how requests move, and that somebody is always there to answer them."""

from __future__ import annotations

import functools
import http.client
import threading

import pytest
import switch_host
from switch_host import NEW, OLD, OLDER, devices, files, front, neighbours, overlap, retention, transaction

GB = 10**9
GPU = {"engine_name": "CUDA0", "uuid": "GPU-1", "weights": 30 * GB, "context": 5 * GB, "compute": GB}
# needed, (available, own, mapped), device shares, free, held -> chosen, words
FITS = {
    "both-fit": ((100 * GB, (300 * GB, 50 * GB, 0), [], {}, {}), True, "300.0 GB are free"),
    "mapped-weights-stay": ((100 * GB, (300 * GB, 0, 250 * GB), [], {}, {}), False, "50.0 GB are free beside the running server"),
    "not-beside-itself": ((100 * GB, (150 * GB, 10 * GB, 0), [], {}, {}), False, "which are not there twice"),
    "beside-itself-when-the-old-one-is-gone": ((100 * GB, (150 * GB, 50 * GB, 0), [], {}, {}), True, "free"),
    "device-has-room": ((1, (100, 0, 0), [GPU], {"GPU-1": 80 * GB}, {}), True, "free"),
    "device-is-full": (
        (1, (100, 0, 0), [GPU], {"GPU-1": 20 * GB}, {"GPU-1": 50 * GB}),
        False,
        "of which 20.0 GB are free",
    ),
    "device-is-not-there-twice": ((1, (100, 0, 0), [GPU], {"GPU-1": 40 * GB}, {"GPU-1": 10 * GB}), False, "of CUDA0"),
    "device-tells-nothing": ((1, (100, 0, 0), [{**GPU, "uuid": "RPC0"}], {}, {}), False, "not known how much of CUDA0"),
    "device-without-a-part": ((1, (100, 0, 0), [{"engine_name": "CUDA1", "uuid": "GPU-2", "weights": 0}], {}, {}), True, "free"),
}


@pytest.mark.parametrize(("given", "chosen", "words"), FITS.values(), ids=FITS)
def test_fits(given, chosen, words):
    needed, memory, shares, free, held = given
    choice = overlap.fits(needed, overlap.Memory(*memory), shares, free, held)
    assert choice.chosen is chosen and words in choice.why


def test_free_memory_of_devices(monkeypatch):
    monkeypatch.setattr(devices, "_output", lambda *_argv: "GPU-1, 100\nGPU-2, [N/A]\nGPU-9, 7\n")
    assert devices.ask_free(["GPU-1", "GPU-2"]) == {"GPU-1": 100 * 2**20}
    assert devices.ask_free([]) == {}


UNIT = """ExecStartPre=+/x/llamacpp-switch verify --instance %i
ExecStart=/etc/llamacpp/instances/%i/current/engine/bin/llama-server
SocketBindAllow=tcp:8080
"""


def test_drop_in_of_the_second_server():
    text = overlap.beside(UNIT, 18080, "/run/llamacpp/main.beside.env")
    assert "/instances/%i/beside/engine" in text and "current" not in text
    assert "verify --instance %i --link beside" in text
    assert text.endswith("[Service]\nEnvironmentFile=/run/llamacpp/main.beside.env\nSocketBindAllow=tcp:18080\n")


class Client(threading.Thread):
    """Asks again and again where the front sends it; counts answers, and requests that nobody took."""

    def __init__(self, host):
        super().__init__(daemon=True)
        self.host, self.front, self.answered, self.failed, self.done = host, front.Front(host.layout), [], 0, threading.Event()

    def ask(self):
        for _attempt in range(2):
            port = self.front.port
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    return port
            except OSError:
                pass
            if self.front.port == port:
                break  # it was not moved meanwhile
        return 0

    def run(self):
        while not self.done.is_set():
            port = self.ask()
            self.answered.append(port)
            self.failed += not port


@pytest.fixture
def fronted(serving, monkeypatch):
    """A host with a front and much memory, and a client that never stops asking."""
    monkeypatch.setattr(transaction, "Front", functools.partial(front.Front, call=lambda *_argv: "inactive"))
    monkeypatch.setattr(overlap, "listening", lambda *_arguments: [])
    monkeypatch.setattr(overlap.pagecache, "available_memory", lambda: 100 * GB)
    files.write_text(serving.layout.front / "upstream.conf", f"server 127.0.0.1:{serving.port};\n")
    (serving.layout.deployment(OLD) / "unit.conf").write_text(UNIT)
    client = Client(serving)
    serving.client = client
    client.start()
    yield serving
    client.done.set()
    client.join()
    serving.second.shut()


def lay(host, behaviour="good", **request):
    wish = {"overlap": "auto", "spare_port": host.spare, "drain_seconds": 5, **request}
    host.deploy(NEW, behaviour, **wish)
    (host.layout.deployment(NEW) / "unit.conf").write_text(UNIT)


def nothing_is_left(host):
    assert host.second.active == "inactive" and not (host.layout.declared / "beside").is_symlink()
    assert not host.layout.beside_drop_in.parent.exists() and not host.layout.beside_environment.exists()
    assert front.Front(host.layout).port == host.port


def test_switch_without_a_gap(fronted):
    lay(fronted)
    journal = fronted.run(NEW)
    assert [entry["state"] for entry in journal["states"]] == ["prepared", "beside", "switched", "gating", "committed"]
    assert journal["overlap"]["chosen"] and journal["gap_seconds"] == 0.0 == journal["gate"]["gap_seconds"]
    assert journal["progress"] == "committed, after 0.0 s without service"
    assert fronted.links() == (NEW, OLD) and fronted.systemd.active == "active"
    assert not fronted.layout.drained.exists()
    fronted.client.done.set()
    fronted.client.join()
    assert fronted.client.failed == 0 and set(fronted.client.answered) == {fronted.port, fronted.spare}
    nothing_is_left(fronted)


def breaks(patch, systemd, method, broken):
    """Lets systemd restart a server by itself while another one is restarted."""
    real = getattr(systemd, method)

    def call():
        broken.restarts += 1
        real()

    patch.setattr(systemd, method, call)


BREAKS = {"first": ("second", "systemd"), "second": ("systemd", "second")}


@pytest.mark.parametrize("behaviour", ["good", "gibberish"])
@pytest.mark.parametrize(("while_", "broken"), BREAKS.values(), ids=BREAKS)
def test_gap_is_not_called_none_when_a_server_ended_that_had_the_requests(fronted, monkeypatch, while_, broken, behaviour):
    lay(fronted)
    restarted = getattr(fronted, while_)
    breaks(monkeypatch, restarted, "restart", getattr(fronted, broken))
    if behaviour != "good" and while_ == "systemd":  # beside it was good; here it is not, and the old one is again
        real = restarted.restart
        monkeypatch.setattr(restarted, "restart", lambda: (fronted.behaviours.update({NEW: behaviour}), real()))
    elif behaviour != "good":
        fronted.behaviours[NEW] = behaviour
    journal = fronted.run(NEW)
    assert journal["state"] == ("committed" if behaviour == "good" else "undone")
    assert journal["gap_seconds"] is None
    if journal["gate"]:
        assert transaction.UNKNOWN_GAP in journal["gate"]["warnings"]
        record = fronted.record(journal["serving"], "gate.json")
        assert record["gap_seconds"] is None and record["passed"] and transaction.UNKNOWN_GAP in record["warnings"]
    else:
        assert journal["progress"] == f"undone: {transaction.UNKNOWN_GAP}"
    nothing_is_left(fronted)


def test_server_that_ends_after_the_gate_and_before_the_requests_are_back_is_noticed(fronted, monkeypatch):
    lay(fronted)
    real = front.Front.point

    def point(self, port):
        fronted.second.restarts += port == fronted.port
        return real(self, port)

    monkeypatch.setattr(front.Front, "point", point)
    journal = fronted.run(NEW)
    assert (journal["state"], journal["gap_seconds"], journal["progress"]) == ("committed", None, "committed")
    assert transaction.UNKNOWN_GAP in journal["gate"]["warnings"]


@pytest.mark.parametrize("behaviour", ["crash", "gibberish", "hang", "does not start"])
def test_deployment_that_fails_beside_disturbs_nobody(fronted, behaviour):
    lay(fronted, behaviour)
    before = list(fronted.systemd.calls)
    journal = fronted.run(NEW)
    assert (journal["state"], journal["serving"], journal["gap_seconds"]) == ("undone", OLD, 0.0)
    assert journal["reason"] and journal["log_tail"]
    assert fronted.systemd.calls == before and fronted.links() == (OLD, OLDER)
    assert fronted.client.failed == 0
    nothing_is_left(fronted)


def test_deployment_that_fails_in_its_own_place_is_undone_without_a_gap(fronted, monkeypatch):
    lay(fronted)
    real = fronted.systemd.restart

    def restart():
        # Beside it was good; here it is not, and the old one is again.
        fronted.behaviours[NEW] = "gibberish"
        real()

    monkeypatch.setattr(fronted.systemd, "restart", restart)
    journal = fronted.run(NEW)
    assert (journal["state"], journal["serving"], journal["gap_seconds"]) == ("undone", OLD, 0.0)
    assert fronted.links() == (OLD, OLDER) and fronted.client.failed == 0
    nothing_is_left(fronted)


@pytest.fixture
def second_serves(fronted, monkeypatch):
    """The new deployment was good beside and fails in its own place, and the old one does not come back."""
    lay(fronted)
    real = fronted.systemd.restart

    def restart():
        fronted.behaviours.update({NEW: "gibberish", OLD: "gibberish"})
        real()

    monkeypatch.setattr(fronted.systemd, "restart", restart)
    journal = fronted.run(NEW)
    assert (journal["state"], journal["serving"]) == ("failed", NEW)
    assert fronted.links() == (OLD, OLDER) and front.Front(fronted.layout).port == fronted.spare
    return fronted


def test_second_server_stays_while_it_is_the_only_one_that_serves(second_serves):
    second_serves.switch().recover()
    refused = second_serves.run("d" * 12)
    assert (refused["state"], refused["serving"]) == ("undone", NEW)
    second_serves.switch().recover()
    assert second_serves.second.active == "active" and front.Front(second_serves.layout).port == second_serves.spare
    assert second_serves.client.failed == 0 and retention.superfluous(second_serves.layout, 0) == []


def test_boot_ends_the_second_server_and_sends_requests_to_the_first(second_serves):
    second_serves.client.done.set()
    second_serves.behaviours[OLD] = "good"
    second_serves.reboot()
    assert second_serves.links() == (OLD, OLDER) and second_serves.systemd.active == "active"
    nothing_is_left(second_serves)


REASONS = {
    "not-wished": ({"overlap": "never"}, "llama_server_overlap is never"),
    "older-request": ({"overlap": None}, "llama_server_overlap is never"),
    "no-room": ({"model_bytes": 200 * GB}, "200.0 GB of memory"),
}


@pytest.mark.parametrize(("request_", "why"), REASONS.values(), ids=REASONS)
def test_stop_and_start_otherwise(fronted, request_, why):
    lay(fronted, **request_)
    journal = fronted.run(NEW)
    assert [entry["state"] for entry in journal["states"]] == ["prepared", "switched", "gating", "committed"]
    assert not journal["overlap"]["chosen"] and why in journal["overlap"]["why"]
    nothing_is_left(fronted)


class Streams:
    """So many looks at the front find a request under way; what was done meanwhile, and whether new ones were refused then."""

    def __init__(self, host, patch, looks, behaviour="good"):
        self.host, self.left, self.seen = host, looks, []
        lay(host, behaviour, overlap="never", drain_seconds=2)
        patch.setattr(front, "POLL_SECONDS", 0.02)
        patch.setattr(front.Front, "running", self.look)
        patch.setattr(front.Front, "_workers", lambda *_arguments: set())
        restart, post = host.systemd.restart, switch_host.Handler.do_POST
        patch.setattr(host.systemd, "restart", lambda: (self.note("restart"), restart()))
        patch.setattr(switch_host.Handler, "do_POST", lambda handler: (self.note("question"), post(handler)))

    def note(self, what):
        self.seen.append((what, front.Front(self.host.layout).drained))

    def look(self, _port):
        self.note("look")
        self.left -= 1
        return int(self.left >= 0)


@pytest.mark.parametrize("behaviour", ["good", "gibberish"])
def test_server_that_is_stopped_has_no_request_under_way_and_gets_new_ones_when_it_answers(fronted, monkeypatch, behaviour):
    streams = Streams(fronted, monkeypatch, 3, behaviour)
    journal = fronted.run(NEW)
    assert journal["state"] == ("committed" if behaviour == "good" else "undone")
    before = streams.seen.index(("restart", True))
    assert streams.seen[:before] == [("look", True)] * 4 and streams.left == -1
    assert not [seen for seen in streams.seen[before + 1 :] if seen[1]] and ("question", False) in streams.seen
    assert not front.Front(fronted.layout).drained


def test_requests_that_take_too_long_are_cut_off(fronted, monkeypatch):
    streams = Streams(fronted, monkeypatch, 10**6)
    journal = fronted.run(NEW)
    assert journal["state"] == "committed" and ("restart", True) in streams.seen and streams.left > 0
    assert journal["gap_seconds"] >= 2  # new ones were refused as long


@pytest.mark.parametrize("way", ["hang", "crash", "surprise"])
def test_front_takes_requests_again_whatever_came_of_the_switch(fronted, monkeypatch, way):
    streams = Streams(fronted, monkeypatch, 0, way if way != "surprise" else "good")
    if way == "surprise":
        monkeypatch.setattr(front.Front, "wait_idle", lambda *_arguments: 1 / 0)
    assert fronted.run(NEW)["state"] == "undone"
    assert not front.Front(fronted.layout).drained and (way == "surprise") is not (("restart", True) in streams.seen)


@pytest.mark.parametrize(("by", "drained"), [("switch", False), ("", True), ("rollout", True)])
@pytest.mark.parametrize("state", ["prepared", "switched", "committed"])
def test_recover_puts_back_into_service_what_a_switch_has_left_out(fronted, by, drained, state):
    lay(fronted)
    fronted.switch().record(**{"state": state, "to": NEW, "from": OLD, "previous_before": OLDER, "reason": ""})
    front.Front(fronted.layout).drain(by)
    fronted.switch().recover()
    assert front.Front(fronted.layout).drained is drained


@pytest.mark.parametrize("by", ["", "rollout"])
def test_who_was_taken_out_of_service_before_a_switch_stays_so(fronted, monkeypatch, by):
    Streams(fronted, monkeypatch, 1)
    front.Front(fronted.layout).drain(by)
    assert fronted.run(NEW)["state"] == "committed"
    assert fronted.layout.drained.read_text() == by


def test_way_back_at_once_waits_for_nobody(fronted, monkeypatch):
    streams = Streams(fronted, monkeypatch, 10**6)
    assert fronted.run(NEW, ahead=False)["state"] == "committed"
    assert ("restart", False) in streams.seen and ("look", True) not in streams.seen


def test_spare_port_of_somebody_else(fronted, monkeypatch):
    monkeypatch.setattr(overlap, "listening", lambda *_arguments: [(77, "ollama")])
    lay(fronted)
    assert f"port {fronted.spare} is not free" in fronted.run(NEW)["overlap"]["why"]


def test_without_a_front_nobody_can_move_requests(serving):
    lay(serving)
    assert "without a front" in serving.run(NEW)["overlap"]["why"]


class PowerLoss(BaseException):
    """Nothing runs after this."""


STEPS = ["beside", "switched", "gating", "undoing", "committed"]


@pytest.mark.parametrize("state", STEPS)
@pytest.mark.parametrize("way", ["power", "program"])
def test_interruption_leaves_one_server_and_a_front_that_knows_it(fronted, monkeypatch, state, way):
    lay(fronted)
    switch, real, restart = fronted.switch(), transaction.write_json, fronted.systemd.restart

    def write_json(path, document):
        real(path, document)
        if document.get("state") == state:
            raise PowerLoss

    def failing():
        # Beside it was good; here it is not.
        fronted.behaviours[NEW] = "gibberish"
        restart()

    with monkeypatch.context() as patch:
        patch.setattr(transaction, "write_json", write_json)
        if state == "undoing":
            patch.setattr(fronted.systemd, "restart", failing)
        with pytest.raises(PowerLoss):
            switch.run(NEW, "run")
    if way == "power":
        fronted.client.done.set()
        fronted.reboot()
    else:
        fronted.switch().recover()
    wanted = NEW if state == "committed" else OLD
    assert fronted.links()[0] == wanted and fronted.journal()["committed"] == wanted
    assert fronted.systemd.active == "active"
    nothing_is_left(fronted)


PLAN = {"fit": "resident", "memory": {"host": {"weights": 40 * GB, "context": GB, "compute": GB, "cache": 8 * GB}}}
SHARES = {
    "loaded-for-itself": (PLAN, 50 * GB, 0, 0),
    "still-loading": (PLAN, 10 * GB, 0, 40 * GB),
    "maps-its-weights": (PLAN, 10 * GB, 40 * GB, 40 * GB),
    "streams": ({**PLAN, "fit": "streaming"}, 10 * GB, 30 * GB, 30 * GB),
    "no-plan": ({}, 10 * GB, 2 * GB, 2 * GB),
}


@pytest.mark.parametrize(("plan", "own", "mapped", "left"), SHARES.values(), ids=SHARES)
def test_what_is_left_to_another_instance(plan, own, mapped, left):
    assert neighbours.share(plan, own, mapped) == left


def test_other_instances_that_run_are_left_their_memory(fronted, monkeypatch):
    for name in ("small", "stopped"):
        other = files.Layout(name, fronted.root)
        files.write_json(other.recorded / OLD / "plan.json", PLAN)
        (other.deployment(OLD)).mkdir(parents=True)
        other.link("current", OLD)
    monkeypatch.setattr(neighbours.Systemd, "show", lambda self: {"ActiveState": "active" if "small" in self.unit else "inactive"})
    assert neighbours.reserved(fronted.layout) == 50 * GB
    lay(fronted)
    files.write_json(fronted.layout.recorded / NEW / "plan.json", PLAN)
    choice = overlap.choose(fronted.layout, fronted.systemd, front.Front(fronted.layout), NEW)
    assert not choice.chosen
    assert choice.why == "it takes 50.0 GB of memory, which are not there twice"
