# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""TLS and a token, switched on for the mirror that the site has: who may ask, and that nothing tells the token."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import FETCH, MIRROR, PATIENCE, QUANT, TINY, original, published

URL = f"https://{MIRROR}"
TOKEN = "lab-3f1c.9a_7+tok"
LISTING = f"/api/models/{TINY}/revision/main"
SNAPSHOT = """
import sys
from huggingface_hub import snapshot_download
print(snapshot_download(sys.argv[1], allow_patterns=[sys.argv[2] + "/*"], cache_dir=sys.argv[3], token=sys.argv[4]))
"""


class Secure(NamedTuple):
    """The mirror with TLS and a token: files of the certificate and of the variables, and the output of setting it up."""

    certificate: Path
    variables: Path
    output: str

    @property
    def environment(self) -> dict[str, str]:
        """Of clients that trust the certificate and know the mirror."""
        kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        return {**kept, "HF_ENDPOINT": URL, "HF_HUB_DISABLE_XET": "1", "SSL_CERT_FILE": str(self.certificate)}

    def curl(self, *arguments: str, token: str = "") -> str:
        header = ["-H", f"Authorization: Bearer {token}"] if token else []
        command = ["curl", "-s", "--cacert", str(self.certificate), *header, *arguments]
        return subprocess.run(command, capture_output=True, check=True).stdout.decode("latin-1")


@pytest.fixture(scope="module")
def secure(play: Any, tmp_path_factory: pytest.TempPathFactory) -> Secure:
    folder = tmp_path_factory.mktemp("secure")
    certificate, key, variables = folder / "certificate.pem", folder / "key.pem", folder / "secrets.json"
    subject = ["-subj", "/CN=mirror", "-addext", f"subjectAltName=IP:{MIRROR}", "-addext", "keyUsage=critical,digitalSignature,keyCertSign"]
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*made, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    secrets = {"certificate": certificate.read_text(), "key": key.read_text()}
    named = {f"llama_mirror_tls_{name}": text for name, text in secrets.items()}
    variables.write_text(json.dumps({**named, "llama_mirror_token": TOKEN}))
    run = play("--diff", "-v", "-e", f"@{variables}", playbook="playbooks/mirror.yml")
    assert run.status == 0, run.output[-3000:]
    return Secure(certificate, variables, run.output)


@pytest.mark.parametrize(
    ("token", "status", "message"),
    [
        pytest.param(TOKEN, "200", "", id="the token"),
        pytest.param("", "401", "Invalid username or password.", id="none"),
        pytest.param("wrong", "401", "Invalid credentials in Authorization header", id="a wrong one"),
        pytest.param(TOKEN.upper(), "401", "Invalid credentials in Authorization header", id="in other letters"),
        pytest.param(TOKEN + "x", "401", "Invalid credentials in Authorization header", id="one letter more"),
    ],
)
@pytest.mark.parametrize("path", [LISTING, f"/{TINY}/resolve/main/nothing", "/", "/api/blocks/x.json"])
def test_only_the_token_opens(secure: Secure, path: str, token: str, status: str, message: str) -> None:
    head = secure.curl("-o", "/dev/null", "-D", "-", f"{URL}{path}", token=token)
    lines = dict(line.split(": ", 1) for line in head.splitlines()[1:] if ": " in line)
    found = head.split()[1]
    assert found == status or (status == "200" and path != LISTING and found == "404"), head
    assert lines.get("X-Error-Message", "") == message
    assert ("WWW-Authenticate" in lines) == (status == "401")


def test_nothing_tells_the_token_or_the_key(secure: Secure, on_host: Any) -> None:
    mirror = on_host("mirror")
    key = json.loads(secure.variables.read_text())["llama_mirror_tls_key"].splitlines()[1]
    assert TOKEN not in secure.output and key not in secure.output
    with mirror.sudo():
        for name in ("callers.conf", "key.pem"):
            file = mirror.file(f"/etc/llamacpp/mirror/{name}")
            assert (file.user, file.mode) == ("root", 0o600)
        # Looked for here, because a command that names it would be logged there.
        told = mirror.check_output("journalctl --no-pager; cat /var/log/nginx/*.log; cat /etc/nginx/conf.d/* /etc/nginx/nginx.conf")
    assert TOKEN not in told and key not in told


def test_hf_downloads_a_quant(secure: Secure, on_host: Any, tmp_path: Path) -> None:
    command = ["hf", "download", TINY, "--include", "UD-TQ1_0/*", "--local-dir", str(tmp_path)]
    environment = {**secure.environment, "HF_TOKEN": TOKEN}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in tmp_path.glob("UD-TQ1_0/*.gguf")}
    assert found == original(on_host("hub"), TINY, "UD-TQ1_0")


@pytest.mark.parametrize(("token", "works"), [(TOKEN, True), ("wrong", False)])
def test_the_hubs_library_takes_a_snapshot(secure: Secure, on_host: Any, tmp_path: Path, token: str, works: bool) -> None:
    command = [sys.executable, "-c", SNAPSHOT, TINY, QUANT, str(tmp_path), token]
    done = subprocess.run(command, env=secure.environment, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode == 0) == works, done.stderr[-2000:]
    if works:
        folder = Path(done.stdout.splitlines()[-1])
        found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob(f"{QUANT}/*.gguf")}
        assert found == original(on_host("hub"), TINY)
    else:
        assert "401" in done.stderr


def test_curl_fetches_a_range(secure: Secure, on_host: Any) -> None:
    name = sorted(original(on_host("hub"), TINY))[0]
    assert secure.curl("-r", "0-3", f"{URL}/{TINY}/resolve/main/{QUANT}/{name}", token=TOKEN) == "GGUF"


def test_a_host_of_the_site_finds_address_and_token_by_itself(secure: Secure, play: Any, on_host: Any) -> None:
    host = on_host("d")
    with host.sudo():
        text = secure.certificate.read_text()
        host.check_output(f"printf %s '{text}' > /usr/local/share/ca-certificates/mirror.crt && update-ca-certificates")
    arguments = ("--limit", "d", "-e", "quant=UD-TQ1_0", "-e", f"@{secure.variables}")
    run = play(*arguments, "-v", playbook=FETCH, SSL_CERT_FILE=str(secure.certificate))
    assert run.status == 0, run.output[-3000:]
    assert TOKEN not in run.output
    assert published(host, TINY, "UD-TQ1_0") == original(on_host("hub"), TINY, "UD-TQ1_0")
