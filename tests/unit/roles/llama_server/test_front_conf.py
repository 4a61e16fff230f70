# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The front's site: what passes, where it listens, and that it holds no secret. That nginx reads it is for the scenario front."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml

ROLE = Path(__file__).resolve().parents[4] / "roles/llama_server"
FOLDER = "/etc/llamacpp/front/my-model"


def rendered(**more: Any) -> str:
    environment = jinja2.Environment(trim_blocks=True, undefined=jinja2.StrictUndefined)
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    values = {
        **defaults,
        "ansible_managed": "Ansible managed",
        "llama_server_instance": "my-model",
        "_llama_server_front_folder": FOLDER,
        "_llama_server_front_drained": "/var/lib/llamacpp/instances/my-model/drained",
        "_llama_server_front_listen": "0.0.0.0:8443",
        "_llama_server_front_metrics_listen": "127.0.0.1:9464",
        "_llama_server_front_metrics_guarded": False,
        "_llama_server_front_tls": True,
        "_llama_server_front_certificate": f"{FOLDER}/certificate.pem",
        "_llama_server_front_key": f"{FOLDER}/key.pem",
        "_llama_server_front_peers": [],
        **more,
    }
    return environment.from_string((ROLE / "templates/front.conf.j2").read_text()).render(values)


def passes(text: str, request: str) -> bool:
    """Whether a method with a path is among the routes, as nginx would compare it."""
    block = text.split("_route {", 1)[1].split("}", 1)[0]
    return any(re.search(expression, request) for expression in re.findall(r'"~(\^.*)" 1;', block))


@pytest.mark.parametrize(
    "request_line",
    ["GET /v1/models", "POST /v1/chat/completions", "POST /v1/messages?beta=true", "POST /v1/messages/count_tokens", "POST /tokenize"],
)
def test_what_is_meant_passes(request_line: str) -> None:
    assert passes(rendered(), request_line)


@pytest.mark.parametrize(
    "request_line",
    [
        "POST /v1/models", "GET /slots", "GET /props", "GET /metrics", "GET /v1/models/", "GET //v1/models", "GET /v1/../slots",
        "GET /v1/models/../../slots", "GET /v1/models%2f..", "POST /v1/chat/completions/control", "GET /V1/models", "POST /slots/0",
    ],
)  # fmt: skip
def test_nothing_else_passes(request_line: str) -> None:
    assert not passes(rendered(), request_line)


@pytest.mark.parametrize("query", ["api_key=x", "key=x", "a=b&access-token=x", "API_KEY=x", "token="])
def test_key_in_a_query_is_seen(query: str) -> None:
    expression = re.search(r'"~\*(\(.*=)" 1;', rendered())
    assert expression and re.search(expression[1], query, re.IGNORECASE)
    assert not re.search(expression[1], "beta=true&monkey=x", re.IGNORECASE)


def test_clients_and_prometheus_do_not_meet() -> None:
    text = rendered(llama_server_metrics=True)
    clients, metrics = text.split("\nserver {")[1:]
    assert "listen 0.0.0.0:8443 ssl;" in clients and "/metrics" not in clients
    assert "listen 127.0.0.1:9464;" in metrics and "return 401" not in metrics
    assert rendered().count("\nserver {") == 1


def test_metrics_on_another_address_are_guarded() -> None:
    metrics = rendered(llama_server_metrics=True, _llama_server_front_metrics_guarded=True).split("\nserver {")[2]
    assert "listen 127.0.0.1:9464 ssl;" in metrics and 'if ($llamacpp_my_model_client = "")' in metrics


def location(text: str, name: str) -> str:
    """What stands in a location of the clients' server."""
    return text.split(f"    location {name} {{\n", 1)[1].split("\n    }\n", 1)[0]


def test_health_takes_nothing_from_whoever_asks_without_a_key() -> None:
    health = location(rendered(), "= /health")
    methods = re.search(r'if \(\$request_method !~ "(.*)"\) \{(?:\n.*?){1,2}\n +return (\d+) ', health)
    assert methods and methods[2] == "405" and health.index(methods[0]) < health.index("proxy_pass ")
    assert [method for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "GETX") if re.search(methods[1], method)] == ["GET", "HEAD"]
    for line in (
        "client_max_body_size 1k;",
        "client_body_buffer_size 1k;",
        "proxy_pass_request_body off;",
        'proxy_set_header Content-Length "";',
    ):
        assert f"        {line}\n" in health, line
    zone = re.search(r"limit_conn (\w+) \d+;", health)
    # Not that of clients, who could otherwise be shut out without a key.
    assert zone and f"limit_conn_zone $binary_remote_addr zone={zone[1]}:" in rendered()
    assert zone[1] not in location(rendered(), "/")


@pytest.mark.parametrize("status", [403, 405, 408, 413, 429, 500, 504])
def test_what_nginx_itself_refuses_is_told_as_the_api_tells_errors(status: int) -> None:
    text = rendered()
    server = text.split("\nserver {", 1)[1].split("\n    location", 1)[0]
    assert re.search(rf"error_page [\d ]*\b{status}\b[\d ]* @refused;", server)
    # A list of a location's own would take the place of the server's.
    assert "error_page" not in location(text, "/")
    said = dict(re.findall(r"^    (\w+) '(\"[^']*)';", text.split("_refusal {", 1)[1].split("}", 1)[0], re.MULTILINE))
    returned = re.search(r"return 200 '(.*)';", location(text, "@refused"))
    assert returned
    body = returned[1].replace("$status", str(status)).replace("$llamacpp_my_model_refusal", said.get(str(status), said["default"]))
    error = json.loads(body)["error"]
    assert error["code"] == status and error["message"] and error["type"].endswith("_error")


def test_every_answer_of_the_front_is_json() -> None:
    answers = re.findall(r"return \d+ '(.*)';", rendered())
    assert len(answers) > 5
    for answer in answers:
        assert json.loads(answer.replace("$status", "413").replace("$llamacpp_my_model_refusal", '"x","type":"y"'))["error"]


def test_peers_are_let_in_and_others_not() -> None:
    text = rendered(_llama_server_front_peers=["127.0.0.0/8", "10.1.0.0/16"])
    assert "allow 10.1.0.0/16;" in text and "deny all;" in text
    assert "deny all;" not in rendered()


def test_all_addresses_are_those_of_both_families() -> None:
    everywhere = {"llama_server_front_address": "::", "_llama_server_front_listen": "[::]:8443"}
    assert "listen [::]:8443 ssl ipv6only=off;" in rendered(**everywhere)
    assert "ipv6only" not in rendered(llama_server_metrics=True)


def test_without_tls_there_is_no_certificate() -> None:
    text = rendered(_llama_server_front_tls=False)
    assert "listen 0.0.0.0:8443;" in text and "ssl" not in text


@pytest.mark.parametrize(("tls", "trusted"), [("none", ""), ("internal", "/etc/llamacpp/front/ca.pem"), ("given", "/etc/company.pem")])
def test_gate_trusts_the_authority_of_the_certificate(tls: str, trusted: str) -> None:
    expression = yaml.safe_load((ROLE / "vars/main.yml").read_text())["_llama_server_front_ca"]
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined)
    values = {"llama_server_front_tls": tls, "llama_server_front_tls_ca": "/etc/company.pem"}
    assert environment.from_string(expression).render(values) == trusted
