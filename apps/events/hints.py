"""Hints: any process tells the web processes that a log has grown.

A hint says "look", never what is there: it may be lost, doubled or late, and nothing else happens
than that the web looks later (it polls as well, see ``feed``). So sending one never raises and never
waits. A background thread with an event loop of its own talks to the channel layer; a log is named
at most once in a pause, however often it grows.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from typing import Any, Final
from uuid import UUID

from channels.layers import get_channel_layer
from redis.exceptions import RedisError

logger = logging.getLogger(__name__)

# Every web process is in this one group, so a hint costs one message however many sockets are open.
GROUP: Final = "hints"
# Between two messages. The more logs the last one named, the longer, so that a busy platform sends fewer.
_PAUSE_S: Final = 0.01
_LONGEST_PAUSE_S: Final = 0.05
_PATIENCE_S: Final = 2.0
# Until Redis is asked again that did not answer.
_AWAY_S: Final = 0.5
# Hints kept while Redis is away. Beyond that they are dropped: the web polls.
_MOST: Final = 10_000


def project_topic(project_id: UUID | str) -> str:
    return f"project:{project_id}"


def run_topic(run_public_id: UUID | str) -> str:
    return f"run:{run_public_id}"


def send(*, project_id: UUID | str) -> None:
    """Tell that a project's log has grown. Call it after the commit."""
    _teller.tell(project_topic(project_id))


def send_run(*run_public_ids: UUID | str) -> None:
    """Tell that these runs' own logs have grown. Call it after the commit."""
    _teller.tell(*map(run_topic, run_public_ids))


class _Teller:
    """Owns the thread and the topics that wait to be told."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew. A forked child has this object but not its thread, and maybe a held lock."""
        self._waiting: set[str] = set()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._away = False

    def tell(self, *topics: str) -> None:
        with self._changed:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._talk, name="hints", daemon=True)
                self._thread.start()
            self._waiting.update(topics)
            self._changed.notify()

    def _talk(self) -> None:
        loop = asyncio.new_event_loop()
        while True:
            topics = self._next()
            if loop.run_until_complete(self._say(topics)):
                time.sleep(min(_LONGEST_PAUSE_S, _PAUSE_S * (1 + len(topics) // 4)))
            else:
                self._keep(topics)
                time.sleep(_AWAY_S)

    def _next(self) -> set[str]:
        with self._changed:
            while not self._waiting:
                self._changed.wait()
            topics, self._waiting = self._waiting, set()
            return topics

    def _keep(self, topics: set[str]) -> None:
        with self._changed:
            self._waiting |= topics
            if len(self._waiting) > _MOST:
                self._waiting.clear()

    async def _say(self, topics: set[str]) -> bool:
        layer: Any = get_channel_layer()
        message = {"type": "hint", "topics": sorted(topics)}
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await layer.group_send(GROUP, message)
        except (RedisError, OSError, TimeoutError) as error:
            self._note(away=True, reason=str(error))
            return False
        self._note(away=False)
        return True

    def _note(self, *, away: bool, reason: str = "") -> None:
        if away and not self._away:
            logger.warning("hints are not sent, polling goes on", extra={"error": reason})
        elif self._away and not away:
            logger.info("hints are sent again")
        self._away = away


_teller = _Teller()
os.register_at_fork(after_in_child=_teller.forget)
