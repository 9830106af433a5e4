"""What the leader does about runs that nobody looks after any more."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Final

from django.conf import settings
from django.db import transaction
from django.db.models.functions import Now

from apps.core import doorbell, failpoints, sql
from apps.core.failpoints import Place
from apps.events.services import outbox
from apps.events.types import EventType, Severity
from apps.runs.kin_models import RunDeadline
from apps.runs.models import Run, RunLease
from apps.runs.services import leadership, lifecycle
from apps.runs.services.leadership import SQL, Seat
from apps.runs.types import Failure, LeaseState, RetryPolicy, RunState

# A run that killed this many workers is not given to another.
POISON: Final = 3
# At most this share of the running leases is reclaimed in one sweep: after an outage every worker
# looks dead for a moment, and giving all runs away at once would double the load.
STORM_SHARE: Final = 0.2

_LOST = Failure(
    code="worker_lost",
    detail="The worker disappeared while it was running this.",
    retryable=True,
)
_TIMED_OUT = Failure(
    code="run_timed_out", detail="The attempt ran longer than its time-out allows."
)
_NEVER_STARTED = Failure(
    code="queue_deadline_passed", detail="No worker was free before the run's queue deadline."
)
_CANCELLED = Failure(code="cancelled", detail="The run was cancelled; its worker did not answer.")
_TOO_LATE = Failure(
    code="total_deadline_passed",
    detail="The run had not ended by its total deadline, which counts all attempts and waits.",
)
# Runs ended in one transaction, and transactions in one sweep.
_BATCH: Final = 200
_ROUNDS: Final = 20


def reclaim(seat: Seat, *, trust_silence: bool) -> int:
    """Take runs from workers that are gone, silent or overdue; return how many.

    ``trust_silence`` is false until the leader itself has seen a healthy database for a full
    worker TTL: before that, silence may be ours.
    """
    running = RunLease.objects.filter(state=LeaseState.RUNNING).count()
    orphans = sql.fetch(
        SQL["orphans"],
        {
            "ttl_s": settings.AOS_WORKER_TTL.total_seconds(),
            "trust_silence": trust_silence,
            "limit": max(1, math.ceil(running * STORM_SHARE)),
        },
    )
    return sum(
        _reclaim(seat, run_id=row["run_id"], token=row["token"], why=row["why"]) for row in orphans
    )


@transaction.atomic
def _reclaim(seat: Seat, *, run_id: int, token: int, why: str) -> bool:
    leadership.require(seat)
    run = lifecycle.lock_if_free(run_id)
    if run is None:
        return (
            False  # its worker is acting on it, or stalls in the middle: see it at the next sweep
        )
    lease = RunLease.objects.filter(run=run, token=token).first()
    if lease is None or not RunLease.objects.filter(token=token).delete()[0]:
        return False  # finished, or taken, since we looked
    failpoints.hit(Place.RECLAIMING)
    if run.state == RunState.CANCELLING:
        lifecycle.close(run, RunState.CANCELLED, failure=_CANCELLED)
    elif why == "overdue":
        lifecycle.close(run, RunState.EXPIRED, failure=_TIMED_OUT)
    else:
        _count_crash(run, dispatches=lease.seq)
    return True


def _count_crash(run: Run, *, dispatches: int) -> None:
    run.crash_count += 1
    Run.objects.filter(pk=run.pk).update(crash_count=run.crash_count)
    outbox.emit(
        EventType.ANOMALY,
        subject=lifecycle.subject_of(run),
        severity=Severity.WARNING,
        payload={"title": f"{run.name}: worker lost", "detail": _LOST.detail},
    )
    if run.crash_count >= POISON:
        killed = Failure(
            code="killed_its_worker",
            detail=f"The run lost {run.crash_count} workers and is not tried again.",
            retryable=True,
        )
        lifecycle.close(run, RunState.DEAD, failure=killed)
    elif RetryPolicy(**run.retry).allows(_LOST, attempt=lifecycle.counted_attempts(run)):
        lifecycle.end_attempt(run, outcome="lost", error=_LOST.as_json())
        lifecycle.requeue(run, delay=timedelta(0), dispatches=dispatches, why=_LOST)
    else:
        lifecycle.close(run, RunState.DEAD, failure=_LOST)


def expire_queued(seat: Seat, *, limit: int = 100) -> int:
    """End runs that waited in the queue beyond their queue deadline; return how many."""
    overdue = sql.fetch(SQL["overdue_in_queue"], {"limit": limit})
    return sum(_expire(seat, row["run_id"]) for row in overdue)


@transaction.atomic
def _expire(seat: Seat, run_id: int) -> bool:
    leadership.require(seat)
    run = lifecycle.lock_if_free(run_id)
    if run is None or run.state != RunState.QUEUED:
        return False
    lifecycle.close(run, RunState.EXPIRED, failure=_NEVER_STARTED)
    return True


def expire_overdue(seat: Seat) -> int:
    """End runs that have passed their total deadline, whatever state they are in; return how many."""
    expired = 0
    for _ in range(_ROUNDS):
        now = _expire_overdue(seat) if _any_overdue() else 0
        expired += now
        if now < _BATCH:
            break
    return expired


def _any_overdue() -> bool:
    return RunDeadline.objects.filter(at__lt=Now()).exists()


@transaction.atomic
def _expire_overdue(seat: Seat) -> int:
    leadership.require(seat)
    keys = [row["id"] for row in sql.fetch(SQL["past_deadline"], {"limit": _BATCH})]
    runs = [run for run in lifecycle.lock_many(keys) if not run.is_over]
    # Somebody wanted it cancelled before it was too late: that is how it ends.
    cancelled = [(run, _CANCELLED) for run in runs if run.state == RunState.CANCELLING]
    expired = [(run, _TOO_LATE) for run in runs if run.state != RunState.CANCELLING]
    for ends, state in ((cancelled, RunState.CANCELLED), (expired, RunState.EXPIRED)):
        if ends:
            lifecycle.close_waiting(ends, state)
    # Whoever works on one of them hears at once that it is not theirs any more, and kills its sandbox.
    doorbell.ring_on_commit(doorbell.WORKERS)
    return len(runs)
