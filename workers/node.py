"""This worker process as the rest of the fleet sees it: heartbeat, orders, self-fencing, drain."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Final

from django.conf import settings
from django.db import Error as DatabaseError
from django.db import connection

from apps.core import doorbell
from apps.core.errors import AosError
from apps.runs.errors import LeaseLost
from apps.runs.fleet_models import WorkerNode
from apps.runs.services import fleet, leases
from apps.runs.types import Lease, Report, Started
from workers.finisher import Finisher
from workers.paces import Paces
from workers.runlog import RunLog
from workers.together import Together

logger = logging.getLogger(__name__)

_TICK_S: Final = 0.2
# Dispatch deadlines without a message, while runs are sent again and again.
_DEAF_AFTER: Final = 2
# Beyond the drain, for a process that does not even hear that it shall end.
_DEAF_GRACE_S: Final = 10.0


class Stop(StrEnum):
    """Why a run's work is stopped from outside."""

    CANCELLED = "cancelled"
    LOST = "lost"
    DRAINED = "drained"


class Task:
    """One run in this process: its log, and the handle by which it is stopped."""

    def __init__(self, lease: Lease, log: RunLog) -> None:
        self.lease = lease
        self.log = log
        self.stopped: Stop | None = None
        self._kill: Callable[[], None] | None = None
        self._lock = threading.Lock()
        self._is_stuck = False

    def on_stop(self, kill: Callable[[], None]) -> None:
        """Name what must be ended; called at once if the order came first."""
        with self._lock:
            ordered = self.stopped
            self._kill = None if ordered else kill
        if ordered:
            kill()

    def stop(self, why: Stop) -> None:
        """Order the end of the work. The first reason counts; each order tries what did not succeed before.

        A thread of its own ends it: whoever orders must beat on while an engine hangs.
        """
        with self._lock:
            self.stopped = self.stopped or why
            kill, self._kill = self._kill, None
        if kill:
            threading.Thread(target=self._end, args=[kill], name="end", daemon=True).start()

    def _end(self, kill: Callable[[], None]) -> None:
        try:
            kill()
        except AosError as error:
            with self._lock:
                self._kill = kill
            if not self._is_stuck:
                self._is_stuck = True
                run = {"run": self.lease.run_id, "error": str(error)}
                logger.warning("its work cannot be ended yet", extra=run)


class Node:
    """The worker's row, its heartbeat thread and the runs it holds."""

    def __init__(self, name: str, slots: int) -> None:
        self.name = name
        self._slots = slots
        self.paces = Paces()
        self.finisher = Finisher()
        self._tasks: dict[Lease, Task] = {}
        self._ticks: set[Callable[[], None]] = set()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._strays: frozenset[Lease] = frozenset()
        self._last_answer = time.monotonic()
        self._messages = 0
        self._heard = time.monotonic()
        self.row = self._join()
        #: Take up a run, alone in its message; ``None`` when it is not ours any more.
        self.start_run: Together[Lease, Started | None] = Together(self._start_runs)
        #: Write a run's end; false when it was not ours to end.
        self.finish_run: Together[Report, bool] = Together(_finish_runs)

    def _start_runs(self, wanted: Sequence[Lease]) -> list[Started | None]:
        started = {each.lease: each for each in leases.start_many(wanted, worker=self.row)}
        return [started.get(lease) for lease in wanted]

    def _join(self) -> WorkerNode:
        return fleet.join(
            name=self.name, host=socket.gethostname(), pid=os.getpid(), slots=self._slots
        )

    def start(self) -> None:
        for target in (self._beat_for_ever, self._tick_for_ever, self._watch_for_ever):
            threading.Thread(target=target, name=target.__name__, daemon=True).start()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Count a message that arrived, for as long as it takes up a slot."""
        with self._lock:
            self._messages += 1
            self._heard = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                self._messages -= 1
                self._heard = time.monotonic()

    @contextmanager
    def holding(
        self, tasks: Sequence[Task], *, tick: Callable[[], None] | None = None
    ) -> Iterator[None]:
        """Count these runs as ours meanwhile; ``tick`` is called now and then."""
        with self._lock:
            self._tasks |= {task.lease: task for task in tasks}
            if tick:
                self._ticks.add(tick)
        try:
            yield
        finally:
            with self._lock:
                for task in tasks:
                    self._tasks.pop(task.lease, None)
                if tick:
                    self._ticks.discard(tick)

    def drain(self, patience_s: float) -> None:
        """Take nothing new; let runs finish for a while, then stop the rest to give them back."""
        fleet.drain(incarnation=self.row.incarnation)
        deadline = time.monotonic() + patience_s
        while self._held() and time.monotonic() < deadline:
            time.sleep(_TICK_S)
        for task in self._held():
            task.stop(Stop.DRAINED)

    def leave(self) -> None:
        if not self.finisher.wait(settings.AOS_SELF_FENCE.total_seconds()):
            logger.warning("ends not written, their runs are taken back", extra={"node": self.name})
        self._stopping.set()
        self._try(lambda: fleet.depart(worker_id=self.row.pk))

    def _held(self) -> list[Task]:
        # In this order: an end goes to the finisher before the task is let go here.
        with self._lock:
            held = dict(self._tasks)
        return list(held.values()) + [
            task for task in self.finisher.held() if task.lease not in held
        ]

    def _beat_for_ever(self) -> None:
        next_beat = 0.0
        for rung in doorbell.rings(doorbell.WORKERS):
            if self._stopping.is_set():
                return
            if rung or time.monotonic() >= next_beat:
                next_beat = time.monotonic() + settings.AOS_HEARTBEAT.total_seconds()
                self.beat()

    def beat(self) -> None:
        """Say that we live, and do what the answer orders. A database that is away costs one beat."""
        try:
            self._beat()
        except DatabaseError as error:
            connection.close()
            logger.warning("heartbeat failed", extra={"error": str(error)})

    def _beat(self) -> None:
        # Taken before the question: a run started in between is not in the answer, nor in here.
        tasks = self._held()
        orders = fleet.beat(worker_id=self.row.pk, running=len(tasks))
        self._last_answer = time.monotonic()
        for task in tasks:
            if task.lease in orders.cancelled:
                task.stop(Stop.CANCELLED)
            elif task.lease not in orders.held:
                task.stop(Stop.LOST)
        self._disown_strays(orders.held)
        if not orders.draining:
            self._restart_if_deaf(unread=orders.unread)
        if orders.superseded:
            # Ends the consumer as well: two processes of one name would take runs from each other.
            logger.error("another process has taken this worker's name", extra={"node": self.name})
            os.kill(os.getpid(), signal.SIGTERM)
            self._stopping.set()

    def _restart_if_deaf(self, *, unread: bool) -> None:
        """End, to be started again, when messages are there, we have room, and none arrives.

        A consumer may lose its queue while the process lives and beats. It counts as room for the engine,
        which would send it runs again and again.
        """
        silence = time.monotonic() - self._heard
        patience = _DEAF_AFTER * settings.AOS_DISPATCH_DEADLINE.total_seconds()
        if not unread or self._messages >= self._slots or silence < patience:
            return
        logger.error("messages wait and none arrives here, starts anew", extra={"node": self.name})
        fleet.drain(incarnation=self.row.incarnation)
        os.kill(os.getpid(), signal.SIGTERM)
        grace = settings.AOS_DRAIN.total_seconds() + _DEAF_GRACE_S
        last = threading.Timer(grace, os.kill, [os.getpid(), signal.SIGKILL])
        last.daemon = True
        last.start()

    def _disown_strays(self, held: frozenset[Lease]) -> None:
        """Let go of leases that no task of ours works on, twice in a row.

        The database counted a START whose answer we never got, or a finish could not be written.
        """
        strays = held - {task.lease for task in self._held()}
        if lost := strays & self._strays:
            logger.warning("leases without a task given up", extra={"count": len(lost)})
            fleet.disown(worker_id=self.row.pk, leases=lost)
        self._strays = strays

    def _watch_for_ever(self) -> None:
        """Apart from the heartbeat: a network that swallows everything holds up whoever talks."""
        while not self._stopping.wait(_TICK_S):
            self._fence_if_silent()

    def _fence_if_silent(self) -> None:
        """Stop acting before others may act: we have not been heard of for too long."""
        silence = time.monotonic() - self._last_answer
        if silence > settings.AOS_SELF_FENCE.total_seconds():
            for task in self._held():
                task.stop(Stop.LOST)

    def _tick_for_ever(self) -> None:
        while not self._stopping.is_set():
            if self.paces.has_news.wait(_TICK_S):
                self.paces.has_news.clear()
                self._try(self.paces.tell)
                continue
            for task in self._held():
                self._flush(task)
            with self._lock:
                ticks = [*self._ticks, self.paces.tell]
            for tick in ticks:
                self._try(tick)

    def _flush(self, task: Task) -> None:
        try:
            self._try(task.log.flush)
        except LeaseLost:
            task.stop(Stop.LOST)

    def _try(self, act: Callable[[], None]) -> None:
        try:
            act()
        except DatabaseError as error:
            connection.close()
            logger.warning("not written yet", extra={"error": str(error)})


def _finish_runs(reports: Sequence[Report]) -> list[bool]:
    ended = leases.finish(reports)
    return [report.lease in ended for report in reports]
