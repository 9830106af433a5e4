"""Ends of short runs, written behind the back of those who reached them.

A function that takes a fraction of a millisecond should not keep a slot busy until its end is on disk. So
the slot hands the end over and is free for the next message; one thread writes what has gathered, an end after
a pause at once, under load every few milliseconds. Until then the run is held as if it went on: it is in
the heartbeat's count, a drain waits for it, and a worker that dies loses it like any other.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
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
# A statement has a price however few ends it writes: under load it writes so many at once.
_APART_S: Final = 0.004
# While so many wait, whoever reaches another end waits as well: nothing is started faster than it is written.
_FULL: Final = 100


@dataclass(frozen=True, slots=True)
class _End:
    task: Task
    report: Report
    then: Callable[[Collection[Lease]], None]


class Finisher:
    """One per worker process; its thread begins with the first end."""

    def __init__(self) -> None:
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
        next_write = 0.0
        with direct.line():
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._waiting)
                # Not to be woken by each end that comes meanwhile: they shall gather.
                time.sleep(max(0.0, next_write - time.monotonic()))
                next_write = time.monotonic() + _APART_S
                self._write()

    def _take(self) -> list[_End]:
        with self._changed:
            taken = [self._waiting.popleft() for _ in range(min(_MOST, len(self._waiting)))]
            self._changed.notify_all()
            return taken

    def _write(self) -> None:
        taken = self._take()
        try:
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
