#!/usr/bin/python
# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: llama_engine_info
short_description: Ask an installed llama.cpp what it is and what it can do
version_added: 0.1.0
description:
  - Runs C(llama-server) of an engine with C(--version), C(--help) and C(--list-devices) and returns what they say, parsed.
  - Changes nothing and needs nothing but the host's Python.
  - An engine for CUDA on a host without a driver is asked with the driver's stand-in that its release carries, and has no devices then.
author:
  - onprem.llamacpp contributors (@onprem)
extends_documentation_fragment:
  - onprem.llamacpp.attributes
attributes:
  diff_mode:
    support: none
    details: Nothing is changed.
options:
  path:
    description: Folder that holds the programs of the engine.
    type: path
    required: true
  packages:
    description: Debian packages whose installed versions, programs and libraries are returned too.
    type: list
    elements: str
    default: []
  release:
    description: Folder of a release whose files are returned too, each with its checksum.
    type: path
  timeout:
    description: Seconds after which a program that does not answer is given up.
    type: int
    default: 120
"""

EXAMPLES = r"""
- name: Ask a release for its flags
  onprem.llamacpp.llama_engine_info:
    path: /opt/llamacpp/releases/b11549-cpu-x86_64-0a1b2c3d/bin
  register: engine

- name: Ask Debian's packages
  onprem.llamacpp.llama_engine_info:
    path: /usr/bin
    packages: [llama.cpp-tools, llama.cpp-tools-extra, libggml0, libllama0]
"""

RETURN = r"""
runs:
  description: Whether the server's program could be run on this host and said its version.
  type: bool
  returned: always
reason:
  description: Why it could not be run.
  type: str
  returned: always
missing_libraries:
  description: Shared libraries that the program needs and the host lacks, as far as the linker named them.
  type: list
  elements: str
  returned: always
version:
  description: Build C(number), C(commit), C(version) and C(compiler).
  type: dict
  returned: when it runs
version_text:
  description: What C(--version) printed.
  type: str
  returned: when it runs
capabilities:
  description: The list C(options), each with C(names), C(env), C(value) and C(values).
  type: dict
  returned: when it runs
driver:
  description: Whether the engine found the driver's library, if it needs one.
  type: bool
  returned: when it runs
devices:
  description: Devices with C(engine_name), C(name), and C(total) and C(free) in bytes.
  type: list
  elements: dict
  returned: when it runs
devices_text:
  description: What C(--list-devices) printed.
  type: str
  returned: when it runs
package_versions:
  description: Versions of the packages asked for, by name; one that is not installed is absent.
  type: dict
  returned: always
package_files:
  description: Programs and libraries of these packages, and all backends beside theirs, by path with their sha256.
  type: dict
  returned: always
contents:
  description: Files below C(bin) and C(lib) of O(release) by path with their sha256; a link with C(-> ) and where it leads.
  type: dict
  returned: always
  sample: {"bin/llama-server": 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae, "lib/libllama.so": "-> libllama.so.0"}
"""

import os
import signal
from typing import Callable

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.onprem.llamacpp.plugins.module_utils import _capabilities, _host, _installed

ELF = b"\x7fELF"

DRIVER = "libcuda.so.1"


def why_not(program: str, status: int, text: str) -> str:
    """One sentence about a program that could not be run or did not say its version."""
    libraries = _capabilities.missing_libraries(text)
    if libraries:
        return f"{program} needs {', '.join(libraries)}, which this host lacks"
    if status == -signal.SIGILL:
        return f"{program} uses instructions that this host's processor lacks: it was built natively for another one"
    last = (text.strip().splitlines() or ["it printed nothing"])[-1]
    return f"{program} --version ended with status {status}: {last}"


def stand_in(program: str, text: str) -> dict[str, str]:
    """Environment by which a program that lacks the driver's library finds the one of its release; empty where that is of no use."""
    stubs = os.path.join(os.path.dirname(os.path.dirname(program)), "lib", "stubs")
    return {"LD_LIBRARY_PATH": stubs} if DRIVER in _capabilities.missing_libraries(text) and os.path.isdir(stubs) else {}


def package_versions(names: list[str]) -> dict[str, str]:
    if not names:
        return {}
    _status, out, _err = _host.run_command(["dpkg-query", "-W", "-f=${Package} ${Version} ${db:Status-Status}\\n", *names])
    rows = [line.split(" ") for line in out.splitlines()]
    return {row[0]: row[1] for row in rows if len(row) == 3 and row[2] == "installed"}


def package_files(names: list[str], sha256: Callable[[str], str]) -> dict[str, str]:
    """The sha256 of every program and library of these packages, and of all backends that the engine loads, by path; no links."""
    if not names:
        return {}
    _status, out, _err = _host.run_command(["dpkg-query", "-L", *names])
    found = {}
    for path in sorted(set(out.splitlines())):
        if os.path.isfile(path) and not os.path.islink(path):
            with open(path, "rb") as handle:
                if handle.read(len(ELF)) == ELF:
                    found[path] = sha256(path)
    return {**found, **{path: sha256(path) for path in _installed.other_backends(found)}}


def contents(release: str, sha256: Callable[[str], str]) -> dict[str, str]:
    """What a release is made of, so that two of them can be compared."""
    found = {}
    for part in ("bin", "lib"):
        for folder, _folders, files in os.walk(os.path.join(release, part)):
            for name in files:
                path = os.path.join(folder, name)
                found[os.path.relpath(path, release)] = f"-> {os.readlink(path)}" if os.path.islink(path) else sha256(path)
    return found


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "packages": {"type": "list", "elements": "str", "default": []},
            "release": {"type": "path"},
            "timeout": {"type": "int", "default": 120},
        },
        supports_check_mode=True,
    )
    program = os.path.join(module.params["path"], "llama-server")
    timeout = float(module.params["timeout"])
    result = {
        "changed": False,
        "runs": False,
        "reason": "",
        "missing_libraries": [],
        "package_versions": package_versions(module.params["packages"]),
        "package_files": package_files(module.params["packages"], module.sha256),
        "contents": contents(module.params["release"], module.sha256) if module.params["release"] else {},
    }
    status, out, err = _host.run_command([program, "--version"], timeout)
    text = out + err
    environment = stand_in(program, text) if status != 0 else {}
    if environment:
        status, out, err = _host.run_command([program, "--version"], timeout, environment)
        text = out + err
    version = _capabilities.parse_version(text) if status == 0 else None
    if version is None:
        result["reason"] = why_not(program, status, text)
        result["missing_libraries"] = _capabilities.missing_libraries(text)
        module.exit_json(**result)
    status, usage, err = _host.run_command([program, "--help"], timeout, environment)
    options = _capabilities.parse_help(usage or err)
    if status != 0 or not options:
        result["reason"] = f"{program} --help ended with status {status} and lists no options"
        module.exit_json(**result)
    status, devices, err = _host.run_command([program, "--list-devices"], timeout, environment)
    module.exit_json(
        **{
            **result,
            "runs": True,
            "version": version,
            "version_text": text.strip(),
            "capabilities": {"options": options},
            "driver": not environment,
            "devices": _capabilities.parse_devices(devices),
            "devices_text": devices.strip() if status == 0 else f"status {status}: {err.strip()}",
        }
    )


if __name__ == "__main__":
    main()
