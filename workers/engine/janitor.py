"""The janitor: removes runs that are past their time, and contents that nobody refers to any more.

It works while its engine leads, in a thread and with a connection of its own: walking through a store takes
minutes, and a leader has milliseconds.
"""

from __future__ import annotations

import logging
import threading
from typing import Final

from django.db import Error as DatabaseError
from django.db import connection

from apps.core.errors import StoreUnavailable
from apps.runs.services import contents, removal
from apps.runs.services.leadership import Seat, SeatLost

logger = logging.getLogger(__name__)

#: Not at once: an engine that has just started has better things to do.
FIRST_AFTER_S: Final = 300.0
EVERY_S: Final = 6 * 3600.0


class Janitor:
    """One per engine."""

    def __init__(self, *, first_after_s: float = FIRST_AFTER_S) -> None:
        self._first_after_s = first_after_s
        self._seat: Seat | None = None
        self._leading = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def work(self, seat: Seat | None) -> None:
        """Start or go on with this seat; halt without one."""
        self._seat = seat
        if seat is None:
            self._leading.clear()
            return
        self._leading.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="janitor", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End. What it was about to remove is removed another time."""
        self._stopping.set()
        self._leading.set()

    def _run(self) -> None:
        pause = self._first_after_s
        while not self._stopping.wait(pause):
            self._leading.wait()
            if not self._stopping.is_set():
                self._clean()
            pause = EVERY_S

    def _clean(self) -> None:
        try:
            # Runs first: what they referred to may be nobody's then.
            if (seat := self._seat) is not None:
                removal.remove_ended(seat, stop=self._is_over)
            contents.remove_unreferred(stop=self._is_over)
        except (DatabaseError, SeatLost, StoreUnavailable) as error:
            logger.warning("what is old goes another time", extra={"error": str(error)})
        finally:
            connection.close()

    def _is_over(self) -> bool:
        return self._stopping.is_set() or not self._leading.is_set()
