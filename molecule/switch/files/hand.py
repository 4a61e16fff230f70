# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A hand on the host for the tests of switches.

hand.py lay JSON      lays a deployment that is like another one: base, id, instance, environment, engine, unit, request
hand.py hold STATE    stops the switch program in its tracks as soon as its journal says the state
hand.py kill          ends the held program as a crash would; hand.py go lets it go on
hand.py ask INSTANCE  prints what the server of an instance is and says, as JSON
hand.py front         lets nginx take requests on port 8443 for the instance, by the front's contract; hand.py unfront removes it
hand.py client FILE   asks through it until the file is there, and prints how many answers came and what failed, as JSON
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

DECLARED, RECORDED = pathlib.Path("/etc/llamacpp/instances"), pathlib.Path("/var/lib/llamacpp/instances")
HELD = pathlib.Path("/run/switch-held")
PROMPT = {"messages": [{"role": "user", "content": "The quick brown fox"}], "max_tokens": 8, "temperature": 0, "seed": 1}


def lay(wish: dict) -> None:
    """A deployment beside those of the role, with the records that the gate reads."""
    source = DECLARED / "main/deployments" / wish["base"]
    target = DECLARED / wish["instance"] / "deployments" / wish["id"]
    record = RECORDED / wish["instance"] / wish["id"]
    for folder in (target, record):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, target, symlinks=True)
    record.mkdir(parents=True)
    lines = dict(line.split("=", 1) for line in (target / "server.env").read_text().splitlines())
    lines.update(wish["environment"])
    (target / "server.env").write_text("".join(f"{name}={value}\n" for name, value in sorted(lines.items())))
    with open(target / "unit.conf", "a", encoding="utf-8") as unit:
        unit.write(wish["unit"])
    if wish["engine"]:
        (target / "engine").unlink()
        (target / "engine").symlink_to(wish["engine"])
    document = json.loads((target / "deployment.json").read_text())
    texts = {name: hashlib.sha256((target / name).read_bytes()).hexdigest() for name in ("server.env", "unit.conf")}
    document.update(id=wish["id"], instance=wish["instance"], files=texts)
    (target / "deployment.json").write_text(json.dumps(document))
    request = json.loads((RECORDED / "main" / wish["base"] / "request.json").read_text())
    request.update(wish["request"], deployment=wish["id"])
    (record / "request.json").write_text(json.dumps(request))
    for name, text in wish["records"].items():
        (record / name).write_text(json.dumps(text))
    keys = DECLARED / wish["instance"] / "api-keys"
    if not keys.exists():
        shutil.copy2(DECLARED / "main/api-keys", keys)


def program() -> int:
    """The process that switches, or 0."""
    for entry in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = entry.read_bytes().split(b"\0")
            if len(words) > 4 and words[2].endswith(b"/llamacpp-switch") and words[3] == b"run":
                return int(entry.parent.name)
    return 0


def hold(state: str) -> None:
    """Returns with the program stopped in a state; fails when it never gets there."""
    HELD.unlink(missing_ok=True)
    journal, end, pid = RECORDED / "main/switch.json", time.monotonic() + 60, 0
    while time.monotonic() < end:
        pid = pid or program()
        if pid and json.loads(journal.read_text())["state"] == state:
            os.kill(pid, signal.SIGSTOP)
            if json.loads(journal.read_text())["state"] != state:
                sys.exit(f"the switch was past {state} already")
            HELD.write_text(str(pid))
            return
        time.sleep(0.0005)
    sys.exit(f"no switch came to {state}")


def ask(instance: str) -> dict:
    """Whether the server is healthy, which model it has loaded and what it says."""
    current = DECLARED / instance / "current"
    request = json.loads((RECORDED / instance / os.path.basename(os.readlink(current)) / "request.json").read_text())
    headers = {"Content-Type": "application/json", "Authorization": "Bearer " + (DECLARED / instance / "api-keys").read_text().split()[0]}

    def get(path: str, body: dict | None = None) -> dict:
        connection = http.client.HTTPConnection("127.0.0.1", request["port"], timeout=60)
        connection.request("POST" if body else "GET", path, json.dumps(body) if body else None, headers)
        answer = connection.getresponse()
        return {**json.loads(answer.read()), "status": answer.status}

    try:
        health = get("/health")["status"]
        found = {"health": health, "model": get("/props").get("model_path", "")} if health == 200 else {"health": health, "model": ""}
        if health == 200:
            found["answer"] = get("/v1/chat/completions", PROMPT)["choices"][0]["message"]["content"]
    except OSError:
        found = {"health": 0, "model": ""}
    return found


SITE, UPSTREAM = pathlib.Path("/etc/nginx/conf.d/llamacpp-main.conf"), pathlib.Path("/etc/llamacpp/front/main/upstream.conf")
NGINX = f"""upstream llamacpp_main {{ include {UPSTREAM}; }}
server {{
  listen 127.0.0.1:8443;
  keepalive_timeout 0;
  location / {{ proxy_pass http://llamacpp_main; proxy_read_timeout 300s; proxy_next_upstream off; }}
}}
"""


def front(wanted: bool) -> None:
    if wanted:
        UPSTREAM.parent.mkdir(parents=True, exist_ok=True)
        UPSTREAM.write_text("server 127.0.0.1:8080;\n")
        SITE.write_text(NGINX)
    else:
        SITE.unlink()
        shutil.rmtree(UPSTREAM.parent)
    subprocess.run(["systemctl", "restart", "nginx"], check=True)


def client(stop: pathlib.Path) -> dict:
    """Completions, one after the other, as a client of the front gets them."""
    headers = {"Content-Type": "application/json", "Authorization": "Bearer " + (DECLARED / "main/api-keys").read_text().split()[0]}
    answered, failed = 0, []
    while not stop.exists():
        connection = http.client.HTTPConnection("127.0.0.1", 8443, timeout=120)
        try:
            connection.request("POST", "/v1/chat/completions", json.dumps(PROMPT), headers)
            answer = connection.getresponse()
            text = answer.read().decode(errors="replace")
            if answer.status == 200 and json.loads(text)["choices"]:
                answered += 1
            else:
                failed.append(f"{answer.status} {text[:200]}")
        except (OSError, http.client.HTTPException) as error:
            failed.append(repr(error))
        finally:
            connection.close()
    stop.unlink()
    return {"answered": answered, "failed": failed}


def main() -> None:
    what, *more = sys.argv[1:]
    if what == "lay":
        lay(json.loads(more[0]))
    elif what == "hold":
        hold(more[0])
    elif what == "kill":
        os.kill(int(HELD.read_text()), signal.SIGKILL)
    elif what == "go":
        os.kill(int(HELD.read_text()), signal.SIGCONT)
    elif what == "release":  # in so many seconds, with nobody to tell it
        subprocess.run(["systemd-run", "--quiet", "--collect", f"--on-active={more[0]}s", "kill", "-CONT", HELD.read_text()], check=True)
    elif what in ("front", "unfront"):
        front(what == "front")
    elif what == "client":
        print(json.dumps(client(pathlib.Path(more[0]))))
    elif what == "ask":
        print(json.dumps(ask(more[0])))


main()
