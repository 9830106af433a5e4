"""The runs of this worker as Flower shows them: each a task by itself, however it travelled.

Celery tells of messages: one task for many runs, and for a single run more slowly than the run may take.
This tells of each run instead, under its own id and name, as Celery would: received, started, ended. A
thread of its own does the talking, in one message for all that gathered meanwhile. Flower is a view: what
cannot be sent is dropped.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from celery import Celery
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from apps.runs.errors import LeaseLost
from apps.runs.types import Failure, Started

logger = logging.getLogger(__name__)

_PAUSE_S: Final = 0.05
_MOST_WAITING: Final = 20_000


class TaskEvents:
    """Takes events from any thread; sends them from one."""

    def __init__(self, app: Celery, hostname: str) -> None:
        self._app = app
        self._hostname = hostname
        self._waiting: deque[dict[str, Any]] = deque(maxlen=_MOST_WAITING)
        self._rung = threading.Event()
        self._dispatcher: Any = None
        threading.Thread(target=self._talk, name="task-events", daemon=True).start()

    def received(self, runs: Sequence[Started]) -> None:
        now = time.time()
        for started in runs:
            self._waiting.append(
                {
                    "type": "task-received",
                    "uuid": started.task_id,
                    "name": started.name,
                    "args": started.name,
                    "kwargs": "{}",
                    "retries": 0,
                    "eta": None,
                    "expires": None,
                    "root_id": started.task_id,
                    "parent_id": None,
                    "timestamp": now,
                }
            )
        self._rung.set()

    @contextmanager
    def telling(self, started: Started, *, failure: Callable[[], Failure | None]) -> Iterator[None]:
        """Tell of one run as it begins and ends; ``failure`` is asked at the end."""
        began, clock = time.time(), time.perf_counter()
        self.received([started])
        self._began(started, at=began)
        lost: Failure | None = Failure(code=LeaseLost.code, detail="")
        try:
            yield
            lost = None
        finally:
            took = time.perf_counter() - clock
            self._ended(started, at=began + took, took=took, failure=lost or failure())
            self._rung.set()

    def ended(
        self, started: Started, *, began: float, took: float, failure: Failure | None
    ) -> None:
        """Tell when a run began and how it ended; ``began`` by the wall clock."""
        self._began(started, at=began)
        self._ended(started, at=began + took, took=took, failure=failure)
        self._rung.set()

    def _began(self, started: Started, *, at: float) -> None:
        self._waiting.append({"type": "task-started", "uuid": started.task_id, "timestamp": at})

    def _ended(self, started: Started, *, at: float, took: float, failure: Failure | None) -> None:
        end: dict[str, Any] = {"uuid": started.task_id, "timestamp": at}
        if failure is None:
            end |= {"type": "task-succeeded", "result": "done", "runtime": took}
        else:
            end |= {"type": "task-failed", "exception": failure.code, "traceback": ""}
        self._waiting.append(end)

    def _talk(self) -> None:
        while True:
            self._rung.wait()
            self._rung.clear()
            events = []
            while self._waiting:
                events.append(self._waiting.popleft())
            try:
                self._send(events)
            except (KombuError, RedisError, OSError) as error:
                self._dispatcher = None
                logger.info("task events dropped", extra={"error": str(error)})
            time.sleep(_PAUSE_S)

    def _send(self, events: list[dict[str, Any]]) -> None:
        if self._dispatcher is None:
            self._dispatcher = self._app.events.Dispatcher(
                self._app.connection_for_write(),
                hostname=self._hostname,
                buffer_while_offline=False,
                buffer_group={"task"},
                buffer_limit=_MOST_WAITING,
            )
        for event in events:
            self._dispatcher.send(event.pop("type"), **event)
        self._dispatcher.flush()
