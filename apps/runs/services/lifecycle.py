"""How attempts and runs end. Used by workers, by people who cancel, and by the engine that cleans up.

Every function runs in a transaction that has locked the run first (see ``sql/queue.sql`` for the
order of locks), so an end is decided once. The receipt is written here and nowhere else.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from django.db import transaction
from django.db.models.functions import Now

from apps.core import sql
from apps.events import hints
from apps.events.services import outbox
from apps.events.types import EventType, Severity, Subject
from apps.runs.models import Artifact, Attempt, ReadyRun, Run, RunLease, ScheduledRun
from apps.runs.services import dispatch
from apps.runs.services.leadership import SQL
from apps.runs.types import ArtifactData, Failure, RunState

# The outcome of an attempt whose worker was stopped in an orderly way.
DRAINED: Final = "drained"
_SEVERITY: Final = {
    RunState.SUCCEEDED: Severity.SUCCESS,
    RunState.CANCELLED: Severity.WARNING,
}


def lock(run_id: int) -> Run:
    """The run, locked until the end of the transaction. First of all locks, everywhere."""
    return Run.objects.select_for_update(no_key=True).get(pk=run_id)


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
    public_id = run.public_id
    transaction.on_commit(lambda: hints.send_run(public_id))


def close(
    run: Run,
    state: RunState,
    *,
    failure: Failure | None = None,
    result: dict[str, Any] | None = None,
    artifacts: Sequence[ArtifactData] = (),
) -> None:
    """Bring a locked run to a final state: attempt, artifacts, log, receipt, and no lease left."""
    _drop_from_queue(run)
    error = failure.as_json() if failure else None
    Run.objects.filter(pk=run.pk).update(state=state, error=error, result=result, finished_at=Now())
    end_attempt(run, outcome=state, error=error)
    Artifact.objects.bulk_create(
        Artifact(
            run=run, name=item.name, sha256=item.sha256, size=item.size, media_type=item.media_type
        )
        for item in artifacts
    )
    run.refresh_from_db(fields=["state", "started_at", "finished_at"])
    log(run, {"state": state, "attempt": run.attempts, "error": error})
    if state == RunState.SUCCEEDED and run.attempts > 1:
        _tell_recovered(run)
    outbox.emit(
        EventType.RECEIPT,
        subject=subject_of(run),
        severity=_SEVERITY.get(state, Severity.ERROR),
        payload=_receipt(run, result or {}, error, artifacts),
    )


def counted_attempts(run: Run) -> int:
    """Attempts that count against the retry policy: those a drained worker gave back do not."""
    return Attempt.objects.filter(run=run).exclude(outcome=DRAINED).count()


def end_attempt(run: Run, *, outcome: str, error: dict[str, object] | None) -> None:
    """Close the attempt that is open, if there is one."""
    Attempt.objects.filter(run=run, finished_at=None).update(
        finished_at=Now(), outcome=outcome, error=error
    )


def requeue(run: Run, *, delay: timedelta, dispatches: int, why: Failure) -> None:
    """Put a locked, running run back in the queue after ``delay``; its lease is gone."""
    Run.objects.filter(pk=run.pk).update(state=RunState.QUEUED)
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
    outbox.emit(
        EventType.RECOVERY_START,
        subject=subject_of(run),
        payload={
            "title": f"{run.name}: trying again",
            "detail": f"Attempt {run.attempts} ended with {why.code}; attempt {run.attempts + 1} "
            f"starts in {max(0, round(delay.total_seconds()))} s.",
        },
    )


def _drop_from_queue(run: Run) -> None:
    ReadyRun.objects.filter(run=run).delete()
    ScheduledRun.objects.filter(run=run).delete()
    RunLease.objects.filter(run=run).delete()


def _tell_recovered(run: Run) -> None:
    outbox.emit(
        EventType.RECOVERY_DONE,
        subject=subject_of(run),
        severity=Severity.SUCCESS,
        payload={
            "title": f"{run.name}: recovered",
            "detail": f"Attempt {run.attempts} succeeded.",
        },
    )


def _receipt(
    run: Run,
    result: dict[str, Any],
    error: dict[str, object] | None,
    artifacts: Sequence[ArtifactData],
) -> dict[str, object]:
    return {
        "state": run.state,
        "title": run.name,
        "summary": result.get("summary") or (error or {}).get("detail") or f"Run {run.state}.",
        "facts": result.get("facts", {}),
        "error": error,
        "attempts": run.attempts,
        "duration_s": run.duration_s,
        "isolation": run.isolation,
        "artifacts": [
            {
                "name": item.name,
                "size": item.size,
                "sha256": item.sha256,
                "media_type": item.media_type,
            }
            for item in artifacts
        ],
    }
