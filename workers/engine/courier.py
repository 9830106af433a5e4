"""The courier: brings audit checkpoints to the sinks while its engine leads.

It has a thread and a connection of its own, so that a sink that does not answer holds up neither the
sealing nor another sink for longer than its own patience.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import Final

from django.db import Error as DatabaseError
from django.db import connection

from apps.events import sinks
from apps.events.errors import SinkAway
from apps.events.services import delivery
from apps.events.sinks.base import CheckpointSink

logger = logging.getLogger(__name__)

# Without being rung: for what another engine signed and did not bring.
POLL_S: Final = 10.0
FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 300.0


@dataclass(slots=True)
class _Round:
    """One sink, and when it is asked again. A pause doubles while the sink is away."""

    sink: CheckpointSink
    due: float = 0.0
    pause: float = FIRST_PAUSE_S


class Courier:
    """One per engine. ``work`` starts it with the lead and halts it without."""

    def __init__(self) -> None:
        self._leading = threading.Event()
        self._rung = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._rounds = [_Round(sink) for sink in sinks.configured()]

    def work(self, *, leading: bool) -> None:
        if not leading:
            self._leading.clear()
            return
        self._leading.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="courier", daemon=True)
            self._thread.start()

    def ring(self) -> None:
        """There is a new checkpoint."""
        self._rung.set()

    def stop(self) -> None:
        """End. A delivery under way is not waited for: it is repeated by the next leader."""
        self._stopping.set()
        self._leading.set()
        self._rung.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._leading.wait()
            try:
                waited_for = min(self._go(each) for each in self._rounds)
            except DatabaseError as error:
                logger.warning("courier lost the database", extra={"error": str(error)})
                connection.close()
                waited_for = time.monotonic() + FIRST_PAUSE_S
            self._rung.wait(max(0.0, min(POLL_S, waited_for - time.monotonic())))
            self._rung.clear()
        connection.close()

    def _go(self, each: _Round) -> float:
        """Bring one sink what waits, if it is its time; when that is next."""
        if self._stopping.is_set() or time.monotonic() < each.due:
            return each.due or time.monotonic() + POLL_S
        try:
            done = delivery.deliver(each.sink)
        except SinkAway:
            each.due = time.monotonic() + each.pause
            each.pause = min(2 * each.pause, LONGEST_PAUSE_S)
            return each.due
        each.due, each.pause = 0.0, FIRST_PAUSE_S
        return time.monotonic() + POLL_S if done else time.monotonic()
