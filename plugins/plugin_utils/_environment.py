# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what a plan wants to what one build of llama-server accepts.

Everything goes through the build's capability list: a flag that is not in it is never passed, and a wish that the build
cannot express is an error unless leaving it out has the same effect. Environment variables are preferred to arguments,
since other users of a host can read neither from a process list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional

ARGUMENTS = "LLAMACPP_ARGS"

# Never rendered: the unit passes a file, so that no key is in an environment that systemctl shows.
SECRETS = ("--api-key", "--api-key-file", "--hf-token")

QUANTISED_CACHES = ("q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")


class ExpressionError(ValueError):
    """A wish that this build cannot express, or a value that cannot be written down."""


class Rendering:
    """Collects environment variables and arguments for one build."""

    def __init__(self, build: Mapping[str, Any]) -> None:
        options = (build.get("capabilities") or {}).get("options") or []
        if not options:
            raise ExpressionError("the engine's capability list is empty: flags are decided when the engine is installed")
        self.label = build.get("tag") or build.get("build_id") or "this build"
        self.options: dict[str, Mapping[str, Any]] = {name: option for option in options for name in option["names"]}
        self.environment: dict[str, str] = {}
        self.arguments: list[str] = []

    def knows(self, *names: str) -> bool:
        """Whether the build has one of these flags."""
        return any(name in self.options for name in names)

    def accepts(self, name: str, value: str) -> bool:
        """Whether the build has the flag and, as far as its help says, takes the value."""
        option = self.options.get(name)
        return option is not None and (not option.get("values") or value in option["values"])

    def value(self, names: Sequence[str], value: Any, intent: str) -> None:
        """Renders a flag that takes a value; the first name that the build knows is the one."""
        text = "" if value is None else str(value)
        if not text or any(character in text for character in "\n\r\0"):
            raise ExpressionError(f"{intent} is {text!r}, which no flag can carry")
        name = self._name(names, f"{intent} {text}")
        option = self.options[name]
        if not option["value"]:
            raise ExpressionError(f"{self.label} takes no value for {name}, so {intent} {text} cannot be set")
        if not self.accepts(name, text):
            raise ExpressionError(f"{self.label} knows {', '.join(option['values'])} for {name}, not {text} ({intent})")
        self._render(option["env"], text, name, text)

    def switch(self, names: Sequence[str], intent: str) -> None:
        """Renders a flag that is given or not."""
        name = self._name(names, intent)
        self._render(self.options[name]["env"], "1", name)

    def choice(self, positive: Sequence[str], negative: Sequence[str], wanted: bool, default: Optional[bool], intent: str) -> None:
        """Renders yes or no, where builds have a pair of flags or only the one that leaves the ``default``.

        Without a flag for it, what the build does by itself must be what is wanted; a ``default`` of None accepts any.
        """
        names = positive if wanted else negative
        name = next((name for name in names if name in self.options), "")
        if not name:
            if default is None or wanted == default:
                return
            raise ExpressionError(self._cannot(f"{'' if wanted else 'no '}{intent}", names))
        option = self.options[name]
        other = negative if wanted else positive
        pair = any(opposite in option["names"] for opposite in other)
        # In a pair one variable speaks for both flags; a flag alone is switched on by its own.
        self._render(option["env"], "0" if pair and not wanted else "1", name)

    def _render(self, env: str, value: str, name: str, argument: str = "") -> None:
        if any(secret in self.options[name]["names"] for secret in SECRETS):
            raise ExpressionError(f"{name} carries a secret and belongs into a file")
        if env:
            self.environment[env] = value
            return
        if any(character.isspace() for character in argument):
            raise ExpressionError(f"{self.label} takes {name} only as an argument, which cannot hold the blank in {argument!r}")
        self.arguments += [name, argument] if argument else [name]

    def _name(self, names: Sequence[str], intent: str) -> str:
        for name in names:
            if name in self.options:
                return name
        raise ExpressionError(self._cannot(intent, names))

    def _cannot(self, intent: str, names: Sequence[str]) -> str:
        return f"{self.label} cannot be told '{intent.strip()}': it has none of {', '.join(names)}. Take a newer engine or change the plan."

    def result(self) -> dict[str, str]:
        """The variables, sorted, with the arguments where there are any."""
        rendered = dict(sorted(self.environment.items()))
        if self.arguments:
            rendered[ARGUMENTS] = " ".join(self.arguments)
        return rendered


def render(plan: Mapping[str, Any], build: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, str]:
    """Environment of a server for this plan on this build.

    ``settings`` has ``model`` (path of the first shard), ``host``, ``port``, ``alias``, and optionally ``metrics`` (true),
    ``slots``, ``ui`` (false), ``offline`` (true), ``devices`` (engine names, none given leaves the choice to the engine).
    Raises ExpressionError for a wish that the build cannot express.
    """
    place = plan.get("placement") or {}
    out = Rendering(build)

    # Defaults of both have changed between builds, so neither is left to the build.
    out.value(["--host"], settings.get("host"), "host")
    out.value(["--port"], settings.get("port"), "port")
    out.value(["--model"], settings.get("model"), "model")
    if settings.get("alias") or plan.get("alias"):
        out.value(["--alias"], settings.get("alias") or plan.get("alias"), "alias")

    out.value(["--ctx-size"], place.get("ctx_size"), "context size")
    out.value(["--parallel"], place.get("parallel") or 1, "slots")
    if place.get("ubatch_size"):
        out.value(["--ubatch-size"], place["ubatch_size"], "micro batch size")
        # A micro batch is cut from a batch, so a larger one needs a batch that holds it.
        if int(place["ubatch_size"]) > 2048:
            out.value(["--batch-size"], place["ubatch_size"], "batch size")
    _cache(out, place)
    _offload(out, place)
    _loading(out, place)

    if place.get("threads"):
        out.value(["--threads"], place["threads"], "threads")
    if place.get("numa"):
        out.value(["--numa"], place["numa"], "NUMA strategy")
    if place.get("rpc_servers"):
        out.value(["--rpc"], ",".join(place["rpc_servers"]), "RPC servers")
    devices = settings.get("devices")
    if devices:
        out.value(["--device"], devices if isinstance(devices, str) else ",".join(devices), "devices")

    if settings.get("metrics", True):
        out.switch(["--metrics"], "metrics")
    # Slots show other users' prompts; builds without a flag for them do not serve them unasked.
    out.choice(["--slots"], ["--no-slots"], bool(settings.get("slots", False)), False, "slots endpoint")
    out.choice(["--ui", "--webui"], ["--no-ui", "--no-webui"], bool(settings.get("ui", False)), None, "web interface")
    if settings.get("offline", True) and out.knows("--offline"):
        out.switch(["--offline"], "offline")
    return out.result()


def _cache(out: Rendering, place: Mapping[str, Any]) -> None:
    for key, name in (("cache_type_k", "--cache-type-k"), ("cache_type_v", "--cache-type-v")):
        if place.get(key):
            out.value([name], place[key], "cache type")
    if place.get("cache_ram_mib") is not None and out.knows("--cache-ram"):  # older builds keep no prompts in memory
        out.value(["--cache-ram"], place["cache_ram_mib"], "prompt cache in MiB")
    if place.get("ctx_checkpoints") is not None and out.knows("--ctx-checkpoints"):
        out.value(["--ctx-checkpoints"], place["ctx_checkpoints"], "copies of a slot's state")
    # A quantised V cache exists with flash attention only; otherwise the engine knows best what its devices can do.
    attention = place.get("flash_attn") or ("on" if place.get("cache_type_v") in QUANTISED_CACHES else "auto")
    if out.knows("--flash-attn"):
        if out.options["--flash-attn"]["value"]:
            out.value(["--flash-attn"], attention, "flash attention")
        elif attention == "on":
            out.switch(["--flash-attn"], "flash attention")


def _offload(out: Rendering, place: Mapping[str, Any]) -> None:
    if place.get("n_gpu_layers") is not None:
        out.value(["--n-gpu-layers", "--gpu-layers"], place["n_gpu_layers"], "layers on devices")
        # The plan has sized the memory. The engine's own fit would give up on fixed layers with no more than a warning.
        if out.knows("--fit"):
            out.value(["--fit"], "off", "fit")
    if place.get("n_cpu_moe") == "all":
        out.switch(["--cpu-moe"], "all experts in host memory")
    elif place.get("n_cpu_moe"):
        out.value(["--n-cpu-moe"], place["n_cpu_moe"], "layers whose experts are in host memory")
    if place.get("override_tensors"):
        out.value(["--override-tensor"], place["override_tensors"], "tensor placement")
    if place.get("tensor_split"):
        out.value(["--tensor-split"], ",".join(f"{share:g}" for share in place["tensor_split"]), "split over devices")


def _loading(out: Rendering, place: Mapping[str, Any]) -> None:
    mode = place.get("load_mode") or "auto"
    if out.knows("--load-mode"):
        if mode == "auto" and not out.accepts("--load-mode", "auto"):
            mode = "mmap"  # what the builds did before they had a name for choosing
        out.value(["--load-mode"], mode, "load mode")
    elif mode in ("auto", "mmap"):
        out.choice(["--mmap"], ["--no-mmap"], True, True, "memory mapping")
    elif mode == "none":
        out.choice(["--mmap"], ["--no-mmap"], False, True, "memory mapping")
    elif mode == "mmap+mlock":
        out.choice(["--mmap"], ["--no-mmap"], True, True, "memory mapping")
        out.switch(["--mlock"], "load mode mlock")
    else:
        out.switch({"mlock": ["--mlock"], "dio": ["--direct-io"]}.get(mode, [f"--load-mode {mode}"]), f"load mode {mode}")
    out.choice(["--repack"], ["--no-repack"], bool(place.get("repack", True)), True, "repacking of weights")
    out.choice(["--warmup"], ["--no-warmup"], bool(place.get("warmup", True)), True, "warm-up")
