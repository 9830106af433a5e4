"""How often somebody may ask: token buckets in Redis, one round trip for all buckets of a request.

A bucket is kept as one number, the moment at which it will be full again. Taking from it moves that
moment on; it may never lie further ahead than the time a whole bucket takes to fill. One script reads
and writes all buckets of a request by Redis's own clock, so neither parallel requests nor the clocks
of hosts can take more than there is.

Redis may be away at any moment. Then each process counts by itself until it is back: limits hold per
process instead of for all together, and nothing waits.
"""

from __future__ import annotations

import ipaddress
import logging
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import redis
from django.conf import settings

from apps.core.errors import TooManyRequests

logger = logging.getLogger(__name__)

# Moments are microseconds; "%.0f" because Lua's own notation would round them.
_TAKE: Final = """
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local full, ahead = {}, {}
for i, key in ipairs(KEYS) do
  local step, most = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
  full[i] = math.max(tonumber(redis.call('GET', key) or '0'), now) + step
  ahead[i] = full[i] - now
  if ahead[i] > most then return {i, ahead[i] - most} end
end
for i, key in ipairs(KEYS) do
  redis.call('SET', key, string.format('%.0f', full[i]), 'PX', math.ceil(ahead[i] / 1000))
end
return {0, ahead[1]}
"""
_SECOND: Final = 1_000_000
# After a failure the next request that tries Redis again may be late; others do not wait with it.
_TRY_AGAIN_S: Final = 1.0
_PATIENCE_S: Final = 0.25
_REMEMBERED: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """One bucket: ``count`` requests at once, and as many again in each ``seconds``."""

    limit: str
    whose: str
    count: int
    seconds: int

    @property
    def key(self) -> str:
        return f"{settings.AOS_INSTANCE}:limit:{self.limit}:{self.whose}"

    @property
    def step(self) -> int:
        """How long one request takes to be given back. Rounded up: never more than was agreed."""
        return math.ceil(self.seconds * _SECOND / self.count)

    @property
    def most(self) -> int:
        return self.step * self.count


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What is left of the first bucket after a request."""

    bucket: Bucket
    left: int
    full_in_s: int

    def headers(self) -> dict[str, str]:
        """As draft-ietf-httpapi-ratelimit-headers has them: the policy, and how it stands."""
        name, count, seconds = self.bucket.limit, self.bucket.count, self.bucket.seconds
        return {
            "RateLimit-Policy": f'"{name}";q={count};w={seconds}',
            "RateLimit": f'"{name}";r={self.left};t={self.full_in_s}',
        }


def bucket(limit: str, whose: str) -> Bucket | None:
    """The bucket of this limit for one person, address or organization; none when it is off."""
    rate = settings.AOS_LIMITS[limit]
    if rate is None:
        return None
    count, seconds = rate
    return Bucket(limit=limit, whose=whose, count=count, seconds=seconds)


def block(address: str | None) -> str:
    """Whose bucket an address has. A host on IPv6 has a whole /64 of addresses to come from."""
    if not address:
        return "nowhere"
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return "nowhere"
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)


def take(*buckets: Bucket | None) -> Taken | None:
    """Take one request from each of these, or from none; raise ``TooManyRequests``.

    What comes back tells of the first.
    """
    asked = [each for each in buckets if each is not None]
    if not asked:
        return None
    _refused.check(asked)
    which, ahead = _script().take(asked)
    if which:
        _refused.note(asked[which - 1], ahead)
        raise _too_many(asked[which - 1], ahead)
    first = asked[0]
    left = max(0, (first.most - ahead) // first.step)
    return Taken(bucket=first, left=left, full_in_s=math.ceil(ahead / _SECOND))


def _too_many(bucket: Bucket, wait: int) -> TooManyRequests:
    return TooManyRequests(
        limit=bucket.limit,
        count=bucket.count,
        seconds=bucket.seconds,
        retry_after=max(1, math.ceil(wait / _SECOND)),
    )


class _Refused:
    """Empty buckets, until when. Whoever goes on knocking costs neither Redis nor the database."""

    def __init__(self) -> None:
        self._until: OrderedDict[str, float] = OrderedDict()
        self._lock = threading.Lock()

    def check(self, asked: Sequence[Bucket]) -> None:
        if not self._until:
            return
        now = time.monotonic()
        for each in asked:
            until = self._until.get(each.key, 0.0)
            if until > now:
                raise _too_many(each, int((until - now) * _SECOND))

    def note(self, bucket: Bucket, wait: int) -> None:
        with self._lock:
            self._until[bucket.key] = time.monotonic() + wait / _SECOND
            self._until.move_to_end(bucket.key)
            while len(self._until) > _REMEMBERED:
                self._until.popitem(last=False)

    def forget(self) -> None:
        with self._lock:
            self._until.clear()


class _Alone:
    """The same buckets in this process's memory, for while Redis is away."""

    def __init__(self) -> None:
        self._full: OrderedDict[str, int] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, asked: Sequence[Bucket]) -> tuple[int, int]:
        with self._lock:
            now = time.monotonic_ns() // 1000
            full = [max(self._full.get(each.key, 0), now) + each.step for each in asked]
            for number, (each, moment) in enumerate(zip(asked, full, strict=True), 1):
                if moment - now > each.most:
                    return number, moment - now - each.most
            for each, moment in zip(asked, full, strict=True):
                self._full[each.key] = moment
                self._full.move_to_end(each.key)
            while len(self._full) > _REMEMBERED:
                self._full.popitem(last=False)
            return 0, full[0] - now


class _Script:
    """The buckets in Redis, and the ones in memory behind them."""

    def __init__(self, client: redis.Redis) -> None:
        self._script: Any = client.register_script(_TAKE)
        self._alone = _Alone()
        self._away_until = 0.0
        self._away = False

    def take(self, asked: Sequence[Bucket]) -> tuple[int, int]:
        """The number of the empty bucket and how long to wait, or 0 and when the first is full."""
        if time.monotonic() < self._away_until:
            return self._alone.take(asked)
        numbers = [number for each in asked for number in (each.step, each.most)]
        try:
            which, moment = self._script(keys=[each.key for each in asked], args=numbers)
        except redis.RedisError as error:
            self._away_until = time.monotonic() + _TRY_AGAIN_S
            if not self._away:
                logger.warning("limits are counted by each process", extra={"error": str(error)})
            self._away = True
            return self._alone.take(asked)
        self._away = False
        return int(which), int(moment)


def connect() -> redis.Redis:
    """A Redis client that requests may wait for: not long, and never for a connection."""
    pool = redis.BlockingConnectionPool.from_url(
        settings.AOS_REDIS_URL,
        socket_connect_timeout=_PATIENCE_S,
        socket_timeout=_PATIENCE_S,
        health_check_interval=25,
        max_connections=64,
        timeout=_PATIENCE_S,
    )
    return redis.Redis(connection_pool=pool)


@cache
def _script() -> _Script:
    return _Script(connect())


_refused = _Refused()


def start_anew() -> None:
    """Forget connections and what was counted in this process, as after a changed setting."""
    _script.cache_clear()
    _refused.forget()
