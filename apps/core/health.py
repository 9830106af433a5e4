"""Is this process alive, and is what it stands on there?

``core`` knows the ground: database, migrations, Redis. What lies above (the engine's leader, the
workers) is checked where it is known, by ``apps.runs.api.operations``, which answers ``/readyz``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

import redis
from django.db import DatabaseError, connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.http import HttpRequest, HttpResponse

from apps.core import doorbell

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a check found. ``needed`` says whether the platform is of use without it."""

    ok: bool
    detail: str
    needed: bool = True

    def as_json(self) -> dict[str, object]:
        return {"ok": self.ok, "needed": self.needed, "detail": self.detail}


Check = Callable[[], Finding]


async def healthz(_request: HttpRequest) -> HttpResponse:
    """Alive: the event loop answers. Asks nothing else, so that a slow database restarts nobody."""
    return HttpResponse("ok\n", content_type="text/plain")


def database() -> Finding:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return Finding(ok=True, detail="answers")


def migrations() -> Finding:
    missing = sorted(_shipped() - set(MigrationRecorder(connection).applied_migrations()))
    if missing:
        app, name = missing[0]
        detail = f"{len(missing)} not applied, the first is {app}.{name}; run manage.py migrate"
        return Finding(ok=False, detail=detail)
    return Finding(ok=True, detail="all applied")


@cache
def _shipped() -> frozenset[tuple[str, str]]:
    """The migrations of this release. They are files: they do not change while we run."""
    return frozenset(MigrationLoader(None).disk_migrations or ())


def bell() -> Finding:
    """Redis carries doorbells, hints and messages; without it runs wait."""
    with doorbell.connect() as client:
        client.ping()
    return Finding(ok=True, detail="answers")


GROUND: Final[Mapping[str, Check]] = {
    "database": database,
    "migrations": migrations,
    "redis": bell,
}


def examine(checks: Mapping[str, Check]) -> dict[str, Finding]:
    """Make every check; one that cannot be made has failed, and says why."""
    return {name: _make(check) for name, check in checks.items()}


def _make(check: Check) -> Finding:
    """Strangers may read the answer, so addresses and names in the error go to the log only."""
    try:
        return check()
    except DatabaseError as error:
        logger.warning("health check failed", extra={"error": str(error)})
        return Finding(ok=False, detail="the database does not answer")
    except redis.RedisError as error:
        logger.warning("health check failed", extra={"error": str(error)})
        return Finding(ok=False, detail="Redis does not answer")
