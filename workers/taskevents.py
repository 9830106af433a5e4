"""Runs that travelled together, shown in Flower each by itself.

Celery tells of one task for each message. For a message of many runs this tells of each run, under its
own id and name, as Celery would: received, started, ended. A thread of its own does the talking, in one
message for all that gathered meanwhile. Flower is a view: what cannot be sent is dropped.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from celery import Celery
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from apps.runs.types import Failure, Started

logger = logging.getLogger(__name__)

_PAUSE_S: Final = 0.02
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

    def ended(
        self, started: Started, *, began: float, took: float, failure: Failure | None
    ) -> None:
        """Tell when a run began and how it ended; ``began`` by the wall clock."""
        uuid = started.task_id
        self._waiting.append({"type": "task-started", "uuid": uuid, "timestamp": began})
        end: dict[str, Any] = {"uuid": uuid, "timestamp": began + took}
        if failure is None:
            end |= {"type": "task-succeeded", "result": "done", "runtime": took}
        else:
            end |= {"type": "task-failed", "exception": failure.code, "traceback": ""}
        self._waiting.append(end)
        self._rung.set()

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
