"""How many streams one person holds open: a counted place for each, given back or expired.

A place is an entry in a sorted set in Redis that is renewed while the stream is open. Those of a
process that died expire by themselves. While Redis is away each process counts its own.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, TypeVar
from uuid import uuid4

import redis
from django.conf import settings

from apps.core import limits, together
from apps.core.errors import TooManyStreams

logger = logging.getLogger(__name__)

Opened = TypeVar("Opened")

_HOLD: Final = """
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then
  return 0
end
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[3]), ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
"""
EXPIRES_S: Final = 30
RENEWED_S: Final = 10
# A place that lapsed while Redis was away is taken again, however many there are by now.
_ANY_NUMBER: Final = 2**31

_here: defaultdict[str, set[str]] = defaultdict(set)
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Place:
    """One open stream of one person."""

    whose: str
    id: str = field(default_factory=lambda: uuid4().hex)

    @asynccontextmanager
    async def around(self, opening: AbstractAsyncContextManager[Opened]) -> AsyncIterator[Opened]:
        """What ``opening`` opens, with the place held for as long as it is open."""
        with _lock:
            _here[self.whose].add(self.id)
        renewing = asyncio.create_task(self._renew())
        try:
            async with opening as opened:
                yield opened
        finally:
            await together.end(renewing)
            await asyncio.to_thread(self.leave)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEWED_S)
            await asyncio.to_thread(_hold, self, _ANY_NUMBER)

    def leave(self) -> None:
        with _lock:
            _here[self.whose].discard(self.id)
            if not _here[self.whose]:
                del _here[self.whose]
        with suppress(redis.RedisError):
            # It expires by itself if this does not arrive.
            _redis()[0].zrem(_key(self.whose), self.id)


def enter(whose: str) -> Place:
    """Take a place for one more stream; raise ``TooManyStreams`` when all are taken."""
    place, limit = Place(whose), settings.AOS_STREAMS_PER_PERSON
    if not _hold(place, limit):
        raise TooManyStreams(limit=limit)
    return place


def _hold(place: Place, limit: int) -> bool:
    _, script = _redis()
    words = [place.id, limit, EXPIRES_S * 1000]
    try:
        return bool(script(keys=[_key(place.whose)], args=words))
    except redis.RedisError as error:
        logger.info("streams are counted by each process", extra={"error": str(error)})
        with _lock:
            return len(_here.get(place.whose, ())) < limit


def _key(whose: str) -> str:
    return f"{settings.AOS_INSTANCE}:streams:{whose}"


@cache
def _redis() -> tuple[redis.Redis, Any]:
    client = limits.connect()
    return client, client.register_script(_HOLD)


def start_anew() -> None:
    """Forget the connection, as after a changed setting."""
    _redis.cache_clear()
