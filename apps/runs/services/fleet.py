"""Workers as the database knows them: who is there, what they hold, what they are told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now

from apps.core import clock, doorbell, sql
from apps.core.labels import pool_of
from apps.runs.fleet_models import WorkerNode
from apps.runs.models import RunLease
from apps.runs.services.leadership import SQL
from apps.runs.types import Lease

_KEEP: Final = timedelta(days=7)


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """The answer to a heartbeat. What a worker runs but does not find in ``held`` it has lost."""

    superseded: bool
    draining: bool
    # Whether some run is sent again and again, and nobody takes it up.
    unread: bool
    held: frozenset[Lease]
    cancelled: frozenset[Lease]


@transaction.atomic
def join(
    *,
    name: str,
    host: str,
    pid: int,
    slots: int,
    labels: Mapping[str, str] | None = None,
    version: str | None = None,
) -> WorkerNode:
    """Register a worker process. Earlier incarnations of the name are gone from now on.

    A name belongs to one process at a time, so a restarted worker frees what it held at once
    instead of after the silence of a whole TTL.
    """
    WorkerNode.objects.filter(name=name, gone_at=None).update(gone_at=Now())
    labels = settings.AOS_WORKER_LABELS if labels is None else dict(labels)
    version = version or settings.AOS_WORKER_VERSION
    node = WorkerNode.objects.create(
        name=name,
        host=host,
        pid=pid,
        slots=slots,
        labels=labels,
        version=version,
        pool=pool_of(labels, version=version),
    )
    doorbell.ring_on_commit(doorbell.ENGINE)
    return node


def beat(*, worker_id: int, running: int) -> Orders:
    """Say that the worker lives; learn what it still holds and what is to be cancelled."""
    deadline_s = settings.AOS_DISPATCH_DEADLINE.total_seconds()
    rows = sql.fetch(
        SQL["beat"], {"worker_id": worker_id, "running": running, "deadline_s": deadline_s}
    )
    if not rows:
        none: frozenset[Lease] = frozenset()
        return Orders(superseded=True, draining=True, unread=False, held=none, cancelled=none)
    leases = sql.fetch(SQL["orders"], {"worker_id": worker_id})
    return Orders(
        superseded=False,
        draining=rows[0]["draining"],
        unread=rows[0]["unread"],
        held=frozenset(Lease(run_id=row["run_id"], token=row["token"]) for row in leases),
        cancelled=frozenset(
            Lease(run_id=row["run_id"], token=row["token"]) for row in leases if row["cancelled"]
        ),
    )


def disown(*, worker_id: int, leases: Iterable[Lease]) -> None:
    """Say that nobody here works on these any more, so that the engine gives them to others."""
    for lease in leases:
        RunLease.objects.filter(worker=worker_id, run=lease.run_id, token=lease.token).update(
            worker=None
        )
    doorbell.ring(doorbell.ENGINE)


def drain(*, incarnation: UUID) -> None:
    """Send a worker nothing new."""
    WorkerNode.objects.filter(incarnation=incarnation).update(draining=True)


def depart(*, worker_id: int) -> None:
    """Sign a worker off: whatever it still holds may be taken at once."""
    WorkerNode.objects.filter(pk=worker_id, gone_at=None).update(gone_at=Now())
    doorbell.ring(doorbell.ENGINE)


def is_alive(node: WorkerNode) -> bool:
    """Whether it was heard of within the TTL."""
    return node.gone_at is None and node.last_seen > clock.now() - settings.AOS_WORKER_TTL


def living() -> int:
    """How many workers are there and heard of within the TTL."""
    heard = Q(last_seen__gt=Now() - settings.AOS_WORKER_TTL)
    return WorkerNode.objects.filter(heard, gone_at=None).count()


def forget_old() -> int:
    """Remove workers that have been gone for a week and hold nothing; return how many."""
    old = Q(gone_at__lt=Now() - _KEEP)
    return WorkerNode.objects.filter(old, leases=None).delete()[0]
