"""What people may do to a run that exists: cancel it, run it again."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from django.db import transaction
from django.db.models.functions import Now

from apps.core import doorbell, sql
from apps.core.rest import references
from apps.events.services import outbox
from apps.identity import policy
from apps.identity.actor import Actor
from apps.identity.models import User
from apps.identity.types import Place, Scope
from apps.runs.errors import RunIsOver
from apps.runs.models import Run, RunLease
from apps.runs.services import letters, lifecycle, submission
from apps.runs.types import Failure, RunState

rerun = submission.rerun

_BEFORE_START = Failure(code="cancelled", detail="The run was cancelled before it started.")


@transaction.atomic
def requeue(*, by: Actor, run: Run) -> submission.Submission:
    """Put a new run in the place of a dead one, which settles its letter. Twice gives the same run.

    Raises ``NoDeadLetter``, ``LetterSettled`` when it was dismissed, and what ``rerun`` raises.
    """
    letters.require(by, run)
    lifecycle.lock(run.pk)
    if (again := Run.objects.filter(requeue_of__run=run).first()) is not None:
        return submission.Submission(run=again, replayed=True)
    letters.lock(run)
    again = submission.rerun(by=by, run=run).run
    outbox.audit(
        by.ref,
        "run.requeue",
        resource_type="run",
        resource_id=run.public_id,
        detail={"as": str(again.public_id)},
    )
    return submission.Submission(run=again, replayed=False)


@transaction.atomic
def cancel(*, by: Actor, run: Run) -> Run:
    """Stop a run: at once while it waits, through its worker while it runs.

    Cancelling twice is harmless; raises ``RunIsOver`` when the run ended in another way.
    """
    policy.require(by, "run.cancel", **run.place)
    run = lifecycle.lock(run.pk)
    if run.state in {RunState.CANCELLED, RunState.CANCELLING}:
        return run
    if run.is_over:
        raise RunIsOver(state=run.state)
    if run.state == RunState.QUEUED:
        lifecycle.close(run, RunState.CANCELLED, failure=_BEFORE_START)
    else:
        ask_worker(run)
    outbox.audit(by.ref, "run.cancel", resource_type="run", resource_id=run.public_id)
    run.refresh_from_db()
    return run


def cancel_many(*, by: Actor, runs: Sequence[Run], act: UUID) -> list[RunIsOver | None]:
    """Stop locked runs, in the transaction of the bulk act that names them.

    The caller has made sure that the person may. A run that has ended has its error in its place.
    """
    sql.require_transaction("control.cancel_many")
    waiting = [run for run in runs if run.state == RunState.QUEUED]
    held = [run for run in runs if run.state == RunState.RUNNING]
    if waiting:
        lifecycle.close_waiting([(run, _BEFORE_START) for run in waiting], RunState.CANCELLED)
    if held:
        ask_worker(*held)
    if stopped := [*waiting, *held]:
        outbox.audit(
            by.ref,
            "run.cancel_many",
            resource_type="bulk",
            resource_id=act,
            detail={"count": len(stopped), "runs": [str(run.public_id) for run in stopped]},
        )
    return [RunIsOver(state=run.state) if run.is_over else None for run in runs]


def ask_worker(*runs: Run) -> None:
    """Tell the workers of locked, running runs to stop."""
    Run.objects.filter(pk__in=[run.pk for run in runs]).update(state=RunState.CANCELLING)
    RunLease.objects.filter(run__in=[run.pk for run in runs]).update(cancel_requested_at=Now())
    # No line in the runs' logs: while a worker holds a run, only it numbers lines.
    lifecycle.tell_on_commit([run.public_id for run in runs])
    doorbell.ring_on_commit(doorbell.WORKERS)


def place(user: User, ref: str) -> Place:
    """A run as a place of bindings, by its id; raise ``NotFound``."""
    runs = Run.objects.visible_to(user).select_related("agent_version").defer("agent_version__spec")
    run = references.find(runs, ref, what="run", id_field="public_id")
    return Place(scope=Scope.RUN, id=run.public_id, name=run.name, **run.place)
