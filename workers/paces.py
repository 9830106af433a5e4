"""How long runs take here, gathered for a moment and told to the database for the engine to read."""

from __future__ import annotations

import threading
import time
from typing import Final
from uuid import UUID

from apps.runs.services import pace

_EVERY_S: Final = 1.0
# So many runs of a version that nobody knew say enough: the engine waits for a first figure.
_ENOUGH: Final = 8


class Paces:
    """Runs and seconds by version since they were last told."""

    def __init__(self) -> None:
        #: There is a first figure of a version. Until it is told the version is taken for slow.
        self.has_news = threading.Event()
        self._lock = threading.Lock()
        self._measured: dict[UUID, tuple[int, float]] = {}
        self._told: set[UUID] = set()
        self._next = 0.0

    def add(self, version_id: UUID, seconds: float) -> None:
        with self._lock:
            runs, total = self._measured.get(version_id, (0, 0.0))
            self._measured[version_id] = (runs + 1, total + seconds)
            if version_id not in self._told:
                self._next = 0.0
                if runs + 1 >= _ENOUGH:
                    self.has_news.set()

    def tell(self) -> None:
        """Write what was measured, once a second at most."""
        if not self._measured or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _EVERY_S
        with self._lock:
            measured, self._measured = self._measured, {}
            self._told |= measured.keys()
        for version_id, (runs, total) in measured.items():
            pace.note(version_id=version_id, mean_s=total / runs, runs=runs)
