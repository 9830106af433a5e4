"""Counts for the people and programs that watch: never the whole history, only what moves."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from django.conf import settings

from apps.core import sql
from apps.runs.types import Priority

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


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneFigures:
    """What waits and moves in one lane; ``oldest_s`` is the age of the run at its head."""

    queue: str
    priority: Priority
    paused: bool
    cap: int | None
    ready: int
    parked: int
    dispatched: int
    running: int
    oldest_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Minute:
    """How many runs ended in one minute."""

    minutes_ago: int
    succeeded: int = 0
    others: int = 0


def lanes(organization_id: UUID) -> list[LaneFigures]:
    rows = sql.fetch(SQL["lanes"], {"organization_id": organization_id})
    return [LaneFigures(**row | {"priority": Priority(row["priority"])}) for row in rows]


def ended_by_minute(organization_id: UUID, *, minutes: int = 60) -> list[Minute]:
    """Each of the last minutes, the oldest first; counted among the newest 10,000 runs."""
    params = {"organization_id": organization_id, "newest": _NEWEST, "minutes": minutes}
    found = {row["minutes_ago"]: Minute(**row) for row in sql.fetch(SQL["ended_by_minute"], params)}
    return [found.get(ago, Minute(minutes_ago=ago)) for ago in reversed(range(minutes))]


def platform() -> Platform:
    ttl = settings.AOS_WORKER_TTL.total_seconds()
    (row,) = sql.fetch(SQL["platform"], {"worker_ttl_s": ttl})
    return Platform(**row)


def workload(organization_id: UUID, *, since: datetime) -> Workload:
    owner = {"organization_id": organization_id}
    (moving,) = sql.fetch(SQL["open_in_organization"], owner)
    (ended,) = sql.fetch(SQL["failed_since"], owner | {"since": since, "newest": _NEWEST})
    return Workload(queued=moving["queued"], running=moving["running"], failed=ended["failed"])
