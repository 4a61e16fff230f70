# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what a plan wants to what one build of llama-server accepts.

Everything goes through the build's capability list: a flag that is not in it is never passed, and a wish that the build
cannot express is an error unless the table of intents says that nothing is lost. Environment variables are preferred to
arguments, since other users of a host can read neither from a process list.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _floors, _intents
from ansible_collections.onprem.llamacpp.plugins.plugin_utils._intents import Intent

ARGUMENTS = "LLAMACPP_ARGS"

# Never rendered: the unit passes a file, so that no key is in an environment that systemctl shows.
SECRETS = ("--api-key", "--api-key-file", "--hf-token")

QUANTISED_CACHES = ("q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")

# The engine reports its buffers from this level on, which the gate reads; prompts are not logged yet.
LOG_LEVEL = 4


class ExpressionError(ValueError):
    """A wish that this build cannot express, or a value that cannot be written down."""


class Rendering:
    """Collects environment variables and arguments for one build, and notes about wishes that it has no flag for."""

    def __init__(self, build: Mapping[str, Any]) -> None:
        options = (build.get("capabilities") or {}).get("options") or []
        if not options:
            raise ExpressionError("the engine's capability list is empty: flags are decided when the engine is installed")
        self.label = build.get("tag") or build.get("build_id") or "this build"
        self.options: dict[str, Mapping[str, Any]] = {name: option for option in options for name in option["names"]}
        self.environment: dict[str, str] = {}
        self.arguments: list[str] = []
        self.notes: list[str] = []

    def knows(self, intent: Intent) -> bool:
        """Whether the build has a flag that carries the intent."""
        return any(name in self.options for name in intent.flags)

    def accepts(self, intent: Intent, value: str) -> bool:
        """Whether the build has a flag for it and, as far as its help says, takes the value."""
        name = self._name(intent.flags)
        return bool(name) and (not self.options[name].get("values") or value in self.options[name]["values"])

    def value(self, intent: Intent, value: Any) -> None:
        """Renders a flag that takes a value."""
        text = "" if value is None else str(value)
        if not text or any(character in text for character in "\n\r\0"):
            raise ExpressionError(f"{intent.words} is {text!r}, which no flag can carry")
        name = self._name(intent.flags)
        if not name:
            self._leave_out(intent, intent.flags, f"{intent.words} {text}")
            return
        option = self.options[name]
        if not option["value"]:
            raise ExpressionError(f"{self.label} takes no value for {name}, so {intent.words} {text} cannot be set")
        if not self.accepts(intent, text):
            raise ExpressionError(f"{self.label} knows {', '.join(option['values'])} for {name}, not {text} ({intent.words})")
        self._render(option["env"], text, name, text)

    def switch(self, intent: Intent) -> None:
        """Renders a flag that is given or not."""
        name = self._name(intent.flags)
        if name:
            self._render(self.options[name]["env"], "1", name)
        else:
            self._leave_out(intent, intent.flags, intent.words)

    def choice(self, intent: Intent, wanted: bool) -> None:
        """Renders yes or no, where builds have a pair of flags or only the one that leaves the default."""
        names, other = (intent.flags, intent.opposite) if wanted else (intent.opposite, intent.flags)
        name = self._name(names)
        if not name:
            if wanted != intent.default:
                self._leave_out(intent, names, intent.words if wanted else f"no {intent.words}")
            return
        option = self.options[name]
        pair = any(opposite in option["names"] for opposite in other)
        # In a pair one variable speaks for both flags; a flag alone is switched on by its own.
        self._render(option["env"], "0" if pair and not wanted else "1", name)

    def _leave_out(self, intent: Intent, names: tuple[str, ...], wish: str) -> None:
        if intent.without:
            self.notes.append(f"{self.label} has no flag for '{wish}': {intent.without}")
            return
        first = f"b{intent.since} is the first build known to have it." if intent.since else f"Builds since b{_intents.OLDEST} have it."
        raise ExpressionError(
            f"{self.label} cannot be told '{wish}': it has none of {', '.join(names)}. {intent.hint or first}"
            " Take another engine or change the plan."
        )

    def _render(self, env: str, value: str, name: str, argument: str = "") -> None:
        if any(secret in self.options[name]["names"] for secret in SECRETS):
            raise ExpressionError(f"{name} carries a secret and belongs into a file")
        if env:
            self.environment[env] = value
            return
        if any(character.isspace() for character in argument):
            raise ExpressionError(f"{self.label} takes {name} only as an argument, which cannot hold the blank in {argument!r}")
        self.arguments += [name, argument] if argument else [name]

    def _name(self, names: tuple[str, ...]) -> str:
        return next((name for name in names if name in self.options), "")

    def result(self) -> dict[str, str]:
        """The variables, sorted, with the arguments where there are any."""
        rendered = dict(sorted(self.environment.items()))
        if self.arguments:
            rendered[ARGUMENTS] = " ".join(self.arguments)
        return rendered


def render(plan: Mapping[str, Any], build: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, str]:
    """Environment of a server for this plan on this build.

    ``settings`` has ``model`` (path of the first shard), ``host``, ``port``, ``alias``, and optionally ``metrics`` (true),
    ``slots``, ``ui`` (false), ``offline``, ``jinja`` (true), ``devices`` (engine names, none given leaves the choice to the
    engine), ``reasoning`` and ``cors_origins`` (left to the engine), and ``force`` (security floors that are allowed).
    Raises ExpressionError for a wish that the build cannot express, and for RPC with a build below its security floor.
    """
    return _rendering(plan, build, settings).result()


def notes(plan: Mapping[str, Any], build: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    """What of the wish this build is not told, and why nothing is lost; what its users have to know of it.

    Raises ExpressionError as ``render`` does.
    """
    out = _rendering(plan, build, settings)
    # The variable came with the comments: before, every line of the file was a key, its comments too.
    key_file = out.options.get("--api-key-file")
    if key_file is not None and not key_file["env"]:
        out.notes.append(f"{out.label} takes every line of the api-keys file for a key: a comment in it would open the server")
    return out.notes


def _rendering(plan: Mapping[str, Any], build: Mapping[str, Any], settings: Mapping[str, Any]) -> Rendering:
    place = plan.get("placement") or {}
    out = Rendering(build)
    out.value(_intents.HOST, settings.get("host"))
    out.value(_intents.PORT, settings.get("port"))
    out.value(_intents.MODEL, settings.get("model"))
    if settings.get("alias") or plan.get("alias"):
        out.value(_intents.ALIAS, settings.get("alias") or plan.get("alias"))

    out.value(_intents.CTX_SIZE, place.get("ctx_size"))
    out.value(_intents.PARALLEL, place.get("parallel") or 1)
    if place.get("ubatch_size"):
        out.value(_intents.UBATCH, place["ubatch_size"])
        # A micro batch is cut from a batch, so a larger one needs a batch that holds it.
        if int(place["ubatch_size"]) > 2048:
            out.value(_intents.BATCH, place["ubatch_size"])
    _cache(out, place)
    _offload(out, place)
    _loading(out, place)

    for intent, key in ((_intents.THREADS, "threads"), (_intents.NUMA, "numa")):
        if place.get(key):
            out.value(intent, place[key])
    if place.get("rpc_servers"):
        out.value(_intents.RPC_SERVERS, ",".join(place["rpc_servers"]))
        # Whatever backend the engine is called by, and where a package alone knows its number: here it is known.
        refused = _floors.refusals(int(build.get("number") or 0), True, [str(item) for item in settings.get("force") or []])
        if refused:
            raise ExpressionError(" ".join(refused))
    devices = settings.get("devices")
    if not devices and plan.get("confined"):
        devices = [device["engine_name"] for device in plan["devices"]] or ["none"]
    if devices:
        out.value(_intents.DEVICES, devices if isinstance(devices, str) else ",".join(devices))
    _serving(out, settings)
    return out


def _cache(out: Rendering, place: Mapping[str, Any]) -> None:
    for key, intent in (("cache_type_k", _intents.CACHE_TYPE_K), ("cache_type_v", _intents.CACHE_TYPE_V)):
        if place.get(key):
            out.value(intent, place[key])
    for key, intent in (("cache_ram_mib", _intents.CACHE_RAM), ("ctx_checkpoints", _intents.CTX_CHECKPOINTS)):
        if place.get(key) is not None:
            out.value(intent, place[key])
    # A quantised V cache exists with flash attention only; otherwise the engine knows best what its devices can do.
    attention = place.get("flash_attn") or ("on" if place.get("cache_type_v") in QUANTISED_CACHES else "auto")
    bare = out.knows(_intents.FLASH_ATTENTION) and not out.options["--flash-attn"]["value"]
    if attention == "on" and bare:
        out.switch(_intents.FLASH_ATTENTION)
    elif attention == "on" or (out.knows(_intents.FLASH_ATTENTION) and not bare):
        out.value(_intents.FLASH_ATTENTION, attention)


def _offload(out: Rendering, place: Mapping[str, Any]) -> None:
    if place.get("n_gpu_layers") is not None:
        out.value(_intents.GPU_LAYERS, place["n_gpu_layers"])
        # The plan has sized the memory. The engine's own fit would give up on fixed layers with no more than a warning.
        out.value(_intents.FIT, "off")
    if place.get("n_cpu_moe") == "all":
        out.switch(_intents.CPU_MOE)
    elif place.get("n_cpu_moe"):
        out.value(_intents.N_CPU_MOE, place["n_cpu_moe"])
    if place.get("override_tensors"):
        out.value(_intents.OVERRIDE_TENSORS, place["override_tensors"])
    if place.get("tensor_split"):
        out.value(_intents.TENSOR_SPLIT, ",".join(f"{share:g}" for share in place["tensor_split"]))


def _loading(out: Rendering, place: Mapping[str, Any]) -> None:
    mode = place.get("load_mode") or "auto"
    # What the builds did before they had a name for choosing.
    old = "mmap" if mode == "auto" else mode
    if out.knows(_intents.LOAD_MODE):
        out.value(_intents.LOAD_MODE, mode if out.accepts(_intents.LOAD_MODE, mode) else old)
    elif old == "dio":
        out.switch(_intents.DIRECT_IO)
    elif old in ("mmap", "none", "mlock", "mmap+mlock"):
        out.choice(_intents.MMAP, "mmap" in old)
        if "mlock" in old:
            out.switch(_intents.MLOCK)
    else:
        out.value(_intents.LOAD_MODE, old)
    out.choice(_intents.REPACK, bool(place.get("repack", True)))
    out.choice(_intents.WARMUP, bool(place.get("warmup", True)))


def _serving(out: Rendering, settings: Mapping[str, Any]) -> None:
    if settings.get("metrics", True):
        out.switch(_intents.METRICS)
    out.choice(_intents.SLOTS, bool(settings.get("slots", False)))
    out.choice(_intents.UI, bool(settings.get("ui", False)))
    if settings.get("offline", True):
        out.switch(_intents.OFFLINE)
    out.choice(_intents.JINJA, bool(settings.get("jinja", True)))
    if settings.get("reasoning"):
        out.value(_intents.REASONING, settings["reasoning"])
    if settings.get("cors_origins"):
        out.value(_intents.CORS_ORIGINS, settings["cors_origins"])
    out.value(_intents.LOG_LEVEL, LOG_LEVEL)
