"""What people may do to a run that exists: cancel it, run it again."""

from __future__ import annotations

from django.db import transaction
from django.db.models.functions import Now

from apps.core import doorbell
from apps.core.rest import references
from apps.events import hints
from apps.events.services import outbox
from apps.identity import policy
from apps.identity.actor import Actor
from apps.identity.models import User
from apps.identity.types import Place, Scope
from apps.runs.errors import RunIsOver
from apps.runs.models import Run, RunLease
from apps.runs.services import lifecycle, submission
from apps.runs.types import Failure, RunState

rerun = submission.rerun

_BEFORE_START = Failure(code="cancelled", detail="The run was cancelled before it started.")


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


def ask_worker(run: Run) -> None:
    """Tell the worker of a locked, running run to stop."""
    Run.objects.filter(pk=run.pk).update(state=RunState.CANCELLING)
    RunLease.objects.filter(run=run).update(cancel_requested_at=Now())
    # No line in the run's log: while a worker holds the run, only it numbers lines.
    public_id = run.public_id
    transaction.on_commit(lambda: hints.send_run(public_id))
    doorbell.ring_on_commit(doorbell.WORKERS)


def place(user: User, ref: str) -> Place:
    """A run as a place of bindings, by its id; raise ``NotFound``."""
    runs = Run.objects.visible_to(user).select_related("agent_version").defer("agent_version__spec")
    run = references.find(runs, ref, what="run", id_field="public_id")
    return Place(scope=Scope.RUN, id=run.public_id, name=run.name, **run.place)
