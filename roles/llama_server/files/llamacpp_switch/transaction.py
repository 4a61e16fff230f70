# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The transaction: from one deployment to another, and back when the gate says no."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator
from typing import Any, Optional

from .evidence import LOG_LINES, last_words
from .files import SCHEMA_VERSION, Busy, Document, Layout, SwitchError, now, read_json, sync_directory, write_json
from .front import Front
from .gate import Gate, brief, said
from .host import Systemd
from .overlap import Beside, choose
from .preflight import check, require_parts, warm
from .retention import prune

UNFINISHED = ("prepared", "beside", "switched", "gating", "undoing")
LOG_LINE_LENGTH = 300
POLL_SECONDS = 0.5
UNKNOWN_GAP = "a server ended by itself while it had the requests: it is not known for how long nothing was served"
OWN = "switch"  # who takes the front out of service while a server is exchanged
KEPT = 3  # deployments beside the current and the previous one, where a request does not say


class Switch:
    """One instance's switch: its lock, its journal and the steps."""

    def __init__(self, layout: Layout, systemd: Systemd, second: Optional[Systemd] = None) -> None:
        self.layout, self.systemd = layout, systemd
        self.front = Front(layout)
        self.beside = Beside(layout, second or Systemd(layout.instance, "llamacpp-beside"))
        self._overlapped = False  # whether the second server takes the requests meanwhile
        self._unbroken = False  # whether the old server lived until the second one had them
        self._second: tuple[str, ...] = ()  # which run of the second server has them
        self.journal: Document = read_json(layout.journal)
        self._told = 0.0
        self._unwritten = False  # whether the journal has more to say than is on disk
        self._stopped: Optional[float] = None  # when the server that served was stopped, by the monotonic clock

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the instance's lock; the kernel drops it with the process.

        :raises Busy: another process holds it.
        """
        self.layout.recorded.mkdir(parents=True, exist_ok=True)
        with open(self.layout.lock, "w", encoding="utf-8") as handle:
            # Someone who asks whether a switch is running holds the lock for an instant.
            for _attempt in range(10):
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError:
                    time.sleep(0.05)
            else:
                raise Busy()
            self.journal = read_json(self.layout.journal)
            yield

    def running(self) -> bool:
        """Whether some process is inside a switch of this instance."""
        try:
            with open(self.layout.lock, encoding="utf-8") as handle:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return False

    def record(self, **changes: Any) -> None:
        """Write the journal; it is on disk before this returns.

        :raises OSError: it cannot be written, and says what it said.
        """
        document = self._changed(changes)
        write_json(self.layout.journal, document)
        self.journal, self._unwritten = document, False

    def note(self, **changes: Any) -> None:
        """The same where nothing may depend on it: what cannot be written now is written with what comes next."""
        self.journal, self._unwritten = self._changed(changes), True
        with contextlib.suppress(OSError):
            write_json(self.layout.journal, self.journal)
            self._unwritten = False

    def _changed(self, changes: Document) -> Document:
        """The journal with changes."""
        document = {**self.journal, **changes, "seq": int(self.journal.get("seq", 0)) + 1, "updated_at": now()}
        if "state" in changes:
            document["states"] = [*self.journal.get("states", []), {"state": changes["state"], "at": now()}]
        return document

    def tell(self, progress: str) -> None:
        """Leave a progress line for whoever polls, at most one a second."""
        if time.monotonic() - self._told >= 1:
            self._told = time.monotonic()
            self.note(progress=progress)

    # -- steps

    def run(self, to: str, run_id: str, restart: bool = False, ahead: bool = True) -> Document:
        """Switch to a deployment, and back when it fails.  Returns the final journal.

        :param ahead: whether its model may be read into the page cache before the running server is stopped; a way back is not, and what
            is wrong with the front does not stand in its way
        :raises Busy: another switch is running.
        """
        with self.locked():
            # An old server that cannot be started any more must not stand in the way of a new one.
            with contextlib.suppress(SwitchError):
                self.recover_locked()
            old = self._begin(to, run_id)
            self._transact(to, old, restart, ahead)
            self._open()
            with contextlib.suppress(OSError):  # what is not removed now is with the next switch
                prune(self.layout, int(self.layout.request(to).get("keep", KEPT)))
            if self._unwritten:
                try:
                    self.record()
                except OSError as error:
                    raise SwitchError(f"{self.journal['progress']}; this could not be recorded: {words(error)}") from None
        return self.journal

    def _begin(self, to: str, run_id: str) -> str:
        """Open the journal; the id of the deployment that is to be replaced."""
        old = self.layout.linked("current")
        self.journal = {
            "schema_version": SCHEMA_VERSION,
            "instance": self.layout.instance,
            "run": run_id,
            "to": to,
            "from": old,
            "previous_before": self.layout.linked("previous"),
            "committed": self.journal.get("committed", "") or (old if self._proven(old) else ""),
            "serving": "",
            "restarted": False,
            "overlap": {},
            "warmed": {},
            "gap_seconds": None,
            "reason": "",
            "log_tail": [],
            "gate": {},
            "started_at": now(),
            "seq": self.journal.get("seq", 0),
            "states": [],
        }
        self.record(state="prepared", progress="checking the host")
        return old

    def _transact(self, to: str, old: str, restart: bool, ahead: bool) -> None:
        """The steps from ``prepared`` on; the journal says what they came to."""
        try:
            speed = check(self.layout, self.systemd, to, front=ahead)
            choice = choose(self.layout, self.systemd, self.front, to)
            self.record(overlap=choice._asdict())
            if choice.chosen:
                if not self._serve_beside(to, old, speed):
                    return
            elif ahead and old and (old != to or restart):
                self.record(warmed=warm(self.layout, self.systemd, to, self.tell))
                self._close(float(self.layout.request(to).get("drain_seconds", 0)))
        except Exception as error:  # whatever it was, the old deployment has not been touched
            self.note(state="undone", reason=explain(error), serving=self._serving(), progress="refused before anything was changed")
            return
        try:
            questions = Gate(self.layout, self.systemd, to, self.tell, speed, back=not ahead)  # counts errors of devices from here on
            self._change(to, old, restart)
            self.record(state="gating", progress="waiting for the server")
            gate = questions.run(self._gap)
            self.systemd.enable(True)
            if self.layout.wants.is_dir():
                sync_directory(self.layout.wants)
            self.front.point(int(self.layout.request(to)["port"]))
            self._handed_back(gate)
            self.record(state="committed", committed=to, serving=to, **self._end(gate, "committed"))
        except Exception as error:  # whatever it was, the old deployment must come back
            self._undo(to, old, explain(error), speed)
            return
        self._leave_beside(to)

    def _close(self, seconds: float) -> None:
        """Let the front refuse new requests, and wait for those that the server has under way before it is stopped."""
        if not self.front.present or self.systemd.show().get("ActiveState") != "active":
            return
        self._stopped = time.monotonic()
        self.front.drain(OWN)
        left = self.front.wait_idle(self.front.port, seconds, self.tell)
        if left:
            self.tell(f"{left} requests took longer than {seconds:.0f} s and are cut off")

    def _open(self) -> None:
        """Take requests again, unless somebody else has taken the instance out of service."""
        with contextlib.suppress(OSError):
            self.front.undrain(OWN)

    def _serve_beside(self, to: str, old: str, speed: float) -> bool:
        """Prove the deployment on the spare port and send requests there; otherwise nothing has happened to the old one."""
        request = self.layout.request(to)
        port, first = int(request["spare_port"]), self.systemd.life()
        self.record(state="beside", progress="starting the new server beside the old one")
        try:
            questions = Gate(self.layout, self.beside.systemd, to, self.tell, speed, port)
            self.beside.start(to, port)
            questions.run()
            self._second = self.beside.systemd.life()
            self.front.point(port)
            self._unbroken = self.systemd.life() == first
            left = self.front.wait_idle(int(self.layout.request(old)["port"]), float(request["drain_seconds"]), self.tell)
        except Exception as error:  # whatever it was, requests go where they went
            tail = self._tail(self.beside.systemd)
            self._point(old)
            self.beside.stop()
            gap = 0.0 if self._lives(self.systemd, first) else None
            told = f"undone: {old} served on" if gap is not None else f"undone: {UNKNOWN_GAP}"
            self.note(state="undone", serving=self._serving(), gap_seconds=gap, reason=explain(error), log_tail=tail, progress=told)
            return False
        self._overlapped = True
        if left:
            self.tell(f"{left} requests took longer than {request['drain_seconds']} s and are cut off")
        return True

    def _leave_beside(self, serving: str) -> None:
        """End the second server when its last request is answered."""
        if self.beside.present:
            self.front.wait_idle(self.beside.port, float(self.layout.request(serving).get("drain_seconds", 0)), self.tell)
            self.beside.stop()
            self.note(progress=self.journal["progress"])

    def _point(self, deployment: str) -> None:
        """Send requests to a deployment's own port; a server has to come back whatever nginx says, and its gate will ask the front."""
        with contextlib.suppress(SwitchError, OSError):
            self.front.point(int(self.layout.request(deployment).get("port", 0)) or self.front.port)

    def _serving(self) -> str:
        """The deployment that requests reach now, as far as systemd and the front tell; empty for none."""
        with contextlib.suppress(SwitchError):
            if self.beside.serves(self.front):
                return self.beside.deployment
            return self.layout.linked("current") if self.systemd.show().get("ActiveState") == "active" else ""
        return ""

    def _gap(self) -> Optional[float]:
        """Seconds for which nothing was served, when a server begins to answer; None where nothing was stopped. Lets requests in."""
        self._open()
        if self._overlapped:
            return 0.0 if self._unbroken and self._lives(self.beside.systemd, self._second) else None
        return None if self._stopped is None else round(time.monotonic() - self._stopped, 2)

    @staticmethod
    def _lives(systemd: Systemd, before: tuple[str, ...]) -> bool:
        """Whether a unit is still in the same run of its process."""
        with contextlib.suppress(SwitchError):
            return systemd.life() == before
        return False

    def _handed_back(self, gate: Document) -> None:
        """When the instance's own server has the requests again: a gap that nobody measured is not called none."""
        if self._overlapped and self._gap() is None:
            gate["gap_seconds"] = None
            gate["warnings"].append(UNKNOWN_GAP)
            write_json(self.layout.recorded / gate["deployment"] / "gate.json", gate)

    @staticmethod
    def _end(gate: Document, progress: str) -> Document:
        """What the journal says of a gate that was passed, and of how long nothing was served."""
        gap = gate.get("gap_seconds")
        told = progress if gap is None else f"{progress}, after {gap:.1f} s without service"
        return {"gate": brief(gate), "gap_seconds": gap, "progress": told}

    def _change(self, to: str, old: str, restart: bool) -> None:
        """Let ``current`` name the deployment and start the server from it."""
        if old != to:
            if old:
                self.layout.link("previous", old)
            self.layout.link("current", to)
        self.layout.link_drop_in(True)
        self.record(state="switched", progress="restarting the server")
        self.systemd.reload()
        active = self.systemd.show().get("ActiveState") == "active"
        # The same deployment that is already running only has to prove itself again.
        if old != to or restart or not active:
            self.record(restarted=True)
            if not self._overlapped:
                self.front.point(int(self.layout.request(to)["port"]))
            if active and self._stopped is None:
                self._stopped = time.monotonic()
            self.systemd.restart()

    def _restore_links(self, old: str) -> None:
        """Take the links back to a deployment, as they were when it served."""
        after = old == self.journal.get("to") != self.journal.get("from")
        self.layout.link("current", old)
        self.layout.link("previous", self.journal.get("from" if after else "previous_before", ""))
        self.layout.link_drop_in(bool(old))

    def _undo(self, to: str, old: str, reason: str, speed: float) -> None:
        """Put the old deployment back and gate it; without one, stop. A full disk, on which nothing can be noted, is no obstacle."""
        self.note(state="undoing", reason=reason, log_tail=self._tail(), progress="undoing: " + reason)
        try:
            if old == to:
                raise SwitchError("there is no other deployment to go back to")
            self._restore_links(old)
            self.systemd.reload()
            if not old:
                self.systemd.stop()
                self.systemd.enable(False)
                self.note(state="undone", committed="", serving="", progress="undone: nothing was served before, the unit is stopped")
                return
            try:
                require_parts(self.layout, old)
            except SwitchError:
                self.systemd.stop()  # what runs now is what failed
                raise
            if not self._overlapped:
                self._point(old)
            self.systemd.restart()
            gate = Gate(self.layout, self.systemd, old, self.tell, speed, back=True).run(self._gap)
            if self._overlapped:
                self._point(old)
                self._handed_back(gate)
        except Exception as error:  # the journal has to end with what it came to
            self.note(state="failed", serving=self._serving(), undo_reason=explain(error), progress=f"failed: {explain(error)}")
            return
        self.note(state="undone", serving=old, **self._end(gate, f"undone: {old} serves again"))
        self._leave_beside(old)

    def recover(self, boot: bool = False) -> bool:
        """Undo a switch that nobody is working on any more; whether there was one.

        :param boot: systemd starts the servers when this is done, and must not be asked to before
        """
        try:
            with self.locked():
                return self.recover_locked(boot)
        except Busy:
            return False

    def recover_locked(self, boot: bool = False) -> bool:
        state, current = self.journal.get("state", ""), self.layout.linked("current")
        self._open()
        old = self._way_back(current)
        if old is None:
            # After an undoing that failed it may be the only one that serves; a boot ends it, and requests must not go there then.
            if self.beside.present and not self.beside.serves(self.front):
                self._point(self.layout.linked("current"))
                self.beside.stop()
            return False
        # Until the links are changed the server is the old one, and not stopped for nothing.
        untouched = state in ("prepared", "beside") and current == old
        self._restore_links(old)
        if old:
            self._point(old)
        self.systemd.reload()
        # Before the old one takes its memory again.
        self.beside.stop()
        active = self.systemd.show().get("ActiveState") == "active"
        if not old:
            if active:
                self.systemd.stop()
            self.systemd.enable(False)
        elif not untouched and (active or not boot):
            self.systemd.restart()
        why = f"interrupted in state {state}" if state else "its journal is lost"
        told = f"the switch was {why}" if state else f"the journal was lost before {current} was committed"
        reason = self.journal.get("reason") or told
        committed = old if self._proven(old) else self.journal.get("committed", "")
        self.record(state="undone", reason=reason, committed=committed, serving=old if boot else self._serving(), progress=f"undone: {why}")
        return True

    def _way_back(self, current: str) -> Optional[str]:
        """The deployment that has to serve in place of the current one, empty for none; None when the current one may."""
        committed = self.journal.get("committed", "")
        if self.journal.get("state") in UNFINISHED:
            return str(committed or self.journal.get("from", ""))
        if committed:
            # Whatever the switch came to: the links could not be restored, or the journal was not written.
            return str(committed) if current not in ("", committed) else None
        # Without a journal the gates themselves say which deployment may serve.
        previous = self.layout.linked("previous")
        lost = not self.journal.get("state") and current and not self._proven(current)
        return previous if lost and self._proven(previous) else None

    def _proven(self, deployment: str) -> bool:
        """Whether a deployment has passed its last gate."""
        return bool(deployment and read_json(self.layout.recorded / deployment / "gate.json").get("passed"))

    def _tail(self, systemd: Optional[Systemd] = None) -> list[str]:
        """The last lines that the server's log has to say, without anything that looks like one of its keys."""
        unit, lines = systemd or self.systemd, []
        with contextlib.suppress(SwitchError, OSError):
            lines = said(self.layout, unit, unit.show().get("InvocationID", ""))
        return [line[:LOG_LINE_LENGTH] for line in last_words(lines, LOG_LINES)]

    def status(self) -> Document:
        """The journal, with whether a switch is running now and what the unit does."""
        running = self.running()
        self.journal = read_json(self.layout.journal)
        document = {"state": "none", "seq": 0, "committed": "", **self.journal}
        document.update(running=running, current=self.layout.linked("current"), previous=self.layout.linked("previous"))
        document["active_state"] = self.systemd.show().get("ActiveState", "unknown")
        return document

    def wait(self, after: int, seconds: float) -> Document:
        """The status as soon as the journal has moved past a sequence number, or after some seconds."""
        end = time.monotonic() + seconds
        while True:
            document = self.status()
            if not document["running"] or document["seq"] > after or time.monotonic() >= end:
                return document
            time.sleep(POLL_SECONDS)


def words(error: Exception) -> str:
    """What an exception says, in a line."""
    if isinstance(error, SwitchError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return repr(error)


def explain(error: Exception) -> str:
    """The reason that an exception stands for."""
    return words(error) if isinstance(error, SwitchError) else f"the switch itself failed: {words(error)}"
