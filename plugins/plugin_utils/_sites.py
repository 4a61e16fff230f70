# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a host takes its models from: its site's mirror, a directory, the Hub, and in which order. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Optional

TRANSPORTS = ("auto", "hub", "mirror", "swarm", "directory")


class Mirror(NamedTuple):
    """A host that serves models to its site. ``name`` is its own in the inventory, empty where only a URL was given."""

    name: str
    site: str
    url: str
    token: str = ""


def mirror_of(host: Mapping[str, Any]) -> Mirror:
    """A host of the group llama_mirrors, from its variables."""
    name = str(host["inventory_hostname"])
    secure = bool(host.get("llama_mirror_tls_certificate"))
    port = int(host.get("llama_mirror_port") or (443 if secure else 80))
    address = str(host.get("ansible_host") or name)
    shown = f"[{address}]" if ":" in address else address
    url = f"{'https' if secure else 'http'}://{shown}{'' if port == (443 if secure else 80) else f':{port}'}"
    token = str(host.get("llama_mirror_token") or "")
    return Mirror(name, str(host.get("llama_site") or ""), str(host.get("llama_mirror_url") or url).rstrip("/"), token)


def sources(wish: Mapping[str, Any], hosts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What a host is to ask for models, best first.

    Args:
        wish: {site, transport, endpoint, token, mirror, mirror_token, directory}, as the host's variables say; tokens may be left out.
        hosts: the variables of every host of the group llama_mirrors.

    Returns:
        ``sources`` as gguf_download takes them, ``mirror`` {name, url} and ``endpoint`` for whoever asks for a listing (empty
        where they are not to be asked), and ``problem``, a sentence that is empty when all is well.
    """
    transport = wish["transport"]
    if transport not in TRANSPORTS:
        return _refused(f"llama_model_transport is {transport!r}, expected one of {', '.join(TRANSPORTS)}.")
    known = [mirror_of(host) for host in hosts]
    mirror = _chosen(wish, known) if transport in ("auto", "mirror", "swarm") else None
    if transport in ("mirror", "swarm") and mirror is None:
        return _refused(_lacks_mirror(transport, wish["site"], known))
    directory = wish["directory"] if transport in ("auto", "directory") else ""
    if transport == "directory" and not directory:
        return _refused("llama_model_transport is directory, but llama_model_directory names none. Set it to the folder on the host.")
    if directory and not str(directory).startswith("/"):
        return _refused(f"llama_model_directory is {directory!r}, expected an absolute path on the host.")
    endpoint = str(wish["endpoint"]).rstrip("/")
    if mirror is not None and endpoint == mirror.url:
        endpoint = ""
    found = []
    if directory:
        found.append({"transport": "directory", "url": directory, "token": ""})
    if mirror is not None:
        found.append({"transport": "mirror", "url": mirror.url, "token": mirror.token})
    if endpoint and transport in ("auto", "hub"):
        found.append({"transport": "hub", "url": endpoint, "token": str(wish.get("token") or "")})
    # A directory of files has no listing of its own, so the repository is asked all the same.
    asks = endpoint if transport in ("auto", "hub", "directory") else ""
    return {
        "sources": found,
        "mirror": {"name": mirror.name, "url": mirror.url} if mirror is not None else {},
        "endpoint": asks,
        "problem": "",
    }


def listing_sources(wish: Mapping[str, Any], hosts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Whom to ask what a repository holds: as above, without what must stay secret."""
    found = sources(wish, hosts)
    return {key: found[key] for key in ("mirror", "endpoint", "problem")}


def _chosen(wish: Mapping[str, Any], known: list[Mirror]) -> Optional[Mirror]:
    """The mirror that was named, or the first of the host's site."""
    if wish["mirror"]:
        return Mirror("", wish["site"], str(wish["mirror"]).rstrip("/"), str(wish.get("mirror_token") or ""))
    return next((mirror for mirror in known if mirror.site == str(wish["site"])), None)


def _lacks_mirror(transport: str, site: str, known: list[Mirror]) -> str:
    there = ", ".join(f"{mirror.name} ({mirror.site or 'no site'})" for mirror in known) or "none"
    place = f"the site {site}" if site else "a host without llama_site"
    return (
        f"llama_model_transport is {transport}, but {place} has no mirror. Hosts of the group llama_mirrors: {there}. "
        "Set llama_site of the host or of a mirror, name one as llama_model_mirror, or choose another transport."
    )


def _refused(problem: str) -> dict[str, Any]:
    return {"sources": [], "mirror": {}, "endpoint": "", "problem": problem}
