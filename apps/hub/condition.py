"""What the platform stands on, how it is, and what to do where it is not well."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import kombu
import redis
from django.conf import settings
from django.db import connection
from django.db.models.functions import Now
from kombu.exceptions import KombuError

from apps.core import health, tenancy
from apps.runs.fleet_models import WorkerNode
from apps.runs.services import figures
from apps.sandboxes import reports

logger = logging.getLogger(__name__)

_PATIENCE_S: Final = 2
_LAUNCHER: Final = "make status, then make logs."


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of the platform. ``tone``: ok, warn (works, with a drawback) or bad."""

    name: str
    tone: str
    detail: str
    advice: str = ""

    @property
    def word(self) -> str:
        return {"ok": "Works", "warn": "Look here", "bad": "Does not work"}[self.tone]


def examine() -> list[Part]:
    """Look at every part. Whatever fails is told, and keeps nobody from going on."""
    with tenancy.platform():
        return [look() for look in (_database, _redis, _broker, _engine, _workers, _sandboxes)]


def _database() -> Part:
    found = health.examine({"database": health.database, "migrations": health.migrations})
    failed = [finding.detail for finding in found.values() if not finding.ok]
    if failed:
        return Part(
            name="Database",
            tone="bad",
            detail=failed[0],
            advice="Look at PostgreSQL's log and at DATABASE_URL; then run manage.py migrate.",
        )
    with connection.cursor() as cursor:
        cursor.execute("SHOW server_version")
        (version,) = cursor.fetchone()
    return Part(name="Database", tone="ok", detail=f"PostgreSQL {version}, up to date")


def _redis() -> Part:
    found = health.examine({"redis": health.bell})["redis"]
    if found.ok:
        return Part(name="Redis", tone="ok", detail=found.detail)
    return Part(
        name="Redis",
        tone="bad",
        detail=found.detail,
        advice="Start it, or correct REDIS_URL. Until then pages are not live and runs wait.",
    )


def _broker() -> Part:
    try:
        with kombu.Connection(
            settings.CELERY_BROKER_URL,
            connect_timeout=_PATIENCE_S,
            transport_options={
                "socket_connect_timeout": _PATIENCE_S,
                "socket_timeout": _PATIENCE_S,
                "max_retries": 1,
                "interval_start": 0,
                "connect_retries_timeout": _PATIENCE_S,
            },
        ) as broker:
            kind = broker.transport.driver_type
            # Redis connects only when a channel asks for something.
            channel: Any = broker.channel()
            is_old = kind == "redis" and not _has_lmpop(channel.client)
            channel.close()
    except (KombuError, redis.RedisError, OSError) as error:
        logger.warning("the broker does not answer", extra={"error": type(error).__name__})
        return Part(
            name="Broker",
            tone="bad",
            detail="does not answer",
            advice="Start it, or correct BROKER_URL. Until then accepted runs wait.",
        )
    if is_old:
        return Part(
            name="Broker",
            tone="bad",
            detail="is too old, so workers get no messages",
            advice="They need Redis 7 or newer, or Valkey.",
        )
    return Part(name="Broker", tone="ok", detail=f"{kind} answers")


def _has_lmpop(client: Any) -> bool:
    """Whether it can pop several at once, as workers do; asked of a list that is not there."""
    try:
        client.lmpop(1, "aos.nothing", direction="RIGHT")
    except redis.ResponseError as error:
        if "unknown command" not in str(error):
            raise
        return False
    return True


def _engine() -> Part:
    now = figures.platform()
    if now.leader_alive:
        return Part(name="Engine", tone="ok", detail=f"leads in epoch {now.leader_epoch}")
    return Part(
        name="Engine",
        tone="bad",
        detail="nobody leads",
        advice=f"Start one: manage.py engine. With the launcher: {_LAUNCHER}",
    )


def _workers() -> Part:
    now = figures.platform()
    if now.workers:
        many = "" if now.workers == 1 else "s"
        detail = f"{now.workers} worker{many} with room for {now.slots} runs"
        return Part(name="Workers", tone="ok", detail=detail)
    return Part(
        name="Workers",
        tone="bad",
        detail="none is there; accepted runs wait",
        advice=f"Start one: celery -A workers worker (see the Procfile). With the launcher: {_LAUNCHER}",
    )


def _sandboxes() -> Part:
    """Docker, as the workers' doctors see it: this process has no way to an engine, on purpose."""
    heard = Now() - settings.AOS_WORKER_TTL
    living = WorkerNode.objects.filter(gone_at=None, last_seen__gt=heard)
    try:
        said = reports.read(living.values_list("name", flat=True))
    except redis.RedisError:
        said = {}
    if not said:
        return Part(
            name="Docker",
            tone="warn",
            detail="no worker has said yet how its sandboxes are",
            advice="A worker says so when it starts, and every half minute. Check again then.",
        )
    return _worst(said)


def _worst(said: Mapping[str, list[reports.Remark]]) -> Part:
    remarks = [remark for each in said.values() for remark in each]
    errors = [remark for remark in remarks if remark.is_error]
    for found, tone in ((errors, "bad"), (remarks, "warn")):
        if found:
            return Part(name="Docker", tone=tone, detail=found[0].message, advice=found[0].hint)
    return Part(name="Docker", tone="ok", detail="engine and sandbox image are ready")
