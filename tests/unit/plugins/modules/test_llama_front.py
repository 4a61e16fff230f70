# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The front's files: all of them or none, loaded once, secrets in files of root alone and in nothing that is returned."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any, Union

import pytest

from ansible_collections.onprem.llamacpp.plugins.module_utils import _certificate, _front, _host, _instance
from ansible_collections.onprem.llamacpp.plugins.modules import llama_front, llama_front_keys

GIVEN = "lab-0f5e.7c_91+batch"


class Nginx:
    """Accepts configurations or refuses them; what it was asked."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.refuses = False

    def __call__(self, argv: list[str], *_more: Any) -> tuple[int, str, str]:
        self.calls.append(" ".join(argv))
        refused = self.refuses and argv[-2:] == ["-t", "-q"]
        return (1, "", "nginx: [emerg] unknown directive\n") if refused else (0, "", "")

    def loads(self) -> int:
        return sum("reload-or-restart" in call for call in self.calls)


@pytest.fixture(name="nginx")
def fixture_nginx():
    return Nginx()


@pytest.fixture(name="front")
def fixture_front(tmp_path, nginx):
    return _front.Front("main", str(tmp_path / "front"), str(tmp_path / "nginx"), nginx)


@pytest.fixture(name="instance")
def fixture_instance(tmp_path):
    return _instance.Instance("main", str(tmp_path / "instances"), str(tmp_path / "state"))


@pytest.fixture(name="keys")
def fixture_keys(front, instance):
    """Runs the module for the keys, with clients by name and the rest of its parameters."""

    def run(clients: dict[str, tuple[str, ...]], check_mode: bool = False, **more: Any) -> dict[str, Any]:
        listed = [dict(zip(("name", "key", "previous_key"), (name, *given, "", ""))) for name, given in clients.items()]
        params = {"clients": listed, "rotate": [], "retire": [], "engine_key": True, "engine_keys": [], **more}
        result: dict[str, Any] = llama_front_keys.apply(params, check_mode, front, instance)
        return result

    return run


@pytest.fixture(name="put")
def fixture_put(front, monkeypatch):
    """Runs the module for the site."""
    monkeypatch.setattr(llama_front._processes, "listeners", lambda _ports: [])
    monkeypatch.setattr(llama_front, "engine_port", lambda _name, wish: wish)

    def run(check_mode: bool = False, **more: Any) -> dict[str, Any]:
        plain = {"state": "present", "site": "server {}\n", "engine_port": 8080, "ports": [8443], "tls": "none", "names": ["10.0.0.1"]}
        params = {**plain, "certificate": "", "private_key": "", "remove": [], **more}
        result: dict[str, Any] = llama_front.apply(params, check_mode, front)
        return result

    return run


def tree(root: Union[str, Path]) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in sorted(Path(root).rglob("*")) if path.is_file()}


def held(front: _front.Front, client: str) -> list[str]:
    return Path(front.clients, client).read_text().split()


def test_keys_are_made_once_and_never_told(front, keys, nginx):
    result = keys({"chat": (), "batch": (GIVEN,)})
    assert result["changed"] and [each["valid"] for each in result["clients"]] == [1, 1]
    (made,) = held(front, "chat")
    assert len(made) == 64 and held(front, "batch") == [GIVEN]
    assert made not in json.dumps(result) and GIVEN not in json.dumps(result)
    assert {os.stat(path).st_mode & 0o777 for path in Path(front.folder).rglob("*") if path.is_file()} == {0o600}
    assert os.stat(front.folder).st_mode & 0o777 == 0o700
    assert nginx.calls == []  # there is no site yet that would read them
    assert keys({"chat": (), "batch": (GIVEN,)})["changed"] is False
    assert held(front, "chat") == [made]


def test_engine_has_a_key_of_its_own(front, keys, instance):
    keys({"chat": ()})
    own = Path(instance.api_keys).read_text().strip()
    assert Path(front.path("engine-key.conf")).read_text() == f'proxy_set_header Authorization "Bearer {own}";\n'
    assert own not in held(front, "chat")


@pytest.fixture(name="engine_runs")
def fixture_engine_runs(keys, put, monkeypatch):
    """The front serves, and the engine has read its key file."""
    keys({"chat": ()}, engine_keys=["old"])
    put()
    monkeypatch.setattr(llama_front_keys._server, "active_state", lambda _name: "active")
    monkeypatch.setattr(llama_front_keys._server, "started_monotonic", lambda _name: time.monotonic() + 1)


@pytest.mark.usefixtures("engine_runs")
def test_key_that_the_engine_has_not_read_is_refused(tmp_path, keys, instance, monkeypatch):
    before = tree(tmp_path)
    for check_mode in (True, False):
        for given in (["new"], ["new", "old"]):
            with pytest.raises(_front.FrontError, match="llama_server_api_keys must begin with a key that the running engine of main has"):
                keys({"chat": ()}, check_mode, engine_keys=given, rotate=["chat"])
    assert tree(tmp_path) == before
    Path(instance.api_keys).write_text("new\n")
    monkeypatch.setattr(llama_front_keys._server, "started_monotonic", lambda _name: 1e-6)  # before the file was written
    with pytest.raises(_front.FrontError, match="api-keys must begin"):
        keys({"chat": ()})
    monkeypatch.setattr(llama_front_keys._server, "active_state", lambda _name: "inactive")
    assert keys({"chat": ()}, engine_keys=["other"])["changed"]


@pytest.mark.usefixtures("engine_runs")
def test_key_of_the_engine_changes_behind_the_old_one(front, keys, instance):
    shown = Path(front.path("engine-key.conf"))
    assert keys({"chat": ()}, engine_keys=["old", "new"])["changed"]
    assert (Path(instance.api_keys).read_text(), '"Bearer old"' in shown.read_text()) == ("old\nnew\n", True)
    assert keys({"chat": ()}, engine_keys=["new"])["changed"]
    assert (Path(instance.api_keys).read_text(), '"Bearer new"' in shown.read_text()) == ("new\n", True)


@pytest.mark.usefixtures("engine_runs")
def test_key_file_that_was_removed_gets_the_key_that_nginx_shows(front, keys, instance):
    before = tree(front.root)
    os.unlink(instance.api_keys)
    assert keys({"chat": ()})["changed"] and Path(instance.api_keys).read_text() == "old\n"
    assert tree(front.root) == before


@pytest.mark.usefixtures("engine_runs")
def test_key_is_shown_to_the_engine_that_may_still_ask_for_it(front, keys):
    before = tree(front.root)
    assert keys({"chat": ()}, engine_key=False)["changed"] is False and tree(front.root) == before


def test_change_of_key_is_loaded_and_revoking_one_keeps_the_others(front, keys, put, nginx):
    keys({"chat": (), "search": ()})
    put()
    old, other = held(front, "chat"), held(front, "search")
    assert nginx.loads() == 1
    assert keys({"chat": (), "search": ()}, rotate=["chat"])["changed"]
    assert held(front, "chat")[1:] == old and nginx.loads() == 2
    assert keys({"search": ()})["changed"]
    assert not os.path.exists(os.path.join(front.clients, "chat")) and held(front, "search") == other
    assert old[0] not in Path(front.path("callers.conf")).read_text() and nginx.loads() == 3


def test_check_mode_writes_nothing(tmp_path, keys, put):
    assert keys({"chat": ()}, check_mode=True)["changed"] and put(check_mode=True)["changed"]
    assert tree(tmp_path) == {}


def test_site_is_written_and_loaded_once(front, put, nginx):
    assert put()["changed"] and nginx.loads() == 1
    assert Path(front.upstream).read_text() == "server 127.0.0.1:8080;\n"
    assert put()["changed"] is False and nginx.loads() == 1


def test_port_belongs_to_the_switch_once_it_is_written(front, put):
    put()
    Path(front.upstream).write_text("server 127.0.0.1:9000;\n")
    assert put()["changed"] is False
    assert Path(front.upstream).read_text() == "server 127.0.0.1:9000;\n"


def test_what_nginx_refuses_is_undone(tmp_path, keys, put, nginx):
    keys({"chat": ()})
    put()
    before = tree(tmp_path)
    nginx.refuses = True
    with pytest.raises(_front.FrontError, match=r"nginx refuses the front, nothing was changed: .*unknown directive"):
        put(site="nonsense\n")
    with pytest.raises(_front.FrontError):
        keys({"other": ()})
    assert tree(tmp_path) == before and nginx.loads() == 1


def test_run_that_was_cut_off_before_nginx_loaded_is_finished(front, put, nginx):
    put()
    Path(front.site).write_text("server { }\n")
    assert put(site="server { }\n")["changed"] and nginx.loads() == 2


def test_absent_front_leaves_the_keys(front, keys, put, nginx):
    keys({"chat": ()})
    put()
    assert put(state="absent")["changed"]
    assert not os.path.exists(front.site) and not os.path.exists(front.upstream)
    assert held(front, "chat") and "systemctl try-reload-or-restart nginx.service" in nginx.calls
    assert put(state="absent")["changed"] is False


def test_port_of_another_program_is_named(put, monkeypatch):
    monkeypatch.setattr(llama_front._processes, "listeners", lambda _ports: [{"port": 8443, "program": "caddy", "pid": 7}])
    with pytest.raises(_front.FrontError, match=r"Port 8443 is held by caddy \(PID 7\)"):
        put()


def test_address_of_the_front_of_another_instance_is_refused(tmp_path, put):
    other = tmp_path / "nginx/llamacpp-small.conf"
    other.parent.mkdir()
    other.write_text("server {\n    listen 0.0.0.0:8443 ssl;\n}\n")
    with pytest.raises(_front.FrontError, match=r"llamacpp-small.conf has a front at 0.0.0.0:8443 already"):
        put(site="server {\n    listen 0.0.0.0:8443 ssl;\n}\n")
    assert put(site="server {\n    listen 0.0.0.0:8444 ssl;\n}\n")["changed"]


def test_default_site_goes(tmp_path, put):
    site = tmp_path / "default"
    site.write_text("server {}\n")
    assert put(remove=[str(site)])["changed"] and not site.exists()


def test_default_site_is_the_link_that_it_was_when_nginx_refuses(tmp_path, put, nginx):
    (tmp_path / "available").write_text("server {}\n")
    site = tmp_path / "default"
    site.symlink_to("available")
    nginx.refuses = True
    with pytest.raises(_front.FrontError):
        put(remove=[str(site)])
    assert os.readlink(site) == "available" and site.read_text() == "server {}\n"


def test_diff_shows_the_site_and_no_secret(put):
    text = "-----BEGIN PRIVATE KEY-----\nsecret\n-----END PRIVATE KEY-----"
    result = put(tls="given", certificate="-----BEGIN CERTIFICATE-----\nx", private_key=text)
    shown = json.dumps(result["diff"])
    assert "server {}" in shown and "PRIVATE KEY" not in shown and "key.pem" in shown


def test_certificate_that_is_nowhere_is_refused(put):
    with pytest.raises(_front.FrontError, match="llama_server_front_tls_key is neither PEM text nor a file of this host: no such file"):
        put(tls="given", certificate="-----BEGIN CERTIFICATE-----\nx", private_key="/nonexistent")


openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")


@openssl
def test_internal_certificate_is_made_once_for_its_names(front, put):
    first = put(tls="internal", names=["10.0.0.1", "llm.example"])
    ca = os.path.join(front.root, "ca.pem")
    assert first["ca_file"] == ca and os.stat(ca).st_mode & 0o777 == 0o644
    certificate = Path(front.path("certificate.pem")).read_text()
    status, out, _err = _host.run_command(["openssl", "x509", "-noout", "-ext", "subjectAltName", "-in", front.path("certificate.pem")])
    assert status == 0 and "IP Address:10.0.0.1, DNS:llm.example" in out
    assert put(tls="internal", names=["10.0.0.1", "llm.example"])["changed"] is False
    assert put(tls="internal", names=["10.0.0.2"])["changed"]
    assert Path(front.path("certificate.pem")).read_text() != certificate
    status, _out, err = _host.run_command(["openssl", "verify", "-x509_strict", "-CAfile", ca, front.path("certificate.pem")])
    assert status == 0, err


@openssl
def test_certificate_in_its_last_days_is_made_anew(front, put, monkeypatch):
    put(tls="internal")
    monkeypatch.setattr(_certificate, "RENEW_DAYS", _certificate.DAYS + 1)
    before = tree(front.root)
    assert put(tls="internal", check_mode=True)["changed"] and tree(front.root) == before
    assert put(tls="internal")["changed"] and tree(front.root) != before


@openssl
def test_expired_certificate_is_refused_before_clients_meet_it(tmp_path, put):
    put()
    before = tree(tmp_path)
    expired = Path(__file__).with_name("expired.pem").read_text()
    with pytest.raises(_front.FrontError, match="has expired; nothing was changed"):
        put(tls="given", certificate=expired, private_key="-----BEGIN PRIVATE KEY-----\nx")
    assert tree(tmp_path) == before


def test_ports_are_those_that_the_site_listens_on(front: Any, tmp_path: Any) -> None:
    assert front.ports() == []
    (tmp_path / "nginx").mkdir(exist_ok=True)
    site = "server {\n  listen 0.0.0.0:8444 ssl;\n}\nserver {\n  listen [::1]:9465;\n  # listen 1.2.3.4:1;\n}\n"
    (tmp_path / "nginx/llamacpp-main.conf").write_text(site)
    assert front.ports() == [8444, 9465]
