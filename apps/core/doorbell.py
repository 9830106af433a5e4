"""Doorbells: "look now", said over Redis after a commit.

Nothing depends on a ring: whoever listens also polls. So a ring carries at most an id, is coalesced
(one every 10 ms per topic and process), never raises, and never delays the caller: a background
thread does the talking.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from typing import Final

import redis
from django.conf import settings
from django.db import transaction

logger = logging.getLogger(__name__)

ENGINE: Final = "engine"
WORKERS: Final = "workers"
_PAUSE_S: Final = 0.01


def channel(topic: str) -> str:
    return f"{settings.AOS_INSTANCE}:bell:{topic}"


def connect() -> redis.Redis:
    """A Redis client for doorbells: short time-outs, because nothing may wait for it."""
    return redis.Redis.from_url(
        settings.AOS_REDIS_URL,
        socket_connect_timeout=1,
        socket_timeout=1,
        health_check_interval=25,
        max_connections=20,
    )


class _Ringer:
    """Owns the thread and the topics that wait to be rung."""

    def __init__(self) -> None:
        self._waiting: set[str] = set()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._down = False

    def ring(self, topic: str) -> None:
        with self._changed:
            # A fork (Celery prefork, a test) keeps the object but not its thread.
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._talk, name="doorbell", daemon=True)
                self._thread.start()
            self._waiting.add(topic)
            self._changed.notify()

    def _talk(self) -> None:
        client = connect()
        while True:
            with self._changed:
                while not self._waiting:
                    self._changed.wait()
                topics, self._waiting = self._waiting, set()
            self._publish(client, topics)
            time.sleep(_PAUSE_S)

    def _publish(self, client: redis.Redis, topics: set[str]) -> None:
        try:
            for topic in topics:
                client.publish(channel(topic), "")
        except redis.RedisError as error:
            if not self._down:
                logger.warning("doorbell is silent, polling goes on", extra={"error": str(error)})
            self._down = True
        else:
            self._down = False


_ringer = _Ringer()


def ring(topic: str) -> None:
    """Ring now."""
    _ringer.ring(topic)


def ring_on_commit(topic: str) -> None:
    """Ring once the current transaction has committed; at once when there is none."""
    transaction.on_commit(lambda: _ringer.ring(topic))


def rings(topic: str) -> Iterator[bool]:
    """Yield once per wait: ``True`` on a ring, ``False`` when a second passed without one.

    Outlives Redis: while it is away this only yields ``False``, about once a second.
    """
    while True:
        try:
            with connect().pubsub(ignore_subscribe_messages=True) as listener:  # type: ignore[no-untyped-call]
                listener.subscribe(channel(topic))
                while True:
                    yield listener.get_message(timeout=1.0) is not None
        except redis.RedisError:
            time.sleep(1.0)
            yield False
