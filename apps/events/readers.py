"""Database reads for the event loop: a few threads of their own, each with one mended connection.

Open streams ask the database now and then for hours. They must neither hold a connection each nor
use up the threads that requests run in, so all of them share these.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final, TypeVar

from django.db import InterfaceError, OperationalError, close_old_connections, connections
from opentelemetry.instrumentation.utils import suppress_instrumentation

from apps.core import tenancy

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

SIZE: Final = 4
_FIRST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 5.0


class Readers:
    """Belongs to one event loop. Close it from there."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(SIZE, thread_name_prefix="readers")
        self._away = False

    async def ask(self, question: Callable[[], Answer]) -> Answer:
        """The answer to a question that only reads. Outlives the database: asks until it answers.

        A thread serves all organizations, so a question says itself whose rows it is about.
        """
        loop = asyncio.get_running_loop()
        pause = _FIRST_PAUSE_S
        while True:
            try:
                answer = await loop.run_in_executor(self._pool, _answer, question)
            except (OperationalError, InterfaceError) as error:
                self._note(away=True, reason=str(error))
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_S)
            else:
                self._note(away=False)
                return answer

    async def close(self) -> None:
        """Close the connections and end the threads."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        # Connections belong to threads: each has to come by and close its own.
        meeting = threading.Barrier(SIZE)
        for _ in range(SIZE):
            self._pool.submit(_leave, meeting)
        self._pool.shutdown()

    def _note(self, *, away: bool, reason: str = "") -> None:
        if away and not self._away:
            logger.warning("streams wait for the database", extra={"error": reason})
        elif self._away and not away:
            logger.info("streams go on")
        self._away = away


def _answer(question: Callable[[], Answer]) -> Answer:
    close_old_connections()
    try:
        # A look every few seconds per open page would bury the traces of requests and runs.
        with suppress_instrumentation(), tenancy.nobody():
            return question()
    finally:
        close_old_connections()


def _leave(meeting: threading.Barrier) -> None:
    # Broken when a thread is stuck in the database: the others need not wait for it.
    with suppress(threading.BrokenBarrierError):
        meeting.wait(timeout=2)
    connections.close_all()
