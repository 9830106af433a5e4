"""Counts for the people and programs that watch: never the whole history, only what moves."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from django.conf import settings

from apps.core import sql

SQL: Final = sql.load("apps.runs.sql", "figures.sql")
_NEWEST: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """The motion of the whole platform at one moment."""

    ready: int
    scheduled: int
    dispatched: int
    running: int
    cancelling: int
    oldest_waiting_s: float
    outbox: int
    workers: int
    slots: int
    leader_epoch: int | None
    leader_alive: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What one organization has open, and how many of its newest 10,000 runs failed since."""

    queued: int
    running: int
    failed: int


def platform() -> Platform:
    ttl = settings.AOS_WORKER_TTL.total_seconds()
    (row,) = sql.fetch(SQL["platform"], {"worker_ttl_s": ttl})
    return Platform(**row)


def workload(organization_id: UUID, *, since: datetime) -> Workload:
    owner = {"organization_id": organization_id}
    (moving,) = sql.fetch(SQL["open_in_organization"], owner)
    (ended,) = sql.fetch(SQL["failed_since"], owner | {"since": since, "newest": _NEWEST})
    return Workload(queued=moving["queued"], running=moving["running"], failed=ended["failed"])
