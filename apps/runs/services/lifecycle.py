"""How attempts and runs end. Used by workers, by people who cancel, and by the engine that cleans up.

Every function runs in a transaction that has locked the run first (see ``sql/queue.sql`` for the
order of locks), so an end is decided once. The receipt is written by one statement and nowhere else.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Final
from uuid import UUID

from django.db import transaction
from django.db.models.functions import Now

from apps.core import doorbell, sql
from apps.core.models import uuid7
from apps.core.postgres import direct
from apps.events import hints
from apps.events.services import outbox
from apps.events.types import EventType, Subject
from apps.runs.models import Artifact, Attempt, ReadyRun, Run, RunLease, ScheduledRun
from apps.runs.services import budgets, dispatch
from apps.runs.services.leadership import SQL
from apps.runs.types import ArtifactData, Entry, Failure, Report, RunState

# The outcome of an attempt whose worker was stopped in an orderly way.
DRAINED: Final = "drained"
_SPENT = Failure(
    code="budget_spent",
    detail="The budget of its tree of runs has nothing left for another attempt.",
)


def lock(run_id: int) -> Run:
    """The run, locked until the end of the transaction. First of all locks, everywhere."""
    return Run.objects.select_for_update(no_key=True).get(pk=run_id)


def lock_many(run_ids: Sequence[int]) -> list[Run]:
    """The runs, locked in the order of their keys, as every statement over several runs does."""
    runs = Run.objects.select_for_update(no_key=True, of=("self",)).filter(pk__in=run_ids)
    return list(runs.select_related("project", "agent_version__agent__current").order_by("pk"))


def lock_free(run_ids: Sequence[int]) -> list[Run]:
    """Those of the runs that nobody else holds the lock on, locked. For the engine, which waits for nobody."""
    runs = Run.objects.select_for_update(no_key=True, skip_locked=True, of=("self",))
    return list(runs.filter(pk__in=run_ids).order_by("pk"))


def lock_if_free(run_id: int) -> Run | None:
    """The run, locked; ``None`` while somebody else holds the lock. For the engine, which waits for nobody."""
    runs = Run.objects.select_for_update(no_key=True, skip_locked=True)
    return runs.filter(pk=run_id).first()


def subject_of(run: Run) -> Subject:
    return Subject(
        organization_id=run.organization_id,
        project_id=run.project_id,
        run_id=run.public_id,
        trace_id=run.trace_id,
    )


def log(run: Run, payload: dict[str, Any]) -> None:
    """Add a line of kind ``run`` to the log of a run that is locked."""
    sql.execute(SQL["log"], {"run_id": run.pk, "payload": json.dumps(payload)})
    tell_on_commit([run.public_id])


def close(
    run: Run,
    state: RunState,
    *,
    failure: Failure | None = None,
    result: dict[str, Any] | None = None,
    artifacts: Sequence[ArtifactData] = (),
) -> None:
    """Bring a locked run to a final state: attempt, artifacts, log, receipt, and no lease left."""
    sql.require_transaction("lifecycle.close")
    _drop_from_queue(run)
    _write_ends(
        [
            _Ending(
                run_id=run.pk,
                state=state,
                result=result,
                error=failure.as_json() if failure else None,
                artifacts=artifacts,
            )
        ]
    )
    run.refresh_from_db(fields=["state", "started_at", "finished_at"])


def close_waiting(ends: Sequence[tuple[Run, Failure]], state: RunState) -> None:
    """Bring many locked runs to a final state, each for its reason; a worker that has one loses it."""
    sql.require_transaction("lifecycle.close_waiting")
    _drop_from_queue(*(run for run, _ in ends))
    _write_ends([_Ending(run_id=run.pk, state=state, error=why.as_json()) for run, why in ends])


def finish(reports: Sequence[Report]) -> frozenset[int]:
    """Write what workers report; return the keys of the runs that were theirs to end."""
    return _write_ends(
        [
            _Ending(
                run_id=report.lease.run_id,
                token=report.lease.token,
                after=report.after,
                state=report.state,
                result=report.result,
                error=report.error,
                isolation=report.isolation,
                lines=report.lines,
                artifacts=report.artifacts,
            )
            for report in reports
        ]
    )


def _write_ends(ends: Sequence[_Ending]) -> frozenset[int]:
    """Write the ends of runs, each with its receipt; return the keys of those that did end."""
    if not any(end.artifacts for end in ends):
        return _end(ends)
    with transaction.atomic():
        ended = _end(ends)
        Artifact.objects.bulk_create(
            Artifact(run_id=end.run_id, **asdict(item))
            for end in ends
            if end.run_id in ended
            for item in end.artifacts
        )
        return ended


def _end(ends: Sequence[_Ending]) -> frozenset[int]:
    rows = direct.fetch(SQL["finish"], {"reports": json.dumps([end.as_json() for end in ends])})
    tell_on_commit([row["public_id"] for row in rows])
    direct.on_commit(partial(doorbell.ring, doorbell.ENGINE))
    return frozenset(row["run_id"] for row in rows)


def tell_on_commit(public_ids: Sequence[UUID]) -> None:
    """Tell whoever watches these runs' logs that they have grown."""
    direct.on_commit(partial(hints.send_run, *public_ids))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ending:
    """One run's end as the statement takes it; without a token when the caller has locked the run."""

    run_id: int
    state: RunState
    token: int | None = None
    after: int | None = None
    result: dict[str, Any] | None = None
    error: dict[str, object] | None = None
    isolation: str | None = None
    lines: Sequence[Entry] = ()
    artifacts: Sequence[ArtifactData] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            "run_id": self.run_id,
            "token": self.token,
            "after": self.after,
            "state": self.state,
            "result": self.result,
            "error": self.error,
            "isolation": self.isolation,
            "lines": [{"kind": line.kind, "payload": line.payload} for line in self.lines],
            "artifacts": [asdict(item) for item in self.artifacts],
            "receipt_id": str(uuid7()),
            "recovery_id": str(uuid7()),
        }


def counted_attempts(run: Run) -> int:
    """Attempts that count against the retry policy: those a drained worker gave back do not."""
    return Attempt.objects.filter(run=run).exclude(outcome=DRAINED).count()


def end_attempt(run: Run, *, outcome: str, error: dict[str, object] | None) -> None:
    """Close the attempt that is open, if there is one."""
    Attempt.objects.filter(run=run, finished_at=None).update(
        finished_at=Now(), outcome=outcome, error=error
    )


def requeue(run: Run, *, delay: timedelta, dispatches: int, why: Failure) -> RunState:
    """Put a locked, running run back in the queue after ``delay``; its lease is gone.

    Where the budget of its tree has nothing left for another attempt it ends instead.
    """
    Run.objects.filter(pk=run.pk).update(state=RunState.QUEUED)
    if not budgets.renew(run):
        close(run, RunState.EXPIRED, failure=_SPENT)
        return RunState.EXPIRED
    if delay:
        ScheduledRun.objects.create(run=run, due_at=Now() + delay, dispatches=dispatches)
    else:
        dispatch.enqueue(
            run_id=run.pk,
            organization_id=run.organization_id,
            queue=run.queue,
            priority=run.priority,
            dispatches=dispatches,
        )
    log(
        run,
        {
            "state": RunState.QUEUED,
            "after_attempt": run.attempts,
            "retry_in_s": round(delay.total_seconds(), 1),
            "error": why.as_json(),
        },
    )
    wait_s = round(delay.total_seconds())
    outbox.emit(
        EventType.RECOVERY_START,
        subject=subject_of(run),
        payload={
            "title": f"{run.name}: trying again",
            "detail": f"Attempt {run.attempts} ended with {why.code}; attempt {run.attempts + 1} "
            f"starts {f'in {wait_s} s' if wait_s > 0 else 'at once'}.",
        },
    )
    return RunState.QUEUED


def _drop_from_queue(*runs: Run) -> None:
    keys = [run.pk for run in runs]
    ReadyRun.objects.filter(run__in=keys).delete()
    ScheduledRun.objects.filter(run__in=keys).delete()
    RunLease.objects.filter(run__in=keys).delete()
