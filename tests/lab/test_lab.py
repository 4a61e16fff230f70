"""The lab makes real hosts, breaks them on request, mends itself after a crash and leaves nothing behind.

Needs root (or sudo without a password) and the lab's programs; see README.md. The tests share one lab of two hosts and
run in the order in which they are written; the last one removes it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from hashlib import sha1
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.lab

LAB = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("ONPREM_LLAMACPP_CACHE") or Path.home() / ".cache/onprem-llamacpp")
PLAYBOOK = shutil.which("ansible-playbook", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}") or ""
SUDO = [] if os.geteuid() == 0 else ["sudo", "-n"]
NAME, NETWORK = "selftest", "10.199.77.0/24"
HOSTS = {"lab-bookworm": ("bookworm", "10.199.77.11"), "lab-trixie": ("trixie", "10.199.77.12")}
MEMORY = 768 * 2**30
GPUS = [{"name": "NVIDIA H200", "memory.total": 143771, "uuid": "GPU-0", "pci.device_id": "0x233510DE"}]
RATE = 20_000_000  # bit/s


def root(*command: str) -> str:
    return subprocess.run([*SUDO, *command], check=True, stdout=subprocess.PIPE, text=True, timeout=60).stdout


def ssh(host: str, command: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess:
    keys = ["-i", str(CACHE / "lab/id_ed25519"), "-o", "BatchMode=yes", "-o", "ConnectTimeout=5"]
    known = ["-o", "UserKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR"]
    options = {"stdout": subprocess.PIPE, "text": True, "timeout": 300, **options}
    return subprocess.run(["ssh", *keys, *known, f"root@{HOSTS[host][1]}", command], check=check, **options)


class Lab:
    """The playbooks of the lab, run with this test's inventory."""

    def __init__(self, folder: Path) -> None:
        self.inventory = folder / "inventory.yml"
        self.describe()

    def describe(self, **changes: dict) -> None:
        hosts: dict[str, dict[str, Any]] = {name: {"lab_image": image, "lab_address": address} for name, (image, address) in HOSTS.items()}
        hosts["lab-bookworm"] |= {"lab_memory": MEMORY}
        hosts["lab-trixie"] |= {"lab_gpus": GPUS, "lab_packages": ["curl"]}
        for name, variables in changes.items():
            hosts[name.replace("_", "-")] |= variables
        shared = {"lab_name": NAME, "lab_network": NETWORK}
        self.inventory.write_text(json.dumps({"all": {"vars": shared, "hosts": hosts}}))

    def start(self, playbook: str, *arguments: str) -> subprocess.Popen:
        command = [PLAYBOOK, "-i", str(self.inventory), "-i", f"{LAB}/inventory", f"{LAB}/{playbook}", *arguments]
        return subprocess.Popen(
            command, cwd=LAB.parents[1], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )

    def run(self, playbook: str, *arguments: str, good: bool = True) -> str:
        process = self.start(playbook, *arguments)
        output = process.communicate(timeout=1800)[0]
        assert (process.returncode == 0) == good, output
        return output

    def machines(self) -> dict[str, str]:
        """Return the machine of each host, as written in the lab's journal."""
        found = {}
        for folder in root("find", f"/run/onprem-llamacpp-lab/{NAME}/hosts", "-mindepth", "1", "-maxdepth", "1").split():
            found[Path(root("cat", f"{folder}/root").strip()).name] = Path(folder).name
        return found


def changed(output: str) -> int:
    return sum(int(count) for count in re.findall(r"changed=(\d+)", output))


def own(text: str) -> bool:
    """Whether a line belongs to this test's lab."""
    names = [f"lab-{sha1(NAME.encode()).hexdigest()[:8]}", f"onprem-lab:{NAME}", f"/roots/{NAME}/"]
    names += [f"l{sha1(f'{NAME}/{host}'.encode()).hexdigest()[:10]}" for host in HOSTS]
    return any(name in text for name in names)


def traces() -> dict[str, list[str]]:
    """Return what a lab leaves on a machine, without what other labs on it may change meanwhile."""
    other_lab = re.compile(r"\b(lab-[0-9a-f]{8}|l[0-9a-f]{10})\b|onprem-lab:")

    def lines(text: str) -> list[str]:
        text = re.sub(r" \[\d+:\d+\]$|^#.*", "", text, flags=re.MULTILINE)
        return sorted(line for line in text.splitlines() if line and (own(line) or not other_lab.search(line)))

    links = [link["ifname"] for link in json.loads(root("ip", "-j", "link"))]
    rules = lines(root("iptables-save"))
    return {
        "other labs": ["some"] if any(other_lab.search(link) and not own(link) for link in links) else [],
        "links": lines("\n".join(links)),
        "rules": [rule for rule in rules if rule.startswith("-")],
        "tables": [rule for rule in rules if not rule.startswith("-")],
        "mounts": lines(Path("/proc/mounts").read_text()),
        "forwarding": lines(Path("/proc/sys/net/ipv4/ip_forward").read_text()),
        "inotify": lines(Path("/proc/sys/fs/inotify/max_user_instances").read_text()),
        "control groups": lines(root("find", "/sys/fs/cgroup", "-maxdepth", "2", "-name", "onprem-lab-*")),
        "processes": [line for line in root("ps", "-eo", "args").splitlines() if own(line)],
        "nspawn": lines("\n".join(map(str, Path("/run/systemd/nspawn").glob("[!l]*/*")))),
    }


@pytest.fixture(scope="module")
def before() -> dict[str, list[str]]:
    return traces()


@pytest.fixture(scope="module")
def lab(before: dict[str, list[str]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = Lab(tmp_path_factory.mktemp("lab"))
    lab.run("destroy.yml")  # of an earlier run that was cut short
    yield lab
    lab.run("destroy.yml")


def running(host: str) -> bool:
    return ssh(host, "systemctl is-system-running", check=False).stdout == "running\n"


def rate(host: str, upload: bool, size: int = 4_000_000) -> float:
    """Return the measured speed of a transfer in bit/s; the connection is made before the clock starts."""
    if upload:
        command = f"head -c 1 >/dev/null; start=$(date +%s.%N); head -c {size} | wc -c >/dev/null; echo $start $(date +%s.%N)"
        start, end = ssh(host, command, input="0" * (size + 1)).stdout.split()
        return 8 * size / (float(end) - float(start))
    command = f"echo go; head -c {size} /dev/zero"
    keys = ssh(host, "true").args[:-1]
    with subprocess.Popen([*keys, command], stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == b"go\n"
        begun = time.monotonic()
        assert len(process.stdout.read()) == size
        return 8 * size / (time.monotonic() - begun)


def test_a_cut_short_creation_is_completed_by_the_next(lab: Lab) -> None:
    process = lab.start("create.yml")
    assert process.stdout
    for line in process.stdout:
        if line.startswith("TASK [Boot the host]"):
            break
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)

    lab.run("create.yml")

    assert [host for host in HOSTS if not running(host)] == []


def test_a_second_creation_changes_nothing(lab: Lab) -> None:
    assert changed(lab.run("create.yml")) == 0


def test_hosts_are_what_the_inventory_says(lab: Lab) -> None:
    for host, (image, address) in HOSTS.items():
        facts = ssh(host, ". /etc/os-release; echo $VERSION_CODENAME; hostname; cat /proc/1/comm; ip -4 -o addr show host0").stdout
        assert facts.split()[:3] == [image, host, "systemd"]
        assert f" {address}/24 " in facts


def test_hosts_know_each_other_by_name(lab: Lab) -> None:
    assert HOSTS["lab-trixie"][1] in ssh("lab-bookworm", "getent hosts lab-trixie").stdout


def test_hosts_install_packages(lab: Lab) -> None:
    ssh("lab-bookworm", "apt-get -qq update && apt-get -qq install -y less >/dev/null 2>&1 && less --version")
    assert ssh("lab-trixie", "curl --version").stdout.startswith("curl ")  # from lab_packages


def test_memory_is_emulated(lab: Lab) -> None:
    assert int(ssh("lab-bookworm", "free -b | awk '/^Mem:/ {print $2}'").stdout) == MEMORY


def test_memory_of_a_running_host_follows_the_inventory(lab: Lab) -> None:
    real = ssh("lab-trixie", "grep MemTotal /proc/meminfo").stdout
    lab.describe(lab_bookworm={"lab_memory": 64 * 2**30}, lab_trixie={"lab_memory": 32 * 2**30})
    try:
        lab.run("create.yml")
        assert "67108864 kB" in ssh("lab-bookworm", "grep MemTotal /proc/meminfo").stdout
        assert "33554432 kB" in ssh("lab-trixie", "grep MemTotal /proc/meminfo").stdout
    finally:
        lab.describe()
    lab.run("create.yml")
    assert ssh("lab-trixie", "grep MemTotal /proc/meminfo").stdout == real


def test_emulated_gpus_answer_and_are_on_the_bus(lab: Lab) -> None:
    assert ssh("lab-trixie", "nvidia-smi -L").stdout == "GPU 0: NVIDIA H200 (UUID: GPU-0)\n"
    assert ssh("lab-trixie", "cat /sys/bus/pci/devices/*/device").stdout == "0x2335\n"
    assert ssh("lab-bookworm", "command -v nvidia-smi", check=False).returncode != 0


def test_a_link_is_shaped_in_both_directions_and_freed(lab: Lab) -> None:
    lab.run("link.yml", "-e", "lab_link=shape", "-e", "lab_rate=20mbit", "--limit", "lab-trixie")
    assert rate("lab-trixie", upload=True) < 2 * RATE
    assert rate("lab-trixie", upload=False) < 2 * RATE
    assert rate("lab-bookworm", upload=False) > 2 * RATE

    lab.run("link.yml", "-e", "lab_link=restore", "--limit", "lab-trixie")
    assert rate("lab-trixie", upload=True) > 2 * RATE
    assert rate("lab-trixie", upload=False) > 2 * RATE


def test_a_cut_host_is_out_of_reach_until_restored(lab: Lab) -> None:
    lab.run("link.yml", "-e", "lab_link=cut", "--limit", "lab-trixie")
    assert ssh("lab-trixie", "true", check=False).returncode == 255
    assert running("lab-bookworm")

    lab.run("link.yml", "-e", "lab_link=restore", "--limit", "lab-trixie")
    assert running("lab-trixie")


def test_power_loss_loses_processes_and_keeps_files(lab: Lab) -> None:
    ssh("lab-trixie", "touch /root/kept /run/lost; sync")
    lab.run("power.yml", "-e", "lab_power=kill", "--limit", "lab-trixie")
    assert ssh("lab-trixie", "true", check=False).returncode == 255

    lab.run("power.yml", "-e", "lab_power=on", "--limit", "lab-trixie")
    assert running("lab-trixie")
    assert ssh("lab-trixie", "ls /root/kept /run/lost 2>/dev/null", check=False).stdout == "/root/kept\n"


def test_a_killed_supervisor_is_replaced(lab: Lab) -> None:
    machine = lab.machines()["lab-bookworm"]
    supervisor = root("cat", f"/run/onprem-llamacpp-lab/{NAME}/hosts/{machine}/pid").strip()
    boot = ssh("lab-bookworm", "cat /proc/sys/kernel/random/boot_id").stdout
    root("kill", "-KILL", supervisor)

    assert changed(lab.run("create.yml")) == 1

    assert running("lab-bookworm")
    assert ssh("lab-bookworm", "cat /proc/sys/kernel/random/boot_id").stdout != boot


def test_a_running_playbook_keeps_others_out(lab: Lab) -> None:
    process = lab.start("create.yml")
    assert process.stdout
    for line in process.stdout:
        if line.startswith("TASK [Make the cache]"):
            break
    assert "Another playbook (pid " in lab.run("create.yml", good=False)
    assert process.communicate(timeout=300)[0].count("failed=0") == len(HOSTS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param({"_lab_needs": {"no-such-nspawn": "systemd-container"}}, "systemd-container", id="program missing"),
        pytest.param({"lab_image": "potato"}, "lab_image is potato", id="unknown image"),
        pytest.param({"lab_address": "10.199.77.9"}, "an address of its own", id="one address twice"),
        pytest.param({"lab_network": "10.199.77.0/16"}, "of the form a.b.c.0/24", id="network of another size"),
        pytest.param({"lab_name": "Lab One"}, "small letters", id="name that makes no names"),
    ],
)
def test_a_lab_that_cannot_be_is_refused_in_words(lab: Lab, arguments: dict, message: str) -> None:
    output = lab.run("create.yml", "-e", json.dumps(arguments), good=False)
    assert message in " ".join(output.split())
    assert changed(output) == 0


def test_a_network_that_is_in_use_is_refused(lab: Lab) -> None:
    output = lab.run("create.yml", "-e", "lab_name=selftest2", good=False)
    assert "is already in use on" in " ".join(output.split())


def test_a_host_can_be_removed_alone(lab: Lab) -> None:
    lab.run("destroy.yml", "--limit", "lab-trixie")
    assert list(lab.machines()) == ["lab-bookworm"]
    assert running("lab-bookworm")


def test_destroy_leaves_the_machine_as_it_was(lab: Lab, before: dict[str, list[str]]) -> None:
    lab.run("destroy.yml")
    after = traces()
    if before["other labs"] or after["other labs"]:
        # The last lab puts these back, and that may have been one of the others, or it is still to come.
        for shared in ("other labs", "tables", "forwarding", "inotify"):
            before.pop(shared)
            after.pop(shared)
    assert after == before
    assert [path for path in (CACHE / "lab/roots" / NAME, Path("/run/onprem-llamacpp-lab") / NAME) if path.exists()] == []
    assert changed(lab.run("destroy.yml")) == 0
