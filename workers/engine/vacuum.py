"""Keeps the tables of the queue small while its engine leads.

Every run passes through them in moments and leaves dead rows behind, and each round of a leader reads them from
the front. PostgreSQL's own vacuum comes once a minute at best: at thousands of runs a second a round would
read more dead rows than living ones by far.
"""

from __future__ import annotations

import logging
import threading
from typing import Final

from django.db import Error as DatabaseError
from django.db import connection

from apps.runs.services import dispatch

logger = logging.getLogger(__name__)

#: Runs given out. The dead rows of so many are read in some hundredths of a millisecond.
EVERY: Final = 5_000
PAUSE_S: Final = 1.0


class Vacuum:
    """One per engine, with a thread and a connection of its own. Only who leads gives runs out."""

    def __init__(self, *, every: int = EVERY) -> None:
        self._every = every
        # As if it were time: nobody knows what the leader before us has left.
        self._given_out = every
        self._due = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def note(self, given_out: int) -> None:
        """So many more runs have passed through."""
        self._given_out += given_out
        if self._given_out < self._every:
            return
        self._given_out = 0
        self._due.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="vacuum", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._due.set()

    def _run(self) -> None:
        while self._due.wait() and not self._stopping.is_set():
            self._due.clear()
            try:
                dispatch.vacuum()
            except DatabaseError as error:
                logger.warning("the queue is vacuumed another time", extra={"error": str(error)})
            finally:
                connection.close()
            self._stopping.wait(PAUSE_S)
