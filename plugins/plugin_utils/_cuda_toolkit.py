# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A chosen CUDA toolkit as the building host will have it: where its parts lie and what CMake is told."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _cuda

REQUEST = ("platform", "family", "architecture", "hosts", "wish", "offers", "releases", "compilers", "root")

# Where Red Hat's system keeps compilers other than its own.
_TOOLSET = "/opt/rh/gcc-toolset-{0}/root/usr/bin/g++"


def compiler_path(family: str, compiler: int) -> str:
    """The program of a g++ other than the system's own."""
    return _TOOLSET.format(compiler) if family == "redhat" else f"/usr/bin/g++-{compiler}"


def compiler_package(family: str, compiler: int) -> str:
    """The package of the C++ compiler; 0 stands for the system's own."""
    if family == "redhat":
        return f"gcc-toolset-{compiler}-gcc-c++" if compiler else "gcc-c++"
    return f"g++-{compiler}" if compiler else "g++"


def _folders(source: str, version: str, name: str, architecture: str, root: str) -> dict[str, Any]:
    if source == "nvidia":
        path = f"/usr/local/cuda-{version}"
        return {"path": path, "library_paths": [f"{path}/lib64"]}
    if source == "distribution":
        return {"path": "/usr", "library_paths": [f"/usr/lib/{architecture}-linux-gnu"]}
    path = f"{root}/{name}"
    return {"path": path, "library_paths": [f"{path}/lib"]}


def describe(request: Mapping[str, Any]) -> dict[str, Any]:
    """The toolkit for a build. Without one that suits, only ``problems`` says something.

    ``release`` is the exact release where it is pinned (PyPI), else the version. ``host_compiler`` is empty where the
    system's own compiler is accepted; one that the user names is passed on as it is.
    """
    wish = request["wish"]
    named = str(wish.get("host_compiler") or "")
    number = re.search(r"g\+\+-(\d+)$|gcc-toolset-(\d+)/", named)
    compilers = [int(number[1] or number[2])] if number else [] if named else list(request["compilers"])
    choice = _cuda.choose(str(request["platform"]), request["hosts"], wish, request["offers"], compilers)
    if choice["problems"]:
        return {"source": "", "version": "", "release": "", "cmake_options": [], "problems": choice["problems"]}
    source, version, family = choice["source"], choice["version"], str(request["family"])
    release = str(request["releases"].get(version, version)) if source == "pypi" else version
    folders = _folders(source, version, release, str(request["architecture"]), str(request["root"]))
    stub = f"{request['root']}/stubs/{version}/libcuda.so.1"
    compiler = named or (compiler_path(family, choice["compiler"]) if choice["compiler"] else "")
    options = {
        "CMAKE_CUDA_COMPILER": f"{folders['path']}/bin/nvcc",
        "CUDAToolkit_ROOT": folders["path"],
        # Any driver's library is linked against this one, which has its names and nothing else.
        "CUDA_cuda_driver_LIBRARY": stub,
        **({"CMAKE_CUDA_HOST_COMPILER": compiler} if compiler else {}),
    }
    return {
        "source": source,
        "version": version,
        "release": release,
        **folders,
        "nvcc": options["CMAKE_CUDA_COMPILER"],
        "stub": stub,
        "host_compiler": compiler,
        "compiler_package": "" if named else compiler_package(family, choice["compiler"]),
        "cmake_options": [f"-D{name}={value}" for name, value in options.items()],
        "problems": [],
    }
