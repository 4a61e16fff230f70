# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be wished of a server, and under which flags builds of llama-server have known it.

The table names flags, never ranges of builds: whether a build has a flag is read from its own help. ``since`` is told to
people, so that a refusal says which build to take.
"""

from __future__ import annotations

from typing import NamedTuple, Optional

# The oldest build whose help the table was compared with.
OLDEST = 8672


class Intent(NamedTuple):
    """One wish.

    ``flags`` carry it, the first that a build knows is used; ``opposite`` are those that say no. ``default`` is what a build
    without any of them does. ``without`` says why nothing is lost where a build has no flag for it; empty, the wish is
    refused there. ``since`` is the first build known to have it, 0 for all that were looked at; ``hint`` adds to a refusal.
    """

    words: str
    flags: tuple[str, ...]
    opposite: tuple[str, ...] = ()
    default: Optional[bool] = None
    without: str = ""
    since: int = 0
    hint: str = ""


# Defaults of these have changed between builds, so they are always said.
HOST = Intent("host", ("--host",))
PORT = Intent("port", ("--port",))
MODEL = Intent("model", ("--model",))
ALIAS = Intent("alias", ("--alias",))
CTX_SIZE = Intent("context size", ("--ctx-size",))
PARALLEL = Intent("slots", ("--parallel",))
JINJA = Intent("chat templates by jinja", ("--jinja",), ("--no-jinja",), default=True)

UBATCH = Intent("micro batch size", ("--ubatch-size",))
BATCH = Intent("batch size", ("--batch-size",))
CACHE_TYPE_K = Intent("cache type", ("--cache-type-k",))
CACHE_TYPE_V = Intent("cache type", ("--cache-type-v",))
CACHE_RAM = Intent("prompt cache in MiB", ("--cache-ram",), without="it keeps no prompts in memory")
CTX_CHECKPOINTS = Intent("copies of a slot's state", ("--ctx-checkpoints",), without="it makes no such copies")
FLASH_ATTENTION = Intent("flash attention", ("--flash-attn",))

GPU_LAYERS = Intent("layers on devices", ("--n-gpu-layers", "--gpu-layers"))
FIT = Intent("fit", ("--fit",), without="it never changes what it was told")
CPU_MOE = Intent("all experts in host memory", ("--cpu-moe",))
N_CPU_MOE = Intent("layers whose experts are in host memory", ("--n-cpu-moe",))
OVERRIDE_TENSORS = Intent("tensor placement", ("--override-tensor",))
TENSOR_SPLIT = Intent("split over devices", ("--tensor-split",))
DEVICES = Intent("devices", ("--device",))
RPC_SERVERS = Intent("RPC servers", ("--rpc",), hint="Only builds with GGML_RPC=ON have it.")

LOAD_MODE = Intent("load mode", ("--load-mode",), since=10108)
# What load modes were made of, in builds up to b10865; newer ones end at once when they are given one of these.
MMAP = Intent("memory mapping", ("--mmap",), ("--no-mmap",), default=True)
MLOCK = Intent("load mode mlock", ("--mlock",))
DIRECT_IO = Intent("load mode dio", ("--direct-io",))
REPACK = Intent("repacking of weights", ("--repack",), ("--no-repack",), default=True)
WARMUP = Intent("warm-up", ("--warmup",), ("--no-warmup",), default=True)
THREADS = Intent("threads", ("--threads",))
NUMA = Intent("NUMA strategy", ("--numa",))

METRICS = Intent("metrics", ("--metrics",))
# Slots show other users' prompts; builds without a flag for them do not serve them unasked.
SLOTS = Intent("slots endpoint", ("--slots",), ("--no-slots",), default=False)
UI = Intent("web interface", ("--ui", "--webui"), ("--no-ui", "--no-webui"), without="its page shows nothing without the API key")
OFFLINE = Intent("offline", ("--offline",), without="it fetches nothing that it was not told to fetch")
CORS_ORIGINS = Intent("origins that browsers may ask from", ("--cors-origins",), since=10068)
REASONING = Intent("reasoning", ("--reasoning",))
LOG_LEVEL = Intent(
    "log level", ("--log-verbosity",), without="where its log names no buffers, the gate asks it for its devices and records no memory"
)

ALL = {name: intent for name, intent in list(globals().items()) if isinstance(intent, Intent)}
