# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Clients as they come: those that may, those that may not, and those that mean no good."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import socket
import ssl
import threading
import time
from typing import Any

import openai
import plays
import pytest
from conftest import ADDRESS, GIVEN, MODEL, PORT, URL, question
from tiny_kimi_k2 import CONTROL

CHAT = "/v1/chat/completions"
LOAD_SECONDS = int(os.environ.get("LOAD_SECONDS", "60"))
WARM_SECONDS = 20  # after which every thread of the engine has memory of its own
JSON = ("-H", "Content-Type: application/json", "-d")
LONG = 1500  # tokens
MAX_REQUESTS = 128  # llama_server_front_max_requests of the inventory
CITY = {"type": "object", "properties": {"city": {"type": "string", "enum": ["Paris"]}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": CITY}}


@pytest.fixture(name="key")
def fixture_key(front: Any) -> str:
    return str(front.keys("chat")[0])


def test_openai_client_talks_and_streams(front: Any, key: str) -> None:
    client = front.client(key)
    assert [model.id for model in client.models.list()] == [MODEL]
    whole = client.chat.completions.create(**question(16))
    assert whole.choices[0].message.content and whole.usage.completion_tokens == 16
    started, times = time.monotonic(), []
    # Long enough that a busy machine may keep the client waiting meanwhile.
    for part in client.chat.completions.create(**question(512), stream=True):
        assert part.object == "chat.completion.chunk"
        times.append(time.monotonic() - started)
    # Nothing on the way collects an answer: its first word comes long before its last.
    assert len(times) > 250 and times[1] < 0.7 * times[-1]


def test_tool_is_called_and_its_result_taken(front: Any, key: str) -> None:
    """The engine's grammar and its parser are at work; what a model of random weights favours is said in the request."""
    space = {str(len(CONTROL) + byte): -100 for byte in b" \t\r\n"}
    favoured = {str(CONTROL.index("<|invoke|>")): 50, str(CONTROL.index("<|end|>")): 60, **space}
    request = {
        "model": MODEL,
        "messages": question(1)["messages"],
        "max_tokens": 200,
        "tools": [TOOL],
        "logit_bias": favoured,
        "temperature": 0,
    }
    client = front.client(key)
    answer = client.chat.completions.create(**request, tool_choice="required").choices[0]
    called = [(call.function.name, json.loads(call.function.arguments)) for call in answer.message.tool_calls]
    assert (answer.finish_reason, called) == ("tool_calls", [("get_weather", {"city": "Paris"})])

    name = arguments = ""
    for part in client.chat.completions.create(**request, tool_choice="required", stream=True):
        for call in part.choices[0].delta.tool_calls or [] if part.choices else []:
            name, arguments = name + (call.function.name or ""), arguments + (call.function.arguments or "")
    assert (name, json.loads(arguments)) == ("get_weather", {"city": "Paris"})

    told = {"role": "tool", "tool_call_id": answer.message.tool_calls[0].id, "content": "Rain."}
    messages = [*request["messages"], answer.message.model_dump(exclude_none=True), told]
    last = client.chat.completions.create(**{**question(8), "messages": messages}, tools=[TOOL]).choices[0]
    assert last.finish_reason == "length" and last.message.content


def test_cancelled_answer_leaves_the_engine_idle(front: Any, key: str) -> None:
    stream = front.client(key).chat.completions.create(**question(LONG), stream=True)
    for number, _part in enumerate(stream):
        if number == 5:
            break
    before = metric(front, "requests_processing"), metric(front, "tokens_predicted_total")
    stream.close()
    plays.wait_until(lambda: metric(front, "requests_processing") == 0, 10)
    assert before[0] == 1
    # An answer that comes to its end is counted with all its tokens.
    assert metric(front, "tokens_predicted_total") - before[1] < LONG


def metric(front: Any, name: str) -> int:
    """One of the engine's, from the metrics bind of the host."""
    text = front.server.check_output("curl -s http://127.0.0.1:9464/metrics")
    return next(int(float(line.split()[1])) for line in text.splitlines() if line.startswith(f"llamacpp:{name} "))


@pytest.mark.parametrize("path", ["/v1/models", CHAT, "/metrics", "/slots", "/props", "/", "/nothing", "//health", "/health/"])
def test_nothing_but_health_is_open(front: Any, path: str) -> None:
    assert front.curl("/health") == (200, '{"status":"ok"}')
    status, body = front.curl(path)
    assert (status, json.loads(body)["error"]["type"]) in ((401, "authentication_error"), (404, "not_found_error"))
    assert status == 401 or "health" in path


def test_wrong_keys_are_refused(front: Any, key: str, server: Any) -> None:
    engine_key = server.file("/etc/llamacpp/instances/main/api-keys").content_string.strip()
    for wrong in ("wrong", key.upper(), key + "x", key[:-1], engine_key):
        assert front.curl("/v1/models", key=wrong)[0] == 401
    with pytest.raises(openai.AuthenticationError):
        front.client("wrong").models.list()


def test_clients_of_other_apis_send_their_key_otherwise(front: Any, key: str) -> None:
    assert front.curl("/v1/models", "-H", f"X-Api-Key: {key}")[0] == 200
    assert front.curl("/v1/models", key=GIVEN)[0] == 200


@pytest.mark.parametrize("name", ["api_key", "key", "access_token", "API-KEY", "a=b&token"])
def test_key_in_a_url_is_refused_and_not_logged(front: Any, key: str, server: Any, name: str) -> None:
    for header in ("", key):
        status, body = front.curl(f"/v1/models?{name}={key}", key=header)
        assert status == 400 and "does not belong into the URL" in body
    assert key not in server.check_output("cat /var/log/nginx/*.log")


@pytest.mark.parametrize(
    "path",
    [
        "/slots", "/props", "/metrics", "/v1/../slots", "/v1/models/../../props", "/v1/%2e%2e/slots", "/v1/models/..%2f..%2fslots",
        "//v1/models", "/v1//models", "/v1/models/", "/v1/models%00", "/V1/models", "/v1/models;/slots", "/%76%31/models", "/cors-proxy",
    ],
)  # fmt: skip
def test_only_what_is_meant_passes(front: Any, key: str, path: str) -> None:
    assert front.curl(path, key=key)[0] in (400, 404)


def test_other_methods_do_not_pass(front: Any, key: str) -> None:
    for method in ("POST", "DELETE", "PUT", "OPTIONS", "TRACE"):
        assert front.curl("/v1/models", "-X", method, key=key)[0] in (404, 405)


def test_engine_and_metrics_are_not_reached_from_outside(server: Any) -> None:
    for port in (8080, 9464):
        with pytest.raises(OSError, match=r"refused|timed out"):
            socket.create_connection((ADDRESS, port), timeout=2).close()
    assert server.run("curl -sf http://127.0.0.1:8080/metrics").rc != 0
    assert "llamacpp:requests_processing" in server.check_output("curl -sf http://127.0.0.1:9464/metrics")


def test_firewall_lets_in_who_is_named(server: Any) -> None:
    import testinfra  # noqa: PLC0415
    from conftest import INVENTORY  # noqa: PLC0415

    mirror = testinfra.get_host("ansible://mirror", ansible_inventory=INVENTORY)
    assert mirror.run(f"timeout 3 bash -c '</dev/tcp/{ADDRESS}/{PORT}'").rc != 0
    assert mirror.run(f"timeout 3 bash -c '</dev/tcp/{ADDRESS}/22'").rc == 0


def test_oversized_request_is_rejected(front: Any, key: str, tmp_path: Any) -> None:
    body = tmp_path / "body"
    body.write_text(json.dumps({"prompt": "x" * 1_100_000}))
    status, answer = front.curl("/v1/completions", *JSON, f"@{body}", key=key)
    assert (status, json.loads(answer)["error"]["code"], json.loads(answer)["error"]["type"]) == (413, 413, "invalid_request_error")


def test_health_takes_no_body_and_no_other_method(front: Any, tmp_path: Any) -> None:
    body = tmp_path / "body"
    body.write_bytes(b"x" * 500_000)
    chunked = ("-H", "Transfer-Encoding: chunked")
    for more in ((), chunked, ("-X", "GET"), ("-X", "GET", *chunked)):
        status, answer = front.curl("/health", *more, "--data-binary", f"@{body}")
        assert status in (405, 413) and json.loads(answer)["error"]["code"] == status
    assert front.curl("/health", "-X", "DELETE")[0] == 405
    assert front.curl("/health", "-I")[0] == 200
    assert front.curl("/health", "-X", "GET", "--data-binary", "x") == (200, '{"status":"ok"}')


def connect(front: Any, receive_bytes: int = 0) -> ssl.SSLSocket:
    """A connection of its own, with a small window where it takes next to nothing unread."""
    context = ssl.create_default_context(cafile=str(front.authority))
    plain = socket.socket()
    if receive_bytes:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    plain.settimeout(20)
    plain.connect((ADDRESS, PORT))
    return context.wrap_socket(plain, server_hostname=ADDRESS)


def test_what_is_no_request_is_a_bad_one(front: Any) -> None:
    with connect(front) as stranger:
        stranger.sendall(b"garbage\r\n\r\n")
        assert stranger.recv(100).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("part", ["head", "body"])
def test_slow_client_is_let_go(front: Any, key: str, part: str) -> None:
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
    started = time.monotonic()
    with connect(front) as slow:
        slow.sendall(head.encode() if part == "head" else (head + "Content-Length: 1000\r\n\r\n{").encode())
        try:
            answer = slow.recv(100)
        except ConnectionResetError:
            answer = b""
    assert answer == b"" or answer.startswith(b"HTTP/1.1 408")
    assert 4 < time.monotonic() - started < 15


def test_client_that_does_not_read_its_answer_is_let_go(front: Any, key: str, server: Any) -> None:
    """An answer of more bytes than the systems on the way keep: each token comes with those that it might have been."""
    wish = {"model": MODEL, "messages": question(1)["messages"], "max_tokens": LONG, "ignore_eos": True, "stream": True}
    body = json.dumps({**wish, "logprobs": True, "top_logprobs": 20})
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Length: {len(body)}\r\n\r\n"
    count = f"grep -c 'POST {CHAT}\" 200 ' /var/log/nginx/llamacpp-main.log; true"
    answered = int(server.check_output(count))
    with connect(front, receive_bytes=4096) as deaf:
        deaf.sendall((head + body).encode())
        answer = deaf.recv(1000)
        assert answer.startswith(b"HTTP/1.1 200 ")
        # nginx writes its line when it is done with a request, and the engine does not go on for nobody.
        plays.wait_until(lambda: int(server.check_output(count)) > answered, 60)
        plays.wait_until(lambda: metric(front, "requests_processing") == 0, 10)
        with contextlib.suppress(OSError):
            while part := deaf.recv(65536):
                answer += part
    assert b"[DONE]" not in answer
    assert front.curl("/v1/models", key=key)[0] == 200


def test_more_requests_than_are_allowed_are_refused_and_health_is_not(front: Any, key: str) -> None:
    """Requests whose body does not end; a part of it now and then keeps them from being late."""
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Length: 100000\r\n\r\n"
    with contextlib.ExitStack() as open_requests:
        held: list[ssl.SSLSocket] = []
        for _number in range(MAX_REQUESTS):
            held.append(open_requests.enter_context(connect(front)))
            held[-1].sendall(head.encode())
            for each in held:
                each.sendall(b" ")
        plays.wait_until(lambda: front.curl("/v1/models", key=key)[0] == 429, 10)
        error = json.loads(front.curl("/v1/models", key=key)[1])["error"]
        assert (error["code"], error["type"]) == (429, "rate_limit_error")
        assert front.curl("/health")[0] == 200
        with pytest.raises(openai.RateLimitError):
            front.client(key).models.list()
    plays.wait_until(lambda: front.curl("/v1/models", key=key)[0] == 200, 10)


def memory(server: Any) -> int:
    """Resident bytes of nginx and the engine."""
    text = server.check_output(
        "for each in /proc/[0-9]*; do read -r name < $each/comm;"
        " case $name in nginx|llama-server) grep VmRSS $each/status;; esac; done 2> /dev/null; true"
    )
    return 1024 * sum(int(line.split()[1]) for line in text.splitlines())


def test_sixty_four_streams_at_once(front: Any, key: str, server: Any) -> None:
    """For a while, so that what is kept of every request would show."""

    def streams(until: float) -> list[int]:
        client, told = front.client(key, timeout=600), []
        while not told or time.monotonic() < until:
            told.append(sum(1 for _part in client.chat.completions.create(**question(6), stream=True)))
        return told

    over, health = threading.Event(), []

    def balance() -> None:
        """Asks as a load balancer does; the log has nothing of that."""
        while not over.wait(0.5):
            health.append(front.curl("/health")[0])

    log = "/var/log/nginx/llamacpp-main.log"
    lines = int(server.check_output(f"wc -l < {log}"))
    balancer = threading.Thread(target=balance)
    with concurrent.futures.ThreadPoolExecutor(64) as pool, contextlib.ExitStack() as stack:
        stack.callback(balancer.join)
        stack.callback(over.set)
        balancer.start()
        first = list(pool.map(streams, [time.monotonic() + WARM_SECONDS] * 64))
        before = memory(server)
        later = list(pool.map(streams, [time.monotonic() + LOAD_SECONDS] * 64))
    grown = memory(server) - before
    answers = [parts for told in first + later for parts in told]
    print(f"{len(answers)} streams, 64 at once, memory of nginx and engine {before / 1e6:.0f} MB, then {grown / 1e6:+.1f} MB")
    assert min(answers) >= 6
    assert grown < 0.05 * before
    told = server.check_output(f"tail -n +{lines + 1} {log} | cut -d'\"' -f3 | cut -d' ' -f2 | sort -u").split()
    assert told == ["200"], f"{URL} has answered {told}"
    assert len(health) > 10 and set(health) == {200}, health
