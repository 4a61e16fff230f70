# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program of the unit that exchanges a model's pieces with its peers; libtorrent does the exchange.

Job: {mode: fill|seed, repo_id, commit, quant, files: [{path, size, sha256}], folder, peers: [address], port, upload_limit, mirror,
ca_file, timeout, rate_limit} and, to fill, {status, number, sharers}, to seed, {seconds, ratio}. Sizes are bytes, times seconds.

To fill: files arrive as ``<name>.part``, each with a journal ``<name>.part.json`` of what is there; whoever reads them verifies them by
SHA-256 and fetches what is missing. To seed: published files are only read. In both, nobody but the named peers is spoken to.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import time
from typing import Any

from ansible_collections.onprem.llamacpp.plugins.module_utils._files import write_json
from ansible_collections.onprem.llamacpp.plugins.module_utils._journal import give_journal
from ansible_collections.onprem.llamacpp.plugins.module_utils._swarm_share import RUN_BYTES, STALLED, Place, next_run
from ansible_collections.onprem.llamacpp.plugins.module_utils._swarm_source import Mirror, Source, SourceError
from ansible_collections.onprem.llamacpp.plugins.module_utils._torrent import Torrent, TorrentError, read

POLL = 0.1
STATUS_SECONDS = 1.0
LINGER = 20.0  # at most, for peers that lack pieces, before the files are handed on
HELD_BYTES = 64 * 2**20  # from the mirror on the way to disk
WRITTEN = 10.0  # after which it should be there
LARGEST_FAILURES = 5  # of the mirror in a row
SETTINGS = {
    "alert_mask": 0,
    "enable_dht": False,
    "enable_lsd": False,
    "enable_natpmp": False,
    "enable_upnp": False,
    "enable_incoming_utp": False,
    "enable_outgoing_utp": False,
    # Obfuscation hides nothing and costs time: pe_disabled.
    "in_enc_policy": 2,
    "out_enc_policy": 2,
    "unchoke_slots_limit": -1,  # a site's hosts are few, and all of them are friends
    "allow_multiple_connections_per_ip": False,
    # Hosts start within seconds of each other, and the first attempt to connect often comes too early.
    "min_reconnect_time": 1,
    "peer_connect_timeout": 3,
    "max_failcount": 1000,
    "connection_speed": 100,
}


class SwarmError(Exception):
    """One line for the user."""


def addresses(names: list[str]) -> dict[str, str]:
    """Address of each name that has one, by name."""
    found = {}
    for name in names:
        with contextlib.suppress(OSError):
            found[name] = str(socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)[0][4][0])
    return found


def ranges(torrent: Torrent, have: list[bool]) -> dict[str, list[list[int]]]:
    """For each file the [begin, end] of bytes whose pieces are there, joined where they touch."""
    found: dict[str, list[list[int]]] = {path: [] for path, _size in torrent.files}
    for piece, there in enumerate(have):
        for path, first, last in torrent.spans(*torrent.bounds(piece)) if there else []:
            if found[path] and found[path][-1][1] == first:
                found[path][-1][1] = last
            else:
                found[path].append([first, last])
    return found


class Engine:
    """libtorrent with one torrent in it."""

    def __init__(self, job: dict[str, Any], data: bytes, torrent: Torrent, suffix: str) -> None:
        import libtorrent  # noqa: PLC0415 - a package of the distribution, for the system's Python

        self.lt, self.torrent = libtorrent, torrent
        self.peers = addresses(job["peers"])
        self.port = int(job["port"])
        limits = {"upload_rate_limit": int(job["upload_limit"]), "listen_interfaces": f"0.0.0.0:{self.port},[::]:{self.port}"}
        self.session = libtorrent.session({**SETTINGS, **limits})
        self._let_in_only_peers()
        params = libtorrent.add_torrent_params()
        params.ti = libtorrent.torrent_info(libtorrent.bdecode(data))
        params.save_path = job["folder"]
        params.renamed_files = {number: os.path.basename(path) + suffix for number, (path, _size) in enumerate(torrent.files)}
        flags = libtorrent.torrent_flags
        params.flags &= ~(flags.auto_managed | flags.paused)
        # The mirror's web seed is ours to read: by shares, not by everyone for himself.
        params.flags |= flags.disable_dht | flags.disable_lsd | flags.disable_pex | flags.override_web_seeds | flags.override_trackers
        if job["mode"] == "seed":
            params.flags |= flags.seed_mode
        self.handle = self.session.add_torrent(params)
        self.looked_at = 0.0

    def _let_in_only_peers(self) -> None:
        rules = self.lt.ip_filter()
        rules.add_rule("0.0.0.0", "255.255.255.255", 1)
        rules.add_rule("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 1)
        for address in self.peers.values():
            rules.add_rule(address, address, 0)
        self.session.set_ip_filter(rules)

    def connect(self) -> set[str]:
        """Look for the peers that are not there, once a second; returns those that are, by the name they were given."""
        there = {info.ip[0] for info in self.handle.get_peer_info() if not info.flags & (info.connecting | info.handshake)}
        if time.monotonic() - self.looked_at >= 1.0:
            self.looked_at = time.monotonic()
            for address in set(self.peers.values()) - there:
                self.handle.connect_peer((address, self.port))
        return {name for name, address in self.peers.items() if address in there}

    def status(self) -> Any:
        found = self.handle.status()
        if found.errc.value():
            raise SwarmError(f"libtorrent: {found.errc.message()} ({found.error_file})")
        return found

    def offered(self) -> list[int]:
        """How many connected peers have each piece."""
        return list(self.handle.piece_availability()) or [0] * len(self.torrent.pieces)

    def give(self, piece: int, data: bytes) -> None:
        """A whole piece that is known to be right; it replaces what peers have brought of it so far."""
        self.handle.add_piece(piece, data, self.lt.add_piece_flags_t.overwrite_existing)

    def lacking_peers(self) -> bool:
        """Whether a connected peer lacks anything."""
        return any(not info.flags & info.seed for info in self.handle.get_peer_info())

    def close(self) -> None:
        """Everything to disk; returns when the last file is closed."""
        self.session.pause()
        del self.handle
        del self.session


def find_torrent(job: dict[str, Any], source: Source) -> tuple[bytes, Torrent]:
    """The mirror's torrent, when it is of the very files that are wanted. Raises SourceError, TorrentError and SwarmError."""
    data = source.torrent(job["repo_id"], job["commit"], job["quant"])
    torrent = read(data)
    if (torrent.commit, torrent.files) != (job["commit"], [(item["path"], item["size"]) for item in job["files"]]):
        raise SwarmError(f"the torrent of {source.mirror.url} has other files than the repository")
    return data, torrent


class Fill:
    """Brings what of a quant can be had into the staging directory. The thread of ``run`` watches, another one reads the mirror."""

    def __init__(self, job: dict[str, Any], source: Source) -> None:
        self.job, self.source = job, source
        self.place = Place(int(job["number"]), job["sharers"], frozenset(job["peers"]) - set(job["sharers"]))
        self.have: list[bool] = []
        self.connected: set[str] = set()
        self.idle = 0.0
        self.stalled = False  # once, and what peers say of themselves counts no more
        self.note = ""
        self.from_mirror = 0
        self.handed: dict[int, float] = {}  # piece from the mirror to when it was
        self.finished = threading.Event()

    def run(self) -> None:
        data, self.torrent = find_torrent(self.job, self.source)
        self.engine = Engine(self.job, data, self.torrent, ".part")
        self.supplier = threading.Thread(target=self._supply, daemon=True)
        try:
            self._check_what_is_there()
            self.started = time.monotonic()
            self.supplier.start()
            self._watch()
            self._linger()
        finally:
            self.finished.set()
            if self.supplier.is_alive():
                self.supplier.join(5.0)
            self.engine.close()
            self._write_journals()
        self._write_status("filled" if all(self.have) else "short")

    def _check_what_is_there(self) -> None:
        """Parts of an earlier attempt are read once; what is not the torrent's counts as missing."""
        status = self.engine.status()
        while status.state in (status.checking_files, status.checking_resume_data):
            time.sleep(POLL)
            status = self.engine.status()
        self.have = list(status.pieces)

    def _watch(self) -> None:
        told, last, moved = 0.0, -1, time.monotonic()
        while True:
            self.connected = self.engine.connect()
            status = self.engine.status()
            self.have = list(status.pieces)
            now = time.monotonic()
            if status.total_payload_download != last:
                last, moved = status.total_payload_download, now
            self.idle = now - moved
            self.stalled = self.stalled or self.idle >= STALLED
            if all(self.have):
                return
            if not self.supplier.is_alive() and self.idle >= LINGER:
                return  # neither the mirror nor a peer brings anything
            if now - told >= STATUS_SECONDS:
                told = now
                self._write_status("running")
            time.sleep(POLL)

    def _linger(self) -> None:
        deadline = time.monotonic() + LINGER
        while all(self.have) and self.engine.lacking_peers() and time.monotonic() < deadline:
            self.engine.connect()
            time.sleep(POLL)

    def _supply(self) -> None:
        """Read from the mirror what is this host's to bring; give up when it fails again and again."""
        longest, failures = max(RUN_BYTES // self.torrent.piece_length, 1), 0
        while not self.finished.is_set():
            handed = self._on_the_way()
            have = [there or piece in handed for piece, there in enumerate(self.have)]
            offered = [0] * len(have) if self.stalled else self.engine.offered()
            age = time.monotonic() - self.started
            run = next_run(self.place, have, offered, self.connected, age, self.idle, longest)
            if not run:
                self.finished.wait(POLL)
                continue
            try:
                for piece, data in self.source.pieces(self.torrent, self.job["repo_id"], run):
                    self.engine.give(piece, data)
                    self.handed[piece] = time.monotonic()
                    self.from_mirror += len(data)
                    failures = 0
                    while len(self._on_the_way()) * self.torrent.piece_length > HELD_BYTES and not self.finished.is_set():
                        self.finished.wait(POLL)
            except SourceError as error:
                failures += 1
                self.note = str(error)
                if failures >= LARGEST_FAILURES:
                    return
                self.finished.wait(2.0**failures)

    def _on_the_way(self) -> set[int]:
        """Pieces from the mirror that are being written. One that is not there in time was spoilt by a peer's part of it."""
        now = time.monotonic()
        self.handed = {piece: since for piece, since in self.handed.items() if not self.have[piece] and now - since < WRITTEN}
        return set(self.handed)

    def _write_journals(self) -> None:
        for item in self.job["files"]:
            part = os.path.join(self.job["folder"], os.path.basename(item["path"]) + ".part")
            if self.have and os.path.lexists(part):
                give_journal(part, item, ranges(self.torrent, self.have)[item["path"]])

    def _write_status(self, state: str) -> None:
        done = sum(end - begin for found in ranges(self.torrent, self.have).values() for begin, end in found)
        document = {"bytes_done": done, "bytes_from_mirror": self.from_mirror, "peers": len(self.connected), "note": self.note}
        write_json(self.job["status"], {"state": state, **document})


def seed(job: dict[str, Any], source: Source) -> None:
    """Give published files to peers until the time is over, or each byte was given ``ratio`` times (0: no such bound)."""
    data, torrent = find_torrent(job, source)
    engine = Engine(job, data, torrent, "")
    deadline = time.monotonic() + float(job["seconds"])
    try:
        while time.monotonic() < deadline:
            engine.connect()
            if 0 < float(job["ratio"]) * torrent.size <= engine.status().total_payload_upload:
                return
            time.sleep(1.0)
    finally:
        engine.close()


def main(arguments: list[str]) -> int:
    """``swarm.pyz JOB``; token and CA file come as the systemd credentials ``private`` and ``ca``."""
    with open(arguments[1], encoding="utf-8") as stream:
        job = json.load(stream)
    os.umask(0o022)
    try:
        credentials = os.environ["CREDENTIALS_DIRECTORY"]
        with open(os.path.join(credentials, "private"), encoding="utf-8") as stream:
            token = str(json.load(stream)["token"])
        ca_file = os.path.join(credentials, "ca") if job["ca_file"] else ""
        source = Source(Mirror(job["mirror"], token, ca_file, float(job["timeout"])), int(job["rate_limit"]))
        if job["mode"] == "seed":
            seed(job, source)
        else:
            Fill(job, source).run()
    except (SwarmError, SourceError, TorrentError, OSError, RuntimeError) as error:
        said = " ".join(str(error).split())
        if job["mode"] == "fill":
            with contextlib.suppress(OSError):
                write_json(job["status"], {"state": "failed", "note": said})
        sys.stderr.write(f"{said}\n")
        return 1
    return 0
