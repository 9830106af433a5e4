"""What the holder of a lease may do. Every act proves the token; a stale holder can do nothing.

Zero rows at any of these acts means ``LeaseLost``: the work must be dropped at once, because its
outcome belongs to whoever holds the run now.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from datetime import timedelta
from functools import lru_cache
from typing import Any
from uuid import UUID

from django.db import transaction

from apps.agents.models import AgentVersion
from apps.core import failpoints, sql
from apps.core.failpoints import Place
from apps.core.postgres import direct
from apps.events import hints
from apps.events.services import outbox
from apps.events.types import EventType, Severity
from apps.runs.errors import LeaseLost
from apps.runs.fleet_models import WorkerNode
from apps.runs.models import Run, RunLease
from apps.runs.services import lifecycle
from apps.runs.services.leadership import SQL
from apps.runs.types import (
    ArtifactData,
    Entry,
    EventKind,
    Failure,
    Lease,
    Report,
    RetryPolicy,
    RunState,
    Started,
)

# Beyond an attempt's own time-out, before the engine takes the run from its worker.
GRACE = timedelta(seconds=30)


def start(*, run_id: int, token: int, worker: WorkerNode) -> Started | None:
    """Take up a dispatched run and get all that is needed to execute it.

    ``None`` when the run was cancelled, handed back or given to another since the message was sent.
    """
    started = start_many([Lease(run_id=run_id, token=token)], worker=worker)
    return started[0] if started else None


def start_many(wanted: Sequence[Lease], *, worker: WorkerNode) -> list[Started]:
    """Take up the dispatched runs of one message; those that are not ours any more are left out."""
    rows = direct.fetch(
        SQL["start"],
        {
            "run_ids": [lease.run_id for lease in wanted],
            "tokens": [lease.token for lease in wanted],
            "worker_id": worker.pk,
            "worker_name": worker.name,
            "pool": worker.pool,
            "grace_s": GRACE.total_seconds(),
        },
    )
    failpoints.hit(Place.STARTED)
    found = {(row.pop("run_id"), row.pop("token")): row for row in rows}
    started = [
        Started(lease=lease, **_agent_of(row["version_id"]), **row)
        for lease in wanted
        if (row := found.get((lease.run_id, lease.token)))
    ]
    hints.send_run(*(each.public_id for each in started))
    return started


@lru_cache(maxsize=64)
def _agent_of(version_id: UUID) -> dict[str, Any]:
    """What the version says. Kept, because a released version never changes: read, not to be written."""
    version = AgentVersion.objects.select_related("agent").get(pk=version_id)
    return {
        "agent_slug": version.agent.slug,
        "agent_kind": version.agent.kind,
        "agent_spec": version.spec,
    }


def finish(reports: Sequence[Report]) -> frozenset[Lease]:
    """Write the ends of a message's runs; return those that were ours to end.

    A report whose lease is gone changes nothing: drop what belongs to it.
    """
    failpoints.hit(Place.FINISHING)
    ended = lifecycle.finish(reports)
    failpoints.hit(Place.FINISHED)
    return frozenset(report.lease for report in reports if report.lease.run_id in ended)


@transaction.atomic
def append(started: Started, entries: Sequence[Entry], *, after: int) -> int:
    """Write lines to the run's log behind ``after``; return the last number used.

    A milestone is a line and a value event at once.
    """
    written = sql.execute(
        SQL["append"],
        {
            "run_id": started.lease.run_id,
            "token": started.lease.token,
            "after": after,
            "kinds": [entry.kind for entry in entries],
            "payloads": [json.dumps(entry.payload) for entry in entries],
        },
    )
    if written != len(entries):
        raise LeaseLost(run_id=started.public_id)
    milestones = [entry for entry in entries if entry.kind == EventKind.MESSAGE]
    if milestones:
        subject = lifecycle.subject_of(Run.objects.get(pk=started.lease.run_id))
        for entry in milestones:
            outbox.emit(EventType.MILESTONE, subject=subject, payload=entry.payload)
    transaction.on_commit(lambda: hints.send_run(started.public_id))
    return after + written


@transaction.atomic
def note_isolation(started: Started, isolation: str) -> None:
    """Say on the run how its commands are kept apart from the host (``docker``, ``none``)."""
    held = RunLease.objects.filter(run=started.lease.run_id, token=started.lease.token)
    if not Run.objects.filter(pk__in=held.values("run_id")).update(isolation=isolation):
        raise LeaseLost(run_id=started.public_id)


def succeed(
    started: Started,
    *,
    result: dict[str, Any],
    after: int | None = None,
    lines: Sequence[Entry] = (),
    artifacts: Sequence[ArtifactData] = (),
) -> None:
    """Finish a run with its result, artifacts and the last lines of its log (behind ``after``)."""
    report = Report(
        lease=started.lease,
        state=RunState.SUCCEEDED,
        after=after,
        result=result,
        lines=lines,
        artifacts=artifacts,
    )
    if not finish([report]):
        raise LeaseLost(run_id=started.public_id)


@transaction.atomic
def fail(started: Started, failure: Failure, *, artifacts: Sequence[ArtifactData] = ()) -> RunState:
    """End the attempt badly: the retry policy decides between another attempt and the end."""
    run, lease = _let_go(started)
    policy = RetryPolicy(**run.retry)
    if run.state == RunState.CANCELLING:
        lifecycle.close(run, RunState.CANCELLED, failure=failure, artifacts=artifacts)
        return RunState.CANCELLED
    if policy.allows(failure, attempt=lifecycle.counted_attempts(run)):
        lifecycle.end_attempt(run, outcome="failed", error=failure.as_json())
        # Spreads a herd of failures; no secret hangs on it.
        delay = policy.delay_s(attempt=run.attempts, dice=random.random())  # noqa: S311
        failpoints.hit(Place.FAILING)
        _tell_of_failure(run, failure)
        return lifecycle.requeue(
            run, delay=timedelta(seconds=delay), dispatches=lease.seq, why=failure
        )
    state = RunState.DEAD if policy.is_for(failure) else RunState.FAILED
    lifecycle.close(run, state, failure=failure, artifacts=artifacts)
    return state


@transaction.atomic
def confirm_cancelled(started: Started, *, artifacts: Sequence[ArtifactData] = ()) -> None:
    """Close a run whose cancellation the worker has carried out."""
    run, _ = _let_go(started)
    lifecycle.close(run, RunState.CANCELLED, failure=CANCELLED, artifacts=artifacts)


CANCELLED = Failure(code="cancelled", detail="The run was cancelled while it was running.")


@transaction.atomic
def give_back(started: Started) -> None:
    """Return a run that a draining worker has not finished, without counting a failure."""
    run, lease = _let_go(started)
    why = Failure(code="worker_drained", detail="Its worker was stopped.", retryable=True)
    if run.state == RunState.CANCELLING:
        lifecycle.close(run, RunState.CANCELLED, failure=CANCELLED)
        return
    lifecycle.end_attempt(run, outcome=lifecycle.DRAINED, error=why.as_json())
    lifecycle.requeue(run, delay=timedelta(0), dispatches=lease.seq, why=why)


def _let_go(started: Started) -> tuple[Run, RunLease]:
    """Lock the run and take its lease away from ourselves, or find that it is not ours."""
    run = lifecycle.lock(started.lease.run_id)
    lease = RunLease.objects.filter(run=run, token=started.lease.token).first()
    if lease is None or not RunLease.objects.filter(token=lease.token).delete()[0]:
        raise LeaseLost(run_id=started.public_id)
    return run, lease


def _tell_of_failure(run: Run, failure: Failure) -> None:
    outbox.emit(
        EventType.ANOMALY,
        subject=lifecycle.subject_of(run),
        severity=Severity.WARNING,
        payload={
            "title": f"{run.name}: attempt {run.attempts} failed",
            "detail": failure.detail,
        },
    )
