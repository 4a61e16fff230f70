# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Versions of packages that belong together, taking back, and what package managers say."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.onprem.llamacpp.plugins.module_utils import _driver_diagnosis, _driver_packages, _mig
from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _driver_boot, _driver_versions

PLAN = {
    "packages": ["open", "cuda"],
    "companions": ["persistenced", "dkms"],
    "headers": ["linux-headers-6.1"],
    "headers_meta": ["linux-headers-amd64"],
    "branch": "580",
    "version": "",
    "manager": "apt",
    "modules": "open",
    "source": "nvidia",
}
THERE = {"persistenced": ["1.0"], "dkms": ["3.0"], "linux-headers-6.1": ["6.1"], "linux-headers-amd64": ["6.1"]}


def choose(available: dict[str, list[str]], installed: dict[str, Any] | None = None, **plan: Any) -> dict[str, Any]:
    return _driver_versions.choose({**PLAN, **plan}, {"available": {**THERE, **available}, "installed": installed or {}})


BOTH = {"open": ["590.48.01-1", "580.126.09-1", "580.95.05-1"], "cuda": ["590.48.01-1", "580.126.09-1", "580.95.05-1"]}


@pytest.mark.parametrize(
    ("available", "plan", "version"),
    [
        pytest.param(BOTH, {}, "580.126.09", id="newest of the branch"),
        pytest.param(BOTH, {"version": "580.95.05"}, "580.95.05", id="exact version"),
        pytest.param(BOTH, {"branch": ""}, "590.48.01", id="any branch"),
        pytest.param({**BOTH, "cuda": BOTH["cuda"][2:]}, {}, "580.95.05", id="newest that all have"),
        pytest.param({"open": ["580.9.1-1", "580.95.05-1"], "cuda": ["580.9.1-1", "580.95.05-1"]}, {}, "580.95.05", id="numbers, not text"),
        pytest.param(
            {"open": ["535.261.03-1"], "cuda": ["535.309.01-0+deb12u1", "535.261.03-1"]},
            {"branch": ""},
            "535.261.03",
            id="bookworm's open modules lag behind its libraries",
        ),
    ],
)
def test_version(available: dict[str, list[str]], plan: dict[str, Any], version: str) -> None:
    chosen = choose(available, **plan)
    assert (chosen["version"], chosen["problems"]) == (version, [])
    assert chosen["install"] == [f"open={version}-1", f"cuda={version}-1", "persistenced", "dkms"]


@pytest.mark.parametrize(
    ("available", "installed", "plan", "problem"),
    [
        pytest.param({"open": BOTH["open"]}, {}, {}, "The package cuda of the branch 580 is missing: no repository", id="missing package"),
        pytest.param(BOTH, {}, {"branch": "570"}, "is missing: on offer: 580.95.05, 580.126.09, 590.48.01", id="missing branch"),
        pytest.param(BOTH, {}, {"version": "580.1.1"}, "The package open of the 580.1.1 is missing", id="missing version"),
        pytest.param(
            {"open": ["580.95.05-1"], "cuda": ["580.126.09-1"]}, {}, {}, "must not be mixed (open: 580.95.05; cuda: 580.126.09)", id="mixed"
        ),
        pytest.param(
            BOTH,
            {"cuda": {"version": "580.95.05-1", "whole": True, "held": True}},
            {},
            "cuda is held at 580.95.05-1, and 580.126.09-1 is wanted: release it (apt-mark unhold cuda)",
            id="held package",
        ),
        pytest.param(
            BOTH,
            {"cuda": {"version": "580.95.05-1", "whole": True, "held": True}},
            {"manager": "dnf"},
            "release it (dnf versionlock delete cuda)",
            id="held package, dnf",
        ),
        pytest.param(
            {**BOTH, "persistenced": ["580.126.09-1"]},
            {"persistenced": {"version": "580.95.05-1", "whole": True, "held": True}},
            {},
            "persistenced is held at 580.95.05-1, and 580.126.09-1 is wanted",
            id="held companion",
        ),
        pytest.param(
            BOTH,
            {"libnvidia-ml1": {"version": "580.95.05-1", "whole": True, "held": True}},
            {"lock": ["libnvidia-*"]},
            "libnvidia-ml1 is held at 580.95.05-1, and 580.126.09 is wanted",
            id="held library",
        ),
        pytest.param({**BOTH, "dkms": []}, {}, {"manager": "dnf"}, "dkms, which compiles the modules, is missing", id="no EPEL"),
        pytest.param(
            {**BOTH, "linux-headers-6.1": []}, {}, {}, "The headers linux-headers-6.1 are missing", id="no headers for the kernel"
        ),
    ],
)
def test_problem(available: dict[str, list[str]], installed: dict[str, Any], plan: dict[str, Any], problem: str) -> None:
    assert problem in " ".join(choose(available, installed, **plan)["problems"])


def test_alternatives_and_what_is_not_on_offer() -> None:
    chosen = choose(
        {**BOTH, "fabric-580": ["580.126.09-1"]}, packages=["open", "cuda", "fabric|fabric-580"], companions=["persistenced", "none"]
    )
    assert chosen["packages"]["fabric-580"] == "580.126.09-1"
    assert "none" not in chosen["install"]


# Packages on offer beside those of both, the role's names -> what is installed of them
ALTERNATIVES = {
    "the newest branch has a name without branch": (
        {"persistenced": ["590.48.01-1"], "utils-580": ["580.126.09-1"]},
        {"companions": ["persistenced|utils-580"]},
        ["utils-580=580.126.09-1"],
    ),
    "the older branch has a name with branch": (
        {"fabric": ["590.48.01-1", "580.126.09-1"], "fabric-570": ["570.1.2-1"], "open": ["570.1.2-1"], "cuda": ["570.1.2-1"]},
        {"packages": ["open", "cuda", "fabric|fabric-570"], "branch": "570", "companions": []},
        ["fabric-570=570.1.2-1"],
    ),
    "no version fits": (
        {"persistenced": ["590.48.01-1"], "utils-580": ["570.1.2-1"]},
        {"companions": ["persistenced|utils-580"]},
        ["persistenced"],
    ),
}


@pytest.mark.parametrize(("available", "plan", "wanted"), ALTERNATIVES.values(), ids=ALTERNATIVES)
def test_alternative_in_the_drivers_version(available: dict[str, list[str]], plan: dict[str, Any], wanted: list[str]) -> None:
    chosen = choose({**BOTH, **available}, **plan)
    assert (chosen["problems"], chosen["install"][2:]) == ([], wanted)


def test_repositories_that_cannot_be_read_are_no_missing_packages() -> None:
    told = "Failed to download metadata for repo 'epel'"
    known = {"available": {}, "installed": {}, "unread": told}
    (problem,) = _driver_versions.choose({**PLAN, "manager": "dnf"}, known)["problems"]
    assert "cannot be read" in problem and told in problem and "no repository" not in problem


def test_dnf_locks_what_has_come_along() -> None:
    rows = {"kmod-nvidia-open-dkms": "3:580.95.05-1.el9", "libnvidia-ml": "3:580.95.05-1.el9", "nvidia-persistenced": "3:590.48.01-1.el9",
            "libnvidia-container1": "0:1.18.0-1", "dkms": "0:3.2.2-1.el9"}  # fmt: skip
    installed = {name: {"version": version, "whole": True, "held": False} for name, version in rows.items()}
    plan = {**PLAN, "manager": "dnf", "lock": ["kmod-nvidia-*", "nvidia-*", "libnvidia-*"]}
    kept = {name: rows[name] for name in ("kmod-nvidia-open-dkms", "libnvidia-ml")}
    assert _driver_versions.locks(plan, installed, "580.95.05") == kept
    assert _driver_versions.locks({**plan, "manager": "apt"}, installed, "580.95.05") == {}


# What dkms status tells -> kernels of 5.14.1 and 5.14.2 that the module is still to be built for
STATES = {
    "not built at all": ("nvidia/580.95.05: added\n", ["5.14.1", "5.14.2"]),
    "running kernel only": ("nvidia/580.95.05, 5.14.1, x86_64: installed\n", ["5.14.2"]),
    "weak modules": ("nvidia/580.95.05, 5.14.1, x86_64: installed\nnvidia/580.95.05, 5.14.2, x86_64: installed-weak from 5.14.1\n", []),
    "another version": ("nvidia/570.1.2: added\n", []),
    "empty packages": ("", []),
}


@pytest.mark.parametrize(("status", "kernels"), STATES.values(), ids=STATES)
def test_modules_that_are_not_built(status: str, kernels: list[str]) -> None:
    states = _driver_diagnosis.dkms_states(status)
    left = _driver_versions.unbuilt({**PLAN, "kernels": ["5.14.1", "5.14.2"]}, states, "580.95.05")
    assert left == [{"name": "nvidia", "kernel": kernel} for kernel in kernels]


def test_companions_come_in_the_version_that_they_have() -> None:
    assert choose({**BOTH, "persistenced": ["535.171.04-1"]})["install"][2:] == ["persistenced", "dkms"]
    assert choose({**BOTH, "persistenced": ["590.48.01-1", "580.126.09-1"]})["install"][2:] == ["persistenced=580.126.09-1", "dkms"]


INSTALLED = {"version": "6.1.176-1", "whole": True, "held": False}


@pytest.mark.parametrize(
    ("offered", "installed", "manager", "wanted"),
    [
        pytest.param(
            ["6.1.192-2", "6.1.176-1"], {"linux-image-amd64": INSTALLED}, "apt", ["linux-headers-amd64=6.1.176-1"], id="as kernel"
        ),
        pytest.param(["6.1.192-2"], {"linux-image-amd64": INSTALLED}, "apt", ["linux-headers-amd64"], id="the kernel's is gone"),
        pytest.param(["6.1.192-2"], {}, "apt", [], id="no kernel comes by itself"),
        pytest.param([], {"linux-image-amd64": INSTALLED}, "apt", [], id="not on offer"),
        pytest.param(
            ["6.1.192-2", "6.1.176-1"],
            {"linux-image-amd64": INSTALLED, "linux-headers-amd64": {**INSTALLED, "version": "6.1.192-2"}},
            "apt",
            [],
            id="there already",
        ),
        pytest.param(["0:5.14.0-503.el9"], {}, "dnf", ["linux-headers-amd64"], id="named after its kernel"),
    ],
)
def test_headers_keep_coming_with_the_kernel(offered: list[str], installed: dict[str, Any], manager: str, wanted: list[str]) -> None:
    chosen = choose({**BOTH, "linux-headers-amd64": offered}, installed, manager=manager)
    assert chosen["headers"] == ["linux-headers-6.1", *wanted]


def test_rpm_names() -> None:
    versions = {name: ["3:580.95.05-1.el9"] for name in ("open", "cuda")}
    assert choose(versions, manager="dnf")["install"][:2] == ["open-3:580.95.05-1.el9", "cuda-3:580.95.05-1.el9"]


@pytest.mark.parametrize(
    ("removed", "told"),
    [
        pytest.param(["kmod-nvidia-latest-dkms-3:580.95.05-1.el9.x86_64"], [], id="the other modules"),
        pytest.param(["dkms-0:3.2.1-1.el9.noarch"], [], id="what is upgraded"),
        pytest.param(["kmod-nvidia-latest-dkms-3:580.95.05-1.el9.x86_64", "site-tools-0:1-2.noarch"], ["site-tools"], id="another's"),
    ],
)
def test_nobodys_packages_go_but_those_of_the_driver(removed: list[str], told: list[str]) -> None:
    results = ["Installed: kmod-nvidia-open-dkms-3:580.95.05-1.el9.x86_64", "Installed: dkms-0:3.2.2-1.el9.noarch"]
    plan = {**PLAN, "lock": ["kmod-nvidia-*"]}
    assert _driver_versions.erased([*results, *(f"Removed: {name}" for name in removed)], plan) == told


def test_what_cannot_be_taken_back_is_told_with_the_cause() -> None:
    left = _driver_versions.undo_problem("E: no network.\n", {"purge": ["new"], "reinstall": ["old=1"]})
    told = _driver_versions.install_problem("E: No space left", PLAN, "580.95.05", {}, left)
    assert "The driver 580.95.05 (open modules, nvidia) cannot be installed. The package manager said: E: No space left" in told
    assert "could not be taken back whole either: E: no network. Do it by hand: remove new, and install old=1 again." in told
    assert _driver_versions.undo_problem("x", {"purge": [], "reinstall": []}).endswith("either: x.")


def test_undo() -> None:
    whole = {"whole": True, "held": False}
    before = {"kept": {"version": "1", **whole}, "upgraded": {"version": "1", **whole}, "broken": {"version": "1", **whole}}
    after = {
        **before,
        "upgraded": {"version": "2", **whole},
        "broken": {"version": "1", "whole": False, "held": False},
        "new": {"version": "1", **whole},
    }
    own = list(after)
    assert _driver_versions.undo(before, after, "apt", own) == {"purge": ["new"], "reinstall": ["broken=1", "upgraded=1"]}
    assert _driver_versions.undo(before, after, "dnf", own)["reinstall"] == ["broken-1", "upgraded-1"]
    half = {"left": {"version": "1", "whole": False, "held": False}}
    assert _driver_versions.undo(half, half, "apt", ["left"]) == {"purge": ["left"], "reinstall": []}
    # What others have brought, and what happened while another program was at work, is not the run's to take back.
    assert _driver_versions.undo(before, after, "apt", ["broken"]) == {"purge": [], "reinstall": ["broken=1"]}
    assert _driver_versions.undo(before, after, "apt", own, f"failed\n{LOCKED}") == {"purge": [], "reinstall": []}


# As apt-get 2.6 and the module dnf print it.
SIMULATED = """\
NOTE: This is only a simulation!
The following NEW packages will be installed:
  dkms linux-image-lab
Remv nvidia-kernel-dkms [580.95.05-1]
Inst libc6:i386 [2.36-9] (2.36-9+deb12u10 Debian:12.10/stable [i386])
Inst linux-image-lab (6.1.2 localhost [all])
Inst nvidia-kernel-support (580.95.05-1 localhost [all])
Conf half (1 localhost [all])
"""
TRIAL = [
    "Installed: kernel-devel-6.1.0-99.el10.noarch",
    "Installed: kernel-core-0:6.1.0-100.el10.noarch",
    "Removed: dkms-3:3.2.1-1.el9.noarch",
]
CHOICE = {"headers": ["linux-headers-6.1", "linux-headers-amd64=6.1.1"], "install": ["nvidia-driver-cuda=580.95.05-1"]}


def test_what_the_run_brings_and_takes_itself() -> None:
    own = ["linux-headers-6.1", "linux-headers-amd64", "nvidia-driver-cuda"]
    assert _driver_versions.touched(CHOICE, [], []) == own
    along = _driver_versions.touched(CHOICE, [SIMULATED, ""], [])
    assert sorted(set(along) - set(own)) == ["half", "libc6", "linux-image-lab", "nvidia-kernel-dkms", "nvidia-kernel-support"]
    assert _driver_versions.kernels(along) == ["linux-image-lab"]
    of_rpm = _driver_versions.touched({"headers": [], "install": []}, [], TRIAL)
    assert of_rpm == ["dkms", "kernel-core-6.1.0-100.el10.noarch", "kernel-devel-6.1.0-99.el10.noarch"]
    assert _driver_versions.kernels(of_rpm) == ["kernel-core-6.1.0-100.el10.noarch"]


def test_waiting_for_a_lock_is_no_failure_of_its_own() -> None:
    said = (
        "Waiting for cache lock: Could not get lock /var/lib/dpkg/lock-frontend.\nE: Sub-process /usr/bin/dpkg returned an error code (1)"
    )
    assert "stayed locked" not in _driver_versions.install_problem(said, PLAN, "580.95.05", {})


@pytest.mark.parametrize(
    ("said", "part"),
    [
        pytest.param("GPG error: http://m InRelease: the following signatures: NO_PUBKEY A4B469963BF863CC", "another key", id="wrong key"),
        pytest.param("E:The repository 'http://m  Release' is not signed.", "no signature", id="unsigned"),
        pytest.param("Could not resolve 'developer.download.nvidia.com'", "has no address", id="no internet"),
        pytest.param("Could not connect to 10.0.0.1:80 (10.0.0.1). - connect (111: Connection refused)", "does not answer", id="no mirror"),
        pytest.param("E:The repository 'http://m ' does not have a Release file.", "404", id="wrong folder"),
        pytest.param("Curl error (6): Couldn't resolve host name for http://m/repodata", "has no address", id="no internet, dnf"),
        pytest.param("Curl error (7): Couldn't connect to server for http://m/repodata", "does not answer", id="no mirror, dnf"),
        pytest.param("Status code: 404 for http://m/repodata/repomd.xml", "404", id="wrong folder, dnf"),
        pytest.param("something else", "cannot be read", id="anything else"),
    ],
)
def test_repository_problem(said: str, part: str) -> None:
    sentence = _driver_versions.repository_problem(said, "http://m", {})
    assert "http://m" in sentence and part in sentence and "nvidia_driver_repository_url" in sentence


NVIDIA = "https://developer.download.nvidia.com/compute/cuda/repos/debian12/x86_64"


@pytest.mark.parametrize(
    ("said", "named"),
    [
        pytest.param(
            "E:The repository 'https://old.example.com/deb stable Release' is not signed.", "https://old.example.com/deb", id="other"
        ),
        pytest.param(f"E:The repository '{NVIDIA}  Release' does not have a Release file.", NVIDIA, id="NVIDIA's"),
        pytest.param(f"W:Failed to fetch {NVIDIA}/InRelease  404\nW:Failed to fetch http://other/x  404", NVIDIA, id="both"),
        pytest.param(
            "E:The repository 'http://archive/debian12  Release' does not have a Release file.", "http://archive/debian12", id="dist"
        ),
    ],
)
def test_the_repository_that_cannot_be_read_is_named(said: str, named: str) -> None:
    sentence = _driver_versions.repository_problem(said, NVIDIA, {})
    assert sentence.startswith(f"The package repository {named}")
    assert ("one of the host's own" in sentence) == (named != NVIDIA) == ("nvidia_driver_repository_url" not in sentence)


def test_repository_that_the_role_added_is_not_the_hosts_own() -> None:
    said = "E:Failed to fetch http://deb.debian.org/debian/dists/bookworm/InRelease  Could not resolve 'deb.debian.org'"
    sentence = _driver_versions.repository_problem(said, NVIDIA, {}, added=["http://deb.debian.org/debian/", ""])
    assert sentence.startswith("The package repository http://deb.debian.org/debian/dists/bookworm/InRelease cannot be found")
    assert "The role has added it: set nvidia_driver_distribution_url" in sentence
    assert "the host's own" not in sentence


def test_repository_of_the_distribution() -> None:
    sentence = _driver_versions.repository_problem("404", "of ubuntu-24.04", {}, "distribution")
    assert (
        sentence.startswith("The package repository of ubuntu-24.04 is not there (404).") and "nvidia_driver_repository_url" not in sentence
    )
    sentence = _driver_versions.repository_problem(
        "Could not connect to http://security/debian: x", "http://deb/debian", {}, "distribution"
    )
    assert sentence.startswith("The package repository http://security/debian does not answer. See the host's own list of sources")


LOCKED = "Failed to lock apt for exclusive operation: Failed to lock directory /var/lib/apt/lists/: E:Could not get lock"


@pytest.mark.parametrize(
    ("said", "known", "part"),
    [
        pytest.param(LOCKED, {"holder": {"name": "unattended-upgr", "pid": 42}}, "unattended-upgr (PID 42) holds it", id="locked"),
        pytest.param(
            "dpkg: error processing package",
            {"diagnosis": {"cause": "compile", "sentence": "It does not compile: nv.c:1: error: x. nvidia-smi lists no device"}},
            "nv.c:1: error: x. Take another nvidia_driver_branch, nvidia_driver_modules proprietary, or a kernel",
            id="does not compile",
        ),
        pytest.param(
            "Failed to validate GPG signature for dkms-3:99-1.noarch: Public key for dkms-99-1.noarch.rpm is not installed",
            {"diagnosis": {"cause": "headers", "sentence": "The headers are missing."}},
            "confirms: Failed to validate GPG signature for dkms-3:99-1.noarch",
            id="signed with another key",
        ),
        pytest.param("x\nE: No space left", {"diagnosis": {"cause": "headers"}}, "E: No space left", id="headers are not the cause"),
        pytest.param("x\nE: Unable to correct problems", {"diagnosis": {"cause": "missing"}}, "E: Unable to correct", id="anything else"),
    ],
)
def test_install_problem(said: str, known: dict[str, Any], part: str) -> None:
    assert part in _driver_versions.install_problem(said, PLAN, "580.95.05", known)


def test_lock_holder(tmp_path: Any) -> None:
    lock, locks = tmp_path / "lock", tmp_path / "locks"
    lock.touch()
    locks.write_text(f"1: POSIX  ADVISORY  WRITE 1 fe:00:{lock.stat().st_ino} 0 EOF\n2: FLOCK  ADVISORY  WRITE 7 fe:00:5 0 EOF\n")
    assert _driver_packages.holder((str(lock),), str(locks))["pid"] == 1
    assert _driver_packages.holder((str(tmp_path / "none"),), str(locks)) == {}


RPM_ROWS = """\
gpg-pubkey 0:1-2 gpg-pubkey-1-2.(none)
a 1:2-3 a-2-3.x86_64
b 1:2-3 b-2-3.x86_64
a-b 1:2-3 a-b-2-3.x86_64
kernel-devel 0:5.14.0-503.el9 kernel-devel-5.14.0-503.el9.x86_64
kernel-devel 0:5.14.0-570.el9 kernel-devel-5.14.0-570.el9.x86_64
"""


def test_status_of_dnf_is_told() -> None:
    answers = {"dnf": (1, "", "Errors during downloading\nStatus code: 404"), "rpm": (0, RPM_ROWS, "")}
    assert _driver_packages.collect("dnf", ["a"], lambda argv: answers[argv[0]])["unread"] == "Errors during downloading Status code: 404"
    assert _driver_packages.collect("dnf", [], lambda argv: answers[argv[0]])["unread"] == ""


def test_package_managers() -> None:
    madison = " nvidia-smi | 535.309.01-0+deb12u1 | http://s x Packages\n nvidia-smi | 535.261.03-1 | http://d x Packages\n"
    assert _driver_packages.parse_madison(madison) == {"nvidia-smi": ["535.309.01-0+deb12u1", "535.261.03-1"]}
    dpkg = "a 1 ii \nb 2 hi \nc 3 iF \nd 4 rc \ne  un \n"
    assert _driver_packages.parse_dpkg(dpkg) == {
        "a": {"version": "1", "whole": True, "held": False},
        "b": {"version": "2", "whole": True, "held": True},
        "c": {"version": "3", "whole": False, "held": False},
    }
    own = "# BEGIN onprem.llamacpp.nvidia_driver\nb-1:2-3.*\n# END onprem.llamacpp.nvidia_driver\n"
    rpm = _driver_packages.parse_rpm(RPM_ROWS, f"a-1:2-3.*\n{own}")
    assert rpm["a"] == {"version": "1:2-3", "whole": True, "held": True}
    kernels = ["kernel-devel-5.14.0-503.el9.x86_64", "kernel-devel-5.14.0-570.el9.x86_64"]
    assert sorted(rpm) == ["a", "a-b", "b", *kernels]
    assert sorted(_driver_packages.parse_rows(RPM_ROWS)) == sorted(rpm)
    assert not rpm["b"]["held"] and not rpm["a-b"]["held"]


@pytest.mark.parametrize(
    ("plan", "paths", "services"),
    [
        pytest.param({"packages": [], "fabric_manager": False, "manager": "apt"}, 0, ["nvidia-persistenced.service"], id="none"),
        pytest.param(
            {"packages": ["x"], "fabric_manager": False, "manager": "apt"}, 5, ["nvidia-persistenced.service"], id="GPU or MIG, apt"
        ),
        pytest.param(
            {"packages": ["x"], "fabric_manager": True, "manager": "dnf"},
            4,
            ["nvidia-persistenced.service", "nvidia-fabricmanager.service"],
            id="NVSwitch, dnf",
        ),
    ],
)
def test_files(plan: dict[str, Any], paths: int, services: list[str]) -> None:
    made = _driver_boot.files({**plan, "lock": ["nvidia-*"]}, "580.95.05")
    assert len(made) == paths
    if made:
        assert made[_driver_boot.LOAD].endswith("nvidia\nnvidia-uvm\n")
        assert "blacklist nouveau" in made[_driver_boot.NOUVEAU]
        assert made[_driver_boot.AWAKE].endswith("[Service]\nExecStartPost=-/usr/bin/nvidia-smi -pm 1\n")
        assert f"After=systemd-modules-load.service {' '.join(services)}" in made[_driver_boot.ORDER]
    if plan["manager"] == "apt" and made:
        assert "Pin: version /^([0-9]+:)?580[.]95[.]05-/" in made[_driver_boot.LOCK]
    assert _driver_boot.services(plan) == services


def divided(gpus: list[dict[str, Any]], instances: int) -> list[dict[str, Any]]:
    """Devices as facts have them where the second GPU is divided into equal instances."""
    listing = ["GPU 0: NVIDIA H200 (UUID: GPU-1)", "GPU 1: NVIDIA A100 (UUID: GPU-2)"]
    listing += [f"  MIG 3g.40gb     Device  {n}: (UUID: MIG-{n})" for n in range(instances)]
    reports = [
        f"<mig_device><index>{n}</index><gpu_instance_id>{n + 1}</gpu_instance_id>"
        "<fb_memory_usage><total>40448 MiB</total></fb_memory_usage></mig_device>"
        for n in range(instances)
    ]
    xml = f"<nvidia_smi_log><gpu><uuid>GPU-2</uuid>{''.join(reports)}</gpu></nvidia_smi_log>"
    return _mig.divide(gpus, {"GPU-2"}, lambda argv: (0, "\n".join(listing) if "-L" in argv else xml, ""))[0]


def test_settings_come_back() -> None:
    card = {"mig_parent": "", "total": 81920, "bandwidth": 0, "pci_address": "0000:10:00.0"}
    gpu = {**card, "uuid": "GPU-1", "power_limit": 300.0, "name": "NVIDIA H200"}
    mig = {**card, "uuid": "GPU-2", "power_limit": 250.0, "name": "NVIDIA A100"}
    before = _driver_boot.settings(divided([gpu, mig], 2))
    assert before == {"power": {"GPU-1": 300.0, "GPU-2": 250.0}, "mig": {"GPU-2": ["3g.40gb", "3g.40gb"]}}
    assert _driver_boot.restore(before, divided([gpu, mig], 2)) == []
    limits = [["nvidia-smi", "-i", "GPU-1", "-pl", "300"], ["nvidia-smi", "-i", "GPU-2", "-pl", "250"]]
    divides = [
        ["nvidia-smi", "-i", "GPU-2", "-mig", "1"],
        ["nvidia-smi", "mig", "-i", "GPU-2", "-cgi", "3g.40gb,3g.40gb", "-C"],
    ]
    lost = [{**gpu, "power_limit": 700.0}, {**mig, "power_limit": 400.0}]
    assert _driver_boot.restore(before, divided(lost, 2)) == limits
    # With the instances gone, and with the mode gone too.
    assert _driver_boot.restore(before, divided(lost, 0)) == _driver_boot.restore(before, lost) == [*limits, *divides]
    assert _driver_boot.restore(before, []) == [limits[1], *divides]
