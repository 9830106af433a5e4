"""A run's log as its worker writes it: gathered for a moment, numbered here, fenced in the database."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from typing import Final

from django.db import InterfaceError, OperationalError, connection

from apps.core import failpoints
from apps.core.failpoints import Place
from apps.runs.services import acts, leases
from apps.runs.types import Entry, EventKind, Started
from workers.sandbox.egress.policy import Denial

# What a run is refused that wants to leave its sandbox, in the audit log.
EGRESS: Final = "sandbox.egress"
_FULL: Final = 200
_TOO_MANY: Final = 20_000


class RunLog:
    """Written by the run's thread, flushed by it when full and by the node's ticker when not."""

    def __init__(self, started: Started) -> None:
        self._started = started
        self._seq = started.last_event_seq
        self._waiting: list[Entry] = []
        self._noted: deque[Denial] = deque()
        self._lock = threading.Lock()

    def add(self, entries: Iterable[Entry]) -> None:
        """Add lines; raises ``LeaseLost`` when a flush finds the lease gone."""
        with self._lock:
            self._waiting.extend(entries)
            if len(self._waiting) >= _FULL:
                self._flush_if_possible()

    def say(self, text: str, *, level: str = "INFO", **attributes: object) -> None:
        """Add a line of the platform's own."""
        payload = {"level": level, "source": "aos", "text": text, **attributes}
        self.add([Entry(kind=EventKind.LOG, payload=payload)])

    def note_denial(self, denial: Denial) -> None:
        """Note a refused way out for the next flush. Waits for nothing: the proxy's loop calls it."""
        self._noted.append(denial)

    def flush(self) -> None:
        with self._lock:
            self._flush()

    def take(self) -> tuple[int, list[Entry]]:
        """The lines that were not written yet, and the number of the last that was: for the FINISH.

        Milestones are value events too and are written as such; refusals have their audit entry.
        """
        with self._lock:
            if self._noted or any(entry.kind == EventKind.MESSAGE for entry in self._waiting):
                self._flush()
            lines, self._waiting = self._waiting, []
            return self._seq, lines

    def _flush_if_possible(self) -> None:
        """A database that is away for a moment costs no line: they wait, up to a bound."""
        try:
            self._flush()
        except (OperationalError, InterfaceError):
            connection.close()
            if len(self._waiting) >= _TOO_MANY:
                raise

    def _flush(self) -> None:
        while self._noted:
            # Let go only after the write: a database that is away costs no refusal.
            denial = self._noted[0]
            where = {"host": denial.host, "port": denial.port}
            acts.refused(self._started, EGRESS, reason=denial.reason, detail=where)
            told = {**where, "reason": denial.reason}
            payload = {"level": "WARN", "source": "aos", "text": str(denial), "egress": told}
            self._waiting.append(Entry(kind=EventKind.LOG, payload=payload))
            self._noted.popleft()
        if self._waiting:
            failpoints.hit(Place.LOGGING)
            # Cleared only after the write: lines that could not be written are tried again.
            self._seq = leases.append(self._started, self._waiting, after=self._seq)
            self._waiting = []
