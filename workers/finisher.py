"""Ends of short runs, written behind the back of those who reached them.

A function that takes a fraction of a millisecond should not keep a slot busy until its end is on disk. So
the slot hands the end over and is free for the next message; one thread writes what has gathered since its
last statement, at once when it has nothing to do. Until then the run is held as if it went on: it is in
the heartbeat's count, a drain waits for it, and a worker that dies loses it like any other.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from django.db import Error as DatabaseError
from django.db import InterfaceError, OperationalError

from apps.core.postgres import direct
from apps.runs.services import leases
from apps.runs.types import Lease, Report
from workers.insist import insist

# The node makes the finisher.
if TYPE_CHECKING:
    from workers.node import Task

logger = logging.getLogger(__name__)

_MOST: Final = 50
# While so many wait, whoever reaches another end waits as well: nothing is started faster than it is written.
_FULL: Final = 100


@dataclass(frozen=True, slots=True)
class _End:
    task: Task
    report: Report
    then: Callable[[Collection[Lease]], None]


class Finisher:
    """One per worker process; its thread begins with the first end."""

    def __init__(self, turn: AbstractContextManager[object] | None = None) -> None:
        self._turn = turn or nullcontext()
        self._changed = threading.Condition()
        self._waiting: deque[_End] = deque()
        self._held: dict[Lease, Task] = {}
        self._thread: threading.Thread | None = None

    def held(self) -> list[Task]:
        """The runs whose ends are not written yet."""
        with self._changed:
            return list(self._held.values())

    def put(self, task: Task, report: Report, then: Callable[[Collection[Lease]], None]) -> None:
        """Hand over the end of a run; ``then`` is told which were ours to end."""
        with self._changed:
            while len(self._waiting) >= _FULL:
                self._changed.wait()
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="finisher", daemon=True)
                self._thread.start()
            self._held[task.lease] = task
            self._waiting.append(_End(task, report, then))
            self._changed.notify_all()

    def wait(self, timeout_s: float) -> bool:
        """Wait until all ends are written; false when that takes longer."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._held, timeout_s)

    def _work(self) -> None:
        with direct.line():
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._waiting)
                self._write()

    def _take(self) -> list[_End]:
        with self._changed:
            taken = [self._waiting.popleft() for _ in range(min(_MOST, len(self._waiting)))]
            self._changed.notify_all()
            return taken

    def _write(self) -> None:
        taken: list[_End] = []
        try:
            with self._turn:
                taken = self._take()
                ours = _try([end.report for end in taken])
            if ours is None:
                ours = insist(lambda: _finish([end.report for end in taken]))
            for end in taken:
                end.then(ours)
        except DatabaseError:
            # The heartbeat finds leases without a task and gives them back.
            logger.exception("ends not written", extra={"runs": len(taken)})
        finally:
            with self._changed:
                for end in taken:
                    self._held.pop(end.task.lease, None)
                self._changed.notify_all()


def _try(reports: Sequence[Report]) -> Collection[Lease] | None:
    """Once: nobody's turn waits for a database that is away."""
    try:
        return _finish(reports)
    except (OperationalError, InterfaceError):
        return None


def _finish(reports: Sequence[Report]) -> Collection[Lease]:
    try:
        return leases.finish(reports)
    except (OperationalError, InterfaceError):
        raise
    except DatabaseError:
        if len(reports) == 1:
            raise
    # Together it failed, maybe because of one of them: each finds out for itself.
    return [lease for report in reports for lease in _alone(report)]


def _alone(report: Report) -> Collection[Lease]:
    try:
        return leases.finish([report])
    except (OperationalError, InterfaceError):
        raise
    except DatabaseError:
        logger.exception("end not written", extra={"run": report.lease.run_id})
        return ()
