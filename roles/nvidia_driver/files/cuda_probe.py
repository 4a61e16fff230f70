# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a small program on every CUDA device: the driver compiles it, the device fills an array, the host compares it.

Needs the driver's library and nothing else, no compiler. Prints one sentence and fails where a device does not compute.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any

COUNT = 1024

# array[i] = 2 i + 1
PROGRAM = b"""
.version 6.0
.target sm_50
.address_size 64
.visible .entry fill(.param .u64 array)
{
  .reg .b32 %i<5>;
  .reg .b64 %a<4>;
  ld.param.u64 %a1, [array];
  mov.u32 %i1, %ctaid.x;
  mov.u32 %i2, %ntid.x;
  mov.u32 %i3, %tid.x;
  mad.lo.s32 %i4, %i1, %i2, %i3;
  mul.wide.s32 %a2, %i4, 4;
  add.s64 %a3, %a1, %a2;
  shl.b32 %i4, %i4, 1;
  add.s32 %i4, %i4, 1;
  st.global.u32 [%a3], %i4;
  ret;
}
\0"""


class ProbeError(Exception):
    """What a device or the driver did not do."""


def call(library: Any, name: str, *arguments: Any) -> None:
    status = getattr(library, name)(*arguments)
    if status != 0:
        text = ctypes.c_char_p()
        library.cuGetErrorName(status, ctypes.byref(text))
        raise ProbeError(f"{name} failed: {(text.value or b'unknown error').decode()} ({status})")


def compute(library: Any, device: int) -> None:
    """Fills an array on a device and compares it."""
    context, module, function, array = (ctypes.c_void_p() for _each in range(4))
    call(library, "cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    try:
        call(library, "cuCtxSetCurrent", context)
        call(library, "cuModuleLoadData", ctypes.byref(module), PROGRAM)
        call(library, "cuModuleGetFunction", ctypes.byref(function), module, b"fill")
        call(library, "cuMemAlloc_v2", ctypes.byref(array), ctypes.c_size_t(4 * COUNT))
        parameters = (ctypes.c_void_p * 1)(ctypes.cast(ctypes.pointer(array), ctypes.c_void_p))
        call(library, "cuLaunchKernel", function, COUNT // 256, 1, 1, 256, 1, 1, 0, None, parameters, None)
        call(library, "cuCtxSynchronize")
        found = (ctypes.c_uint32 * COUNT)()
        call(library, "cuMemcpyDtoH_v2", found, array, ctypes.c_size_t(4 * COUNT))
    finally:
        library.cuDevicePrimaryCtxRelease_v2(device)
    wrong = sum(value != 2 * index + 1 for index, value in enumerate(found))
    if wrong:
        raise ProbeError(f"{wrong} of {COUNT} numbers are wrong")


def probe(library: Any) -> int:
    """How many devices compute."""
    count = ctypes.c_int()
    call(library, "cuInit", 0)
    call(library, "cuDeviceGetCount", ctypes.byref(count))
    if count.value == 0:
        raise ProbeError("CUDA finds no device")
    for device in range(count.value):
        try:
            compute(library, device)
        except ProbeError as error:
            raise ProbeError(f"device {device}: {error}") from None
    return count.value


def main() -> int:
    try:
        count = probe(ctypes.CDLL("libcuda.so.1"))
    except (OSError, ProbeError) as error:
        print(f"CUDA does not work: {error}")
        return 1
    print(f"{count} devices compute")
    return 0


if __name__ == "__main__":
    sys.exit(main())
