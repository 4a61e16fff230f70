#!/usr/bin/python
# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: hardware_facts
short_description: Collects what a plan needs to know about a host
version_added: 0.1.0
description:
  - Reads hardware, disks, engines, models and instances of a host in one run, with nothing but the host's Python.
  - Sources are procfs, sysfs, the SMBIOS tables, C(nvidia-smi) when there is one, and the documents that this collection's roles leave
    behind.
  - A tool that is missing, fails or hangs becomes an entry in RV(ansible_facts.llama_hardware.warnings), never a failure.
options:
  paths:
    description: Absolute paths whose filesystems are reported; a path need not exist yet.
    type: list
    elements: path
    default: [/opt/llamacpp, /var/lib/llamacpp/models]
  ports:
    description: TCP ports for which listening programs are reported. Naming programs of other users needs root.
    type: list
    elements: int
    default: [8080]
  engine_root:
    description: Folder that holds the engine releases.
    type: path
    default: /opt/llamacpp
  model_root:
    description: Folder that holds the published models.
    type: path
    default: /var/lib/llamacpp/models
  device_backend:
    description:
      - Where devices are read from.
      - V(auto) and V(cuda) ask C(nvidia-smi) and, where no driver answers, the PCI bus.
      - V(vulkan) and V(rpc) ask an installed engine of that backend, V(cpu) reports none.
    type: str
    choices: [auto, cpu, cuda, vulkan, rpc]
    default: auto
  engine_environment:
    description: Environment variables for that engine, such as E(LLAMA_ARG_RPC) or E(GGML_VK_VISIBLE_DEVICES).
    type: dict
    default: {}
  measure:
    description:
      - What is measured, for a second or two each; nothing unless asked. A host under load measures less than it could.
      - V(memory) copies between buffers on all processors, with an eighth of the available memory at most.
      - V(disk) reads the largest model below each of O(paths), past the cache, else a file of at most 256 MiB that is made there and
        removed at once. In check mode no file is made.
    type: list
    elements: str
    choices: [memory, disk]
    default: []
extends_documentation_fragment:
  - onprem.llamacpp.attributes
attributes:
  diff_mode:
    support: none
    details: Nothing is changed.
  facts:
    description: Returns C(ansible_facts).
    support: full
seealso:
  - plugin: onprem.llamacpp.fit_plan
    plugin_type: filter
    description: Turns these facts into a plan.
author:
  - onprem.llamacpp contributors (@onprem)
"""

EXAMPLES = r"""
- name: Collect hardware facts
  onprem.llamacpp.hardware_facts:
  become: true

- name: Show the memory of the host
  ansible.builtin.debug:
    msg: "{{ ansible_facts.llama_hardware.memory.total }} bytes"
"""

RETURN = r"""
ansible_facts:
  description: Facts of the host.
  returned: always
  type: dict
  contains:
    llama_hardware:
      description: Hardware and what this collection has put on the host. Sizes are bytes.
      returned: always
      type: dict
      contains:
        schema_version:
          description: Version of this structure.
          type: int
          returned: always
          sample: 2
        collected_at:
          description: When the facts were read, UTC.
          type: str
          returned: always
          sample: "2026-11-21T22:00:00Z"
        platform:
          description: Distribution and release.
          type: str
          returned: always
          sample: debian-12
        hostname:
          description: The host's own name.
          type: str
          returned: always
        architecture:
          description: Of the machine, as in C(uname -m).
          type: str
          returned: always
          sample: x86_64
        glibc:
          description: Version of the C library.
          type: str
          returned: always
          sample: "2.36"
        python:
          description: Version of the Python that the module ran with.
          type: str
          returned: always
          sample: 3.11.2
        os:
          description: Distribution, release, codename, family (V(debian), V(redhat), V(other)), kernel and version of systemd.
          type: dict
          returned: always
          sample: {"id": debian, "version_id": "12", "codename": bookworm, "family": debian, "kernel": 6.1.0-50-amd64, "systemd": 252}
        memory:
          description: The host's memory.
          type: dict
          returned: always
          contains:
            total: {description: What the kernel manages., type: int, returned: always, sample: 67392348160}
            available: {description: What could be had now without swapping., type: int, returned: always, sample: 63000000000}
            swap_total: {description: Swap., type: int, returned: always, sample: 0}
            huge_pages: {description: Reserved for huge pages and of no use to a server., type: int, returned: always, sample: 0}
            cgroup_limit:
              description: The least limit of the control groups that a system service lives in; null without one.
              type: int
              returned: always
            bandwidth:
              description:
                - C(bytes_per_second), and C(basis) for how that is known.
                - V(measured) when that was asked for; V(dmi) is the peak of the channels in use by the SMBIOS tables, which root can read;
                  V(class) is a default. For each socket that is 250 GB/s for servers with DDR5, 120 GB/s for other servers, 50 GB/s for
                  everything else, and in all no more than 12 GB/s for each core.
              type: dict
              returned: always
              sample: {"bytes_per_second": 307200000000, "basis": dmi}
        cpu:
          description: C(model), C(sockets), C(cores), C(threads), C(flags) that matter to an engine, and C(numa_nodes) (id, cpus, memory).
          type: dict
          returned: always
        devices:
          description:
            - Devices a model can be placed on.
            - A GPU that is divided (MIG) appears as its instances and not itself. One that is lost or cannot be read does not appear;
              a warning names its address.
          type: list
          elements: dict
          returned: always
          contains:
            uuid: {description: UUID of the GPU or MIG instance; empty without a driver., type: str, returned: always}
            kind: {description: "V(cuda), V(vulkan) or V(rpc).", type: str, returned: always}
            engine_name: {description: The engine's name for it when all are used., type: str, returned: always, sample: CUDA0}
            name: {description: Model., type: str, returned: always, sample: Tesla T4}
            total: {description: Memory; that of the host where it is shared., type: int, returned: always, sample: 16106127360}
            foreign: {description: Memory held by compute programs that are not ours., type: int, returned: always, sample: 0}
            pci_address: {description: As the kernel writes it., type: str, returned: always, sample: "0000:00:1e.0"}
            driver:
              description: Whether a driver serves it. Without one it is known by its PCI id and a table of models.
              type: bool
              returned: always
            driver_version: {description: Version of the driver., type: str, returned: always, sample: 550.163.01}
            compute_capability: {description: NVIDIA's number for its instructions., type: str, returned: always, sample: "7.5"}
            bandwidth: {description: "Of its memory by model, bytes per second; 0 when unknown.", type: int, returned: always}
            unified: {description: Whether it shares the host's memory., type: bool, returned: always}
            virtual: {description: Whether it is a virtual GPU., type: bool, returned: always}
            numa_node: {description: "The node that it is next to, -1 when unknown.", type: int, returned: always}
            mig_parent: {description: "UUID of the GPU that this instance is of, else empty.", type: str, returned: always}
            ecc: {description: Whether error correction is on; null when it does not say., type: bool, returned: always}
            power_limit: {description: Watts; null when it does not say., type: float, returned: always}
            pcie:
              description: Its link now, C(generation) and C(width), and at best, C(max_generation) and C(max_width); 0 when unknown.
              type: dict
              returned: always
            processes:
              description: Compute programs on it, with C(pid), C(name), C(bytes), their systemd C(unit), and whether they are C(ours).
              type: list
              elements: dict
              returned: always
        driver:
          description: The kernel driver of NVIDIA devices and what decides whether one can be installed.
          type: dict
          returned: always
          contains:
            version: {description: "Of the loaded module, else empty.", type: str, returned: always, sample: 580.95.05}
            modules: {description: "V(open), V(proprietary), or empty where none is loaded.", type: str, returned: always}
            loaded: {description: Modules of NVIDIA's and others' drivers that are loaded., type: list, elements: str, returned: always}
            nvswitches: {description: NVSwitches on the bus., type: int, returned: always}
            container: {description: "The kind of container that the host is, empty for a machine.", type: str, returned: always}
            jetson: {description: Whether it is a Jetson., type: bool, returned: always}
            licensed_guest: {description: Whether a licensed driver of a virtual GPU is configured., type: bool, returned: always}
            installer: {description: "The program that removes a driver of NVIDIA's installer, else empty.", type: str, returned: always}
            secure_boot: {description: Whether Secure Boot is on; null when the firmware does not say., type: bool, returned: always}
            kernels:
              description: Installed kernels with C(release) and whether their C(headers) are there.
              type: list
              elements: dict
              returned: always
            stream: {description: "The stream of NVIDIA's packages that dnf has enabled, else empty.", type: str, returned: always}
            record: {description: "What P(onprem.llamacpp.nvidia_driver#role) installed, else empty.", type: dict, returned: always}
            packages: {description: Versions of the recorded packages now., type: dict, returned: always}
        other_gpus:
          description:
            - GPUs of other makers with C(vendor) (V(amd), V(intel)), C(pci_address), C(pci_id), and C(name) when the host has a C(pci.ids).
          type: list
          elements: dict
          returned: always
        disks:
          description: Filesystems of the paths asked for.
          type: list
          elements: dict
          returned: always
          contains:
            path: {description: The path asked for., type: str, returned: always}
            mount: {description: Where its filesystem is mounted., type: str, returned: always}
            filesystem: {description: Kind of filesystem., type: str, returned: always, sample: ext4}
            total: {description: Size., type: int, returned: always}
            free: {description: Free to programs that are not root's., type: int, returned: always}
            sparse: {description: Whether it keeps holes in files; null when unknown., type: bool, returned: always}
            rotational: {description: Whether its disk turns; null when unknown., type: bool, returned: always}
            sequential_read: {description: "Bytes per second, measured; null unless O(measure) asks.", type: int, returned: always}
        engines:
          description:
            - Engine releases with their C(build.json). C(used_by) names the instances whose C(current) or C(previous) deployment needs one.
          type: list
          elements: dict
          returned: always
        engine_config:
          description:
            - A settings file that is not ours and that programs of llama.cpp merge into theirs, with C(path) and the names of its C(keys),
              null when it cannot be read. Empty without one.
          type: dict
          returned: always
          sample: {"path": /etc/llama.cpp/config.ini, "keys": [ctx-size]}
        models:
          description:
            - Published models with their manifests. C(used_by) names the instances whose C(current) or C(previous) deployment needs
              one, and C(frees) the bytes that its removal frees, which are fewer where it shares files with another.
          type: list
          elements: dict
          returned: always
        partial_models:
          description: Models that a download has begun, with the bytes it holds and when it last wrote (C(modified_at), UTC).
          type: list
          elements: dict
          returned: always
        instances:
          description:
            - Server instances, their deployment and state. C(models_missing) names those of V(current) and V(previous) whose model
              was removed.
          type: list
          elements: dict
          returned: always
        tuning:
          description: Settings of the host that C(llama_server_tuning) has asked for.
          type: list
          elements: dict
          returned: always
        listeners:
          description: Programs that listen on the ports asked for.
          type: list
          elements: dict
          returned: always
        warnings:
          description: Sources that could not be read, in words.
          type: list
          elements: str
          returned: always
"""

from datetime import datetime, timezone

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.onprem.llamacpp.plugins.module_utils import _hardware


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "paths": {"type": "list", "elements": "path", "default": ["/opt/llamacpp", "/var/lib/llamacpp/models"]},
            "ports": {"type": "list", "elements": "int", "default": [8080]},
            "engine_root": {"type": "path", "default": "/opt/llamacpp"},
            "model_root": {"type": "path", "default": "/var/lib/llamacpp/models"},
            "device_backend": {"type": "str", "default": "auto", "choices": ["auto", "cpu", "cuda", "vulkan", "rpc"]},
            "engine_environment": {"type": "dict", "default": {}},
            "measure": {"type": "list", "elements": "str", "choices": ["memory", "disk"], "default": []},
        },
        supports_check_mode=True,
    )
    environment = {key: str(value) for key, value in module.params["engine_environment"].items()}
    facts = _hardware.collect(**{**module.params, "engine_environment": environment}, may_write=not module.check_mode)
    facts["collected_at"] = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    module.exit_json(changed=False, ansible_facts={"llama_hardware": facts})


if __name__ == "__main__":
    main()
