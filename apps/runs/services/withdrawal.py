"""Cancelling the runs of somebody who may not run them any more: the leader's part of revocation.

Disabling a person or taking a role away is noted by triggers (``identity.Withdrawal``), in the transaction
of the act; a binding that ends by itself is noticed here. What counts is what is held now: whoever may still
submit the run by another binding keeps it. A revoked token is none of this: a run acts for its person, and
the token was only how they asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.db import transaction
from django.db.models.functions import Now

from apps.core import sql
from apps.events.services import outbox
from apps.events.types import platform
from apps.identity.actor import Actor
from apps.identity.models import User, Withdrawal
from apps.runs.models import Run
from apps.runs.services import control, leadership, lifecycle, submission
from apps.runs.services.leadership import Seat
from apps.runs.types import Failure, RunState

SQL: Final = sql.load("apps.runs.sql", "withdrawal.sql")
# Longer than a submission can take from its question to its commit.
LOOK_AGAIN_S: Final = 30
# At once, so that the leader does not neglect its other duties: the rest follows a second later.
_PEOPLE: Final = 500
_RUNS: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one look came to, and up to which moment ends of bindings were seen."""

    cancelled: int
    until: datetime


def sweep(seat: Seat, *, since: datetime | None) -> Look:
    """Cancel what people may not run any more; ``since`` is the last look's ``until``, if it was ours."""
    until = _note(seat, since)
    due = Withdrawal.objects.filter(due_at__lte=Now()).order_by("due_at", "id")
    rows = list(due.values_list("id", "user_id")[:_PEOPLE])
    if not rows:
        return Look(cancelled=0, until=until)
    cancelled = _cancel_lost(seat, {user_id for _, user_id in rows})
    if cancelled < _RUNS:
        with transaction.atomic():
            leadership.require(seat)
            ids = [pk for pk, _ in rows]
            sql.execute(SQL["done"], {"ids": ids, "again_s": LOOK_AGAIN_S})
    return Look(cancelled=cancelled, until=until)


@transaction.atomic
def _note(seat: Seat, since: datetime | None) -> datetime:
    (row,) = sql.fetch("SELECT clock_timestamp() AS now", {})
    until: datetime = row["now"]
    if since is None:
        leadership.require(seat)
        sql.execute(SQL["note_all"], {})
    else:
        sql.execute(SQL["note_ended"], {"since": since, "until": until})
    return until


def _cancel_lost(seat: Seat, users: set[UUID]) -> int:
    cancelled = 0
    for place in sql.fetch(SQL["open_for"], {"users": list(users)}):
        why = _why(place)
        if why is None:
            continue
        wanted = {
            "user": place["submitted_by_id"],
            "project": place["project_id"],
            "agent": place["agent_id"],
            "limit": _RUNS - cancelled,
        }
        cancelled += sum(_cancel(seat, row["id"], why) for row in sql.fetch(SQL["open_of"], wanted))
        if cancelled >= _RUNS:
            break
    return cancelled


def _why(place: dict[str, Any]) -> str | None:
    """Why this person's runs may not go on there; ``None`` when they may."""
    user = User.objects.get(pk=place["submitted_by_id"])
    if not user.is_active:
        return f"{user.username}, who submitted it, was disabled"
    if submission.may_run(
        Actor(user=user), project_id=place["project_id"], agent_id=place["agent_id"]
    ):
        return None
    return f"{user.username}, who submitted it, has no role here any more that allows it"


@transaction.atomic
def _cancel(seat: Seat, run_id: int, why: str) -> bool:
    leadership.require(seat)
    run = lifecycle.lock(run_id)
    if run.is_over or run.state == RunState.CANCELLING:
        return False
    _stop(run, why)
    outbox.audit(
        platform("engine", organization_id=run.organization_id),
        "run.cancel",
        resource_type="run",
        resource_id=run.public_id,
        detail={"why": why, "submitted_by": run.submitted_by_id},
    )
    return True


def _stop(run: Run, why: str) -> None:
    if run.state == RunState.QUEUED:
        failure = Failure(code="cancelled", detail=f"The run was cancelled: {why}.")
        lifecycle.close(run, RunState.CANCELLED, failure=failure)
    else:
        control.ask_worker(run)
