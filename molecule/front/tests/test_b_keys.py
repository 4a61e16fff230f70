# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys change while clients ask, a host goes out of service while answers run, and nothing tells a key.

The tests follow one another: each begins with what the one before has left.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import json
import secrets
import ssl
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any, Optional

import openai
import pytest
from conftest import ADDRESS, GIVEN, INVENTORY, PORT, URL, question
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

KEYS, STATUS = "playbooks/keys.yml", "playbooks/status.yml"
OWN_KEYS = "/etc/llamacpp/instances/main/api-keys"
BARE = ("-e", "llama_server_front=none", "-e", "llama_server_firewall=none")
EVERYTHING = ("-e", "llama_remove_instances=all", "-e", "llama_remove_engines=true", "-e", "llama_remove_models=true")
USAGES = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "key_cert_sign", "crl_sign",
    "encipher_only", "decipher_only",
)  # fmt: skip
QUESTION = "Which-marmalade-did-the-harbour-master-hide"


class Asking(threading.Thread):
    """A client that asks on and on, what needs no slot of the engine; what it was answered that was no answer."""

    def __init__(self, front: Any, key: str) -> None:
        super().__init__(daemon=True)
        self.front, self.key, self.answers, self.failures, self.over = front, key, 0, [], False

    def run(self) -> None:
        while not self.over:
            try:
                self.answers += self.ask(self.front.client(self.key))
            except openai.OpenAIError as error:
                self.failures.append(repr(error))

    @staticmethod
    def ask(client: openai.OpenAI) -> int:
        return len(client.models.list().data)

    def __enter__(self) -> Asking:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.over = True
        self.join(60)


class Streaming(Asking):
    """The same with a short answer each time, which must come whole."""

    @staticmethod
    def ask(client: openai.OpenAI) -> int:
        return [part.choices[0].finish_reason for part in client.chat.completions.create(**question(6), stream=True)][-1] == "length"


class Story(threading.Thread):
    """An answer that is being streamed, long enough to run for a while on whatever machine."""

    SECONDS, SAMPLE, LONGEST = 12, 24, 1800

    def __init__(self, front: Any, key: str) -> None:
        super().__init__(daemon=True)
        self.parts, self.failure = 0, ""
        self.begun = threading.Event()
        started = time.monotonic()
        front.client(key).chat.completions.create(**question(self.SAMPLE))
        self.tokens = min(self.LONGEST, int(self.SAMPLE * self.SECONDS / (time.monotonic() - started)))
        self.stream = front.client(key).chat.completions.create(**question(self.tokens), stream=True)
        self.start()

    @property
    def whole(self) -> bool:
        """Whether it came to its end. A part may have several tokens, when they make one letter."""
        return not self.is_alive() and not self.failure and self.parts > self.tokens / 2

    def run(self) -> None:
        try:
            for _part in self.stream:
                self.parts += 1
                self.begun.set()
        except openai.OpenAIError as error:
            self.failure = repr(error)


@pytest.fixture(name="watched")
def fixture_watched(front: Any, play: Any, server: Any) -> Any:
    """Runs a playbook with all that Ansible can show, and looks there for every key that the host has had before or has after."""

    def run(*arguments: str, **more: Any) -> Any:
        before = known(server)
        done = play("-vvv", "--diff", *arguments, **more)
        keys = {GIVEN, *before, *known(server)}
        assert not [number for number, key in enumerate(sorted(keys)) if key in done.output]
        assert len(keys) > 1 and "Using module file" in done.output
        return done

    return run


def known(server: Any) -> list[str]:
    """Every key on the host: the engine's and those of clients."""
    return list(
        server.check_output("cat /etc/llamacpp/instances/main/api-keys /etc/llamacpp/front/main/clients/* 2> /dev/null; true").split()
    )


def lists(front: Any, key: str) -> Optional[int]:
    """The status of a small request with a key."""
    status: int = front.curl("/v1/models", key=key)[0]
    return status


def test_key_changes_without_a_failed_request(front: Any, watched: Any) -> None:
    (old,), (other,) = front.keys("chat"), front.keys("search")
    story = Story(front, old)
    with Asking(front, old) as asking, Asking(front, other) as another:
        assert watched("-e", '{"llama_server_front_rotate": ["chat"]}', playbook=KEYS).status == 0
        new, still = front.keys("chat")
        assert still == old and lists(front, old) == lists(front, new) == 200
        again = watched("-e", '{"llama_server_front_rotate": ["chat"]}', playbook=KEYS)
        assert (again.stats["one"]["changed"], front.keys("chat")) == (0, [new, old])
        asking.key = new
        time.sleep(1)  # the last request with the old key is answered
        assert watched("-e", '{"llama_server_front_retire": ["chat"]}', playbook=KEYS).status == 0
        assert (lists(front, old), lists(front, new), lists(front, other)) == (401, 200, 200)
    print(f"{asking.answers} and {another.answers} answers while the key changed")
    assert asking.answers > 0 and another.answers > 0
    assert asking.failures == another.failures == []
    # It began before the change, and the end of the key it was asked with is not its end.
    story.join(300)
    assert story.whole, story.failure


def test_one_client_is_refused_and_nobody_else(front: Any, watched: Any, server: Any) -> None:
    search = front.keys("search")[0]
    process = server.check_output("systemctl show -p MainPID,NRestarts llamacpp@main")
    left = json.dumps({"llama_server_front_keys": [{"name": "chat"}, {"name": "batch", "key": GIVEN}]})
    assert watched("-e", left, playbook=KEYS).status == 0
    assert (lists(front, search), lists(front, GIVEN)) == (401, 200)
    assert watched(playbook=KEYS).status == 0
    assert front.keys("search")[0] != search
    assert server.check_output("systemctl show -p MainPID,NRestarts llamacpp@main") == process


def test_host_goes_out_of_service_and_answers_under_way_finish(front: Any, play: Any) -> None:
    key = front.keys("chat")[0]
    story = Story(front, key)
    assert story.begun.wait(30)
    run = play("-e", "llama_server_drain_seconds=300", playbook="playbooks/drain.yml")
    assert run.status == 0 and run.stats["one"]["changed"] == 1, run.output[-2000:]
    story.join(5)
    assert story.whole, story.failure  # drain.yml has waited for it
    assert front.curl("/health")[0] == 503
    assert front.curl("/v1/models", key=key)[0] == 503
    assert front.curl("/v1/models")[0] == 401
    assert play(playbook="playbooks/drain.yml").stats["one"]["changed"] == 0
    # A deployment leaves it to the operator, and a check says so.
    assert play("--check").stats["one"]["changed"] == 0
    assert play(playbook="playbooks/undrain.yml").stats["one"]["changed"] == 1
    assert front.curl("/health")[0] == lists(front, key) == 200


def test_host_that_a_killed_rollout_has_left_out_of_service_comes_back(front: Any, play: Any, server: Any) -> None:
    server.check_output("/usr/local/libexec/llamacpp/llamacpp-switch drain --instance main --by rollout")
    assert front.curl("/health")[0] == 503
    run = play()
    assert (run.status, run.stats["one"]["changed"]) == (0, 1), run.output[-3000:]
    assert "An interrupted rollout had left one out of service; it takes requests again." in run.text
    assert front.curl("/health")[0] == lists(front, front.keys("chat")[0]) == 200


def test_host_that_cannot_be_reached_is_told_by_the_exit_status(play: Any) -> None:
    run = play("-e", "ansible_port=9", playbook=STATUS)
    assert run.status == 2 and "it cannot be reached" in run.text, run.output[-2000:]


def test_expired_certificate_stops_a_switch_before_the_server_and_says_so(front: Any, play: Any, server: Any) -> None:
    shown = "systemctl show -p MainPID --value llamacpp@main"
    before = server.check_output(shown)
    current = server.check_output("basename $(readlink /etc/llamacpp/instances/main/current)")
    folder = "/etc/llamacpp/front/main"
    server.check_output(f"cat > {folder}/certificate.pem <<'END'\n{expired(server.file(f'{folder}/key.pem').content_string)}END")
    server.check_output("systemctl reload nginx")
    done = server.run(f"/usr/local/libexec/llamacpp/llamacpp-switch run --instance main --to {current} --restart")
    assert done.rc == 1
    reason = json.loads(server.file("/var/lib/llamacpp/instances/main/switch.json").content_string)["reason"]
    assert reason.startswith("the certificate of https://10.88.0.11:8443 has expired (since ")
    assert server.check_output(shown) == before
    # The next run makes a certificate that will do.
    run = play()
    assert run.status == 0, run.output[-3000:]
    assert front.curl("/health")[0] == 200


def expired(key: str) -> str:
    """A certificate for a key that ended a year ago."""
    private = serialization.load_pem_private_key(key.encode(), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "10.88.0.11")])
    end = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=365)
    builder = x509.CertificateBuilder(name, name, private.public_key(), 1, end - datetime.timedelta(days=30), end)
    return builder.sign(private, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


@pytest.fixture(name="secrets")
def fixture_secrets(front: Any, server: Any) -> list[str]:
    engine = server.file("/etc/llamacpp/instances/main/api-keys").content_string.split()
    return [GIVEN, *engine, *front.keys("chat"), *front.keys("search")]


def test_second_run_changes_nothing_and_tells_no_key(play: Any, secrets: list[str]) -> None:
    run = play("-vvv", "--diff")
    assert run.status == 0 and run.stats["one"]["changed"] == 0, run.output[-3000:]
    assert not [secret for secret in secrets if secret in run.output]


def test_nothing_on_the_host_tells_a_key_or_a_question(front: Any, server: Any, secrets: list[str]) -> None:
    asked = {**question(8), "messages": [{"role": "user", "content": QUESTION}]}
    assert front.client(front.keys("chat")[0]).chat.completions.create(**asked).choices[0].message.content
    # In a way that the search itself is not found.
    pattern = f"[{QUESTION[0]}]{QUESTION[1:]}"
    assert server.run(f"grep -rl '{pattern}' /var/cache/llamacpp /var/lib/llamacpp /var/log /tmp").stdout == ""
    # Looked for here, because a command that names one would be logged there.
    told = server.check_output(
        "journalctl --no-pager; cat /var/log/nginx/*.log /etc/nginx/nginx.conf /etc/nginx/conf.d/*; systemctl show llamacpp@main nginx;"
        " cat /var/lib/llamacpp/instances/main/*.json /var/lib/llamacpp/instances/main/*/*.json /etc/llamacpp/instances/main/current/*.*;"
        " for each in /proc/[0-9]*; do tr '\\0' ' ' < $each/cmdline; tr '\\0' ' ' < $each/environ; done 2> /dev/null"
    )
    assert not [number for number, secret in enumerate(secrets) if secret in told]
    assert QUESTION not in told
    for path in server.check_output("find /etc/llamacpp/front /etc/llamacpp/instances -type f -name '*key*' -o -path '*clients/*'").split():
        assert (server.file(path).user, server.file(path).mode) == ("root", 0o600), path


def test_unit_is_as_closed_as_before(server: Any) -> None:
    told = server.check_output("systemd-analyze security llamacpp@main --no-pager | tail -n 1")
    assert float(told.split("exposure level for llamacpp@main.service:")[1].split()[0]) <= 1.0, told


def test_quant_changes_without_a_failed_request(front: Any, watched: Any, server: Any) -> None:
    """Both servers have room, so the new one is gated beside the old one; streams that have begun come to their end."""
    key = front.keys("chat")[0]
    streams = [Streaming(front, key) for _number in range(4)]
    with contextlib.ExitStack() as under, Asking(front, key) as asking:
        for stream in streams:
            under.enter_context(stream)
        run = watched("-e", "quant=UD-TQ1_0")
    assert run.status == 0, run.output[-3000:]
    journal = json.loads(server.check_output("/usr/local/libexec/llamacpp/llamacpp-switch status --instance main"))
    assert journal["overlap"]["chosen"] and journal["gap_seconds"] == 0.0, journal
    assert json.loads(server.file("/etc/llamacpp/instances/main/current/deployment.json").content_string)["quant"] == "UD-TQ1_0"
    print(f"{asking.answers} answers and {sum(stream.answers for stream in streams)} streams while the quant changed")
    assert [failure for each in (asking, *streams) for failure in each.failures] == []
    assert asking.answers > 3 and all(stream.answers > 3 for stream in streams)


def test_key_that_the_engine_has_not_read_is_refused_and_nobody_notices(front: Any, watched: Any, server: Any) -> None:
    shown = "cat /etc/llamacpp/front/main/engine-key.conf"
    before, new = (server.check_output(f"cat {OWN_KEYS}"), server.check_output(shown)), secrets.token_hex(32)
    with Asking(front, front.keys("chat")[0]) as asking:
        run = watched("-e", "quant=UD-TQ1_0", "-e", json.dumps({"llama_server_api_keys": [new]}))
        assert run.status == 2 and "llama_server_api_keys must begin with a key that the running engine of main has read" in run.text
        assert new not in run.output
        # A file that is gone is made of what nginx shows, which the engine knows.
        server.check_output(f"rm {OWN_KEYS}")
        assert watched(playbook=KEYS).status == 0
        assert (server.check_output(f"cat {OWN_KEYS}"), server.check_output(shown)) == before
    assert asking.answers > 0 and asking.failures == []


def test_given_certificate_is_served_and_the_gate_trusts_its_authority(front: Any, watched: Any, server: Any, tmp_path: Path) -> None:
    """With a change of quant, through whose gate the host asks as a client does."""
    authority, certificate, private = given_certificate()
    (tmp_path / "ca.pem").write_text(authority)
    server.check_output(f"cat > /etc/ssl/lab-authority.pem <<'END'\n{authority}END")
    given = {
        "llama_server_front_tls": "given",
        "llama_server_front_tls_certificate": certificate,
        "llama_server_front_tls_key": private,
        "llama_server_front_tls_ca": "/etc/ssl/lab-authority.pem",
    }
    run = watched("-e", json.dumps(given))
    assert run.status == 0, run.output[-3000:]
    assert private.splitlines()[1] not in run.output
    assert ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate((ADDRESS, PORT))) == ssl.PEM_cert_to_DER_cert(certificate)
    asked = urllib.request.Request(f"{URL}/v1/models", headers={"Authorization": f"Bearer {front.keys('chat')[0]}"})
    with urllib.request.urlopen(asked, context=ssl.create_default_context(cafile=str(tmp_path / "ca.pem")), timeout=30) as answer:
        assert answer.status == 200
    assert front.curl("/health")[0] == 0  # the host's own authority has no part in it
    gate = json.loads(server.check_output("/usr/local/libexec/llamacpp/llamacpp-switch status --instance main"))["gate"]
    assert gate["reachable"] == URL and "authority" not in str(gate["warnings"]), gate
    again = watched("-e", json.dumps(given))
    assert (again.status, again.stats["one"]["changed"]) == (0, 0), again.output[-3000:]


def given_certificate() -> tuple[str, str, str]:
    """An authority, a certificate of it for the front's address, and its key."""
    now, usages = datetime.datetime.now(datetime.timezone.utc), dict.fromkeys(USAGES, False)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name, name = (x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)]) for text in ("lab authority", ADDRESS))

    def signed(subject: x509.Name, public: Any, *extensions: tuple[x509.ExtensionType, bool]) -> str:
        builder = x509.CertificateBuilder(ca_name, subject, public, x509.random_serial_number(), now, now + datetime.timedelta(days=90))
        for extension, critical in (*extensions, (x509.SubjectKeyIdentifier.from_public_key(public), False)):
            builder = builder.add_extension(extension, critical)
        return builder.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()

    authority = signed(
        ca_name,
        ca_key.public_key(),
        (x509.BasicConstraints(ca=True, path_length=None), True),
        (x509.KeyUsage(**{**usages, "key_cert_sign": True}), True),
    )
    certificate = signed(
        name,
        key.public_key(),
        (x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(ADDRESS))]), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), False),
    )
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return authority, certificate, key.private_bytes(*form).decode()


def test_without_a_front_again(play: Any, watched: Any, server: Any, front: Any) -> None:
    # As where a host is deployed for the first time: the engine's key is made in this run.
    before = known(server)
    server.check_output("rm /etc/llamacpp/instances/main/api-keys")
    run = watched(*BARE)
    assert run.status == 0, run.output[-3000:]
    assert front.curl("/health")[0] == 0
    assert set(server.file("/etc/llamacpp/instances/main/api-keys").content_string.split()).isdisjoint(before)
    assert not server.file("/etc/nginx/conf.d/llamacpp-main.conf").exists
    assert "llamacpp-main" not in server.check_output("nft list tables")
    assert INVENTORY and play(*BARE).stats["one"]["changed"] == 0
    drained = play(playbook="playbooks/drain.yml")
    assert drained.status == 2 and "one has no front (llama_server_front)" in drained.text, drained.output[-2000:]


def test_keys_without_a_front_change_in_one_restart_each(watched: Any, server: Any) -> None:
    (old,), new = server.file(OWN_KEYS).content_string.split(), secrets.token_hex(32)
    process = "systemctl show -p MainPID --value llamacpp@main"
    starts = "journalctl --no-pager -o cat -u llamacpp@main | grep -c '^Started '"
    for keys, statuses in (([new, old], ["200", "200"]), ([new], ["401", "200"])):
        before, started = server.check_output(process), int(server.check_output(starts))
        run = watched(*BARE, "-e", json.dumps({"llama_server_api_keys": keys}))
        assert run.status == 0, run.output[-3000:]
        assert "its API keys have been changed since it was started" in run.text
        assert server.check_output(process) != before and int(server.check_output(starts)) == started + 1
        asked = "curl -s -o /dev/null -w '%{{http_code}}' -H 'Authorization: Bearer {}' http://127.0.0.1:8080/props"
        assert [server.check_output(asked.format(key)) for key in (old, new)] == statuses


def test_removal_touches_nothing_of_others(front: Any, play: Any, server: Any) -> None:
    assert play().status == 0 and front.curl("/health")[0] == 200
    theirs = {
        "/etc/nginx/conf.d/other.conf": "server { listen 127.0.0.1:8099; location / { return 200 theirs; } }",
        "/etc/llamacpp/theirs.conf": "theirs",
        "/etc/systemd/system/llamacpp-theirs.service": "[Service]\nExecStart=/bin/true",
        "/opt/llamacpp/theirs/program": "theirs",
        "/usr/local/libexec/theirs": "theirs",
        "/var/lib/llamacpp/models/theirs/own.gguf": "theirs",
        "/var/lib/llamacpp/models/onprem--Tiny-Kimi-K2-GGUF/own.gguf": "theirs",
        "/var/log/nginx/other.log": "theirs",
    }
    for path, text in theirs.items():
        server.check_output(f"mkdir -p $(dirname {path}) && printf '%s\\n' '{text}' > {path}")
    server.check_output("systemctl reload nginx")
    files = f"for each in {' '.join(theirs)}; do stat -c '%n %a %U %Y' $each; sha256sum $each; done"
    before = server.check_output(files)
    run = play(*EVERYTHING, playbook="playbooks/remove.yml")
    assert run.status == 0, run.output[-3000:]
    assert server.check_output(files) == before
    assert server.check_output("curl -s http://127.0.0.1:8099/") == "theirs"
    left = server.check_output("find /etc/llamacpp /opt/llamacpp /var/lib/llamacpp /etc/nginx/conf.d -type f").split()
    assert set(left) <= set(theirs) and front.curl("/health")[0] == 0
