# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is shown of a server that has ended: the line that says why, in the reason and among the last lines, and no key."""

from __future__ import annotations

import pytest
from switch_host import KEY, NEW, evidence, files, hosts
from switch_host import gate as gates

FRAMES = """\
/usr/lib/x86_64-linux-gnu/libggml-base.so.0(+0x150c5) [0x7faa7649e0c5]
/usr/lib/x86_64-linux-gnu/libggml-base.so.0(ggml_print_backtrace+0x203) [0x7faa7649e493]
/usr/lib/x86_64-linux-gnu/libggml-base.so.0(ggml_abort+0x130)[0x7faa7649e640]
/usr/lib/x86_64-linux-gnu/libggml-base.so.0(+0x2b5a3)[0x7faa764b45a3]
/usr/lib/x86_64-linux-gnu/libggml-base.so.0(ggml_backend_sched_reserve+0x61) [0x7faa764b6001]
/usr/lib/x86_64-linux-gnu/libllama.so.0(_ZN13llama_context13graph_reserveEjjjPK22llama_memory_context_ibPm+0x1c3) [0x7faa755ff1c3]
/usr/lib/x86_64-linux-gnu/libllama.so.0(_ZN13llama_contextC2ERK11llama_model20llama_context_params+0x68f) [0x7faa75609f2f]
/usr/lib/x86_64-linux-gnu/libllama.so.0(llama_init_from_model+0x1a5) [0x7faa7560b2a5]
/opt/llamacpp/releases/b11549-cpu/bin/llama-server(+0x1e9a30) [0x55d0c3a70a30]
/opt/llamacpp/releases/b11549-cpu/bin/llama-server() [0x55d0c3a70a30]
/lib/x86_64-linux-gnu/libc.so.6(+0x29ca8) [0x7faa74e33ca8]
/lib/x86_64-linux-gnu/libc.so.6(__libc_start_main+0x85) [0x7faa74e33d65]
/opt/llamacpp/releases/b11549-cpu/bin/llama-server(_start+0x21) [0x55d0c39f8f51]
[0x7faa74e33ca8]
""".splitlines()
GDB = """\
[New LWP 16269]
[New LWP 16268]

This GDB supports auto-downloading debuginfo from the following URLs:
  <https://debuginfod.fedoraproject.org/>
Enable debuginfod for this session? (y or [n]) [answered N; input not from terminal]
Debuginfod has been disabled.
To make this setting permanent, add 'set debuginfod enabled off' to .gdbinit.
[Thread debugging using libthread_db enabled]
Using host libthread_db library "/lib64/libthread_db.so.1".
0x00007fad83e2ee13 in wait4 () from /lib64/libc.so.6
#0  0x00007fad83e2ee13 in wait4 () from /lib64/libc.so.6
#1  0x000055f2b80f1639 in ggml_abort ()
#2  0x00007fad85c36a52 in ggml_cuda_error(char const*, char const*, char const*, int, char const*) () from /usr/lib/libggml-cuda.so
[Inferior 1 (process 16261) detached]
""".splitlines()
NO_GDB = """\
Could not attach to process.  If your uid matches the uid of the target
process, check the setting of /proc/sys/kernel/yama/ptrace_scope, or try
again as the root user.  For more details, see /etc/sysctl.d/10-ptrace.conf
warning: process 1515739 is already traced by process 1515725
ptrace: Operation not permitted.
No stack.
The program is not being run.
""".splitlines()
LOADING = [f"0.0{number}.123.456 I load_tensors: line {number}" for number in range(9)]
ASSERTION = "./src/ggml-backend.cpp:1442: GGML_ASSERT(*cur_backend_id != -1) failed"
CUDA = [
    "CUDA error: out of memory",
    "  current device: 0, in function alloc at /src/ggml-cuda.cu:406",
    "  cuMemCreate(&handle, reserve_size, &prop, 0)",
    "/src/ggml-cuda.cu:132: CUDA error",
]
BROKEN = [
    "0.00.651.452 E llama_model_load: error loading model: tensor 'blk.3.ffn_down_exps.weight' data is not within the file bounds",
    "0.00.651.460 E llama_model_load_from_file_impl: failed to load model",
    "0.00.651.470 E srv    load_model: failed to load model, '/var/lib/llamacpp/models/x.gguf'",
    "0.00.651.480 I srv    operator(): operator(): cleaning up before exit...",
]
NATIVE = [
    "WARNING: Using native backtrace. Set GGML_BACKTRACE_LLDB for more info.",
    "WARNING: GGML_BACKTRACE_LLDB may cause native MacOS Terminal.app to crash.",
    "See: https://github.com/ggml-org/llama.cpp/pull/17869",
]
UNCAUGHT = ["terminate called after throwing an instance of 'std::runtime_error'", "  what():  the state has a wrong size"]
FAILED = "GGML_ASSERT(*cur_backend_id != -1) failed at ./src/ggml-backend.cpp:1442"
ENDS = {
    "an assertion": ([*LOADING, ASSERTION, *NATIVE, *FRAMES], [*LOADING, ASSERTION], FAILED),
    "an assertion and no right to look": ([*LOADING, ASSERTION, *NO_GDB], [*LOADING, ASSERTION], FAILED),
    "an assertion and much after it": ([ASSERTION, *FRAMES, *LOADING, *LOADING], [ASSERTION, *LOADING[-2:], *LOADING], FAILED),
    "a device's error": ([*CUDA, *GDB], CUDA, "CUDA error: out of memory at /src/ggml-cuda.cu:132"),
    "a broken file": ([*LOADING, *BROKEN], [*LOADING, *BROKEN][-12:], BROKEN[0]),
    "an exception": ([*LOADING, *UNCAUGHT], [*LOADING, *UNCAUGHT], "what():  the state has a wrong size"),
    "nothing said": (LOADING, LOADING, ""),
    "nothing at all": ([], [], ""),
}


@pytest.mark.parametrize(("log", "shown", "why"), ENDS.values(), ids=ENDS)
def test_the_line_that_says_why_is_shown_and_backtraces_are_not(log, shown, why):
    assert evidence.last_words(log, 12) == shown
    assert evidence.why(log) == why


def test_reason_of_a_server_that_aborts_has_its_assertion(host, monkeypatch):
    host.deploy(NEW, "crash")
    monkeypatch.setattr(host.systemd, "log", lambda *_arguments: [*LOADING, ASSERTION, *FRAMES])
    state = {"ActiveState": "failed", "ExecMainCode": "3", "ExecMainStatus": "6", "Result": "core-dump", "InvocationID": "i"}
    monkeypatch.setattr(host.systemd, "show", lambda *_more: state)
    journal = host.run(NEW)
    assert journal["reason"] == f"the server ended by itself: killed by signal 6 ({FAILED})"
    assert journal["log_tail"] == [*LOADING, ASSERTION]


def test_log_of_the_process_that_was_started_is_read_after_it_was_started_again(host, monkeypatch):
    host.deploy(NEW)
    states = iter([{"ActiveState": "active", "MainPID": "1", "InvocationID": "first"}])
    monkeypatch.setattr(host.systemd, "show", lambda *_more: next(states, {"ActiveState": "activating", "InvocationID": "second"}))
    monkeypatch.setattr(host.systemd, "log", lambda invocation, *_last: [ASSERTION] if invocation == "first" else [])
    with pytest.raises(files.SwitchError, match="GGML_ASSERT"):
        gates.Gate(host.layout, host.systemd, NEW, lambda _progress: None).run()


def test_killed_server_is_given_no_reason_that_it_did_not_have(host, monkeypatch):
    gate = gates.Gate(host.layout, host.systemd, NEW, lambda _progress: None)
    monkeypatch.setattr(host.systemd, "log", lambda *_arguments: ["warning: failed to mlock"])
    state = {"ExecMainCode": "2", "ExecMainStatus": "9", "Result": "oom-kill"}
    assert gate._death(state) == hosts.death(state) == "killed because memory ran out"


def test_no_key_of_the_file_is_shown(host, monkeypatch):
    second = "a7" * 32
    host.layout.api_keys.write_text(f"{KEY}\n# of the other team\n{second}\n")
    host.deploy(NEW, "crash")
    monkeypatch.setattr(
        host.systemd, "log", lambda *_arguments: ["started", f"error: no {KEY}", f"error: no {second}", "api_keys: ****5f5f"]
    )
    journal = host.run(NEW)
    assert journal["log_tail"] == ["started"] and second not in str(journal)
