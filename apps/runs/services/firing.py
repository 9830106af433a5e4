"""Firing schedules: the leader's part. Each time of a schedule counts once.

The leader proves its seat, locks the schedule, submits, and moves the schedule on in one transaction.
Should two engines ever come this far, the unique index over (schedule, time) lets one of them commit.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

from django.conf import settings
from django.db import transaction

from apps.core import clock
from apps.core.errors import AosError
from apps.events import types as events
from apps.events.services import outbox
from apps.identity import policy
from apps.identity.actor import Actor
from apps.runs import cron
from apps.runs.models import Run, Schedule, ScheduleFire
from apps.runs.services import leadership, schedules, submission
from apps.runs.services.leadership import Seat
from apps.runs.types import CatchUp, FireOutcome

# Times of one schedule that one transaction catches up.
_AT_ONCE: Final = 20
_SCHEDULES: Final = 100


def fire(seat: Seat) -> int:
    """Fire what is due; the number of times that were dealt with."""
    due = Schedule.objects.filter(next_at__lte=clock.now()).order_by("next_at")
    return sum(_fire_one(seat, pk) for pk in due.values_list("pk", flat=True)[:_SCHEDULES])


@transaction.atomic
def _fire_one(seat: Seat, pk: UUID) -> int:
    leadership.require(seat)
    now = clock.now()
    rows = Schedule.objects.filter(pk=pk, next_at__lte=now)
    schedule = (
        rows.select_for_update(of=("self",), skip_locked=True, no_key=True)
        .select_related("project", "agent__current", "submits_as")
        .first()
    )
    if schedule is None or schedule.next_at is None:
        return 0
    due, is_late = _times(schedule, schedule.next_at, now)
    if is_late:
        detail = "this time, and those after it up to now, passed while no engine led"
        _note(schedule, schedule.next_at, FireOutcome.MISSED, detail=detail)
    for moment in due:
        if not _submit(schedule, moment):
            return len(due)
    after = due[-1] if due else now
    schedule.next_at = cron.following(schedule.cron, schedule.timezone, after=after)
    schedule.save(update_fields=["next_at"])
    return len(due) + is_late


def _times(schedule: Schedule, first: datetime, now: datetime) -> tuple[list[datetime], bool]:
    """Which times to run, and whether ``first`` is left out."""
    if schedule.catch_up == CatchUp.ALL:
        later = cron.upcoming(schedule.cron, schedule.timezone, after=first, count=_AT_ONCE - 1)
        return [first, *(moment for moment in later if moment <= now)], False
    newest = max(first, cron.latest(schedule.cron, schedule.timezone, until=now))
    if schedule.catch_up == CatchUp.ONE:
        return [newest], False
    # An engine that takes over notices a time a little late; it still counts.
    if newest < now - settings.AOS_SCHEDULE_GRACE:
        return [], True
    return [newest], newest > first


def _submit(schedule: Schedule, moment: datetime) -> bool:
    """Submit the task as the schedule's person; false when the schedule had to be paused."""
    by = Actor(user=schedule.submits_as)
    allowed = by.user.is_active and policy.allows(by, "run.submit", project_id=schedule.project_id)
    if not allowed:
        reason = f"{by.user.username} may no longer submit runs here"
        _note(schedule, moment, FireOutcome.REFUSED, detail=reason)
        engine = events.platform("engine", organization_id=schedule.organization_id)
        schedules.halt(schedule, by=engine, reason=f"{reason}; resume it as yourself")
        return False
    try:
        with transaction.atomic():
            run = submission.submit(
                by=by,
                project=schedule.project,
                agent=schedule.agent,
                task=schedules.task_of(schedule),
            ).run
    except AosError as error:
        _note(schedule, moment, FireOutcome.REFUSED, detail=str(error))
        return True
    _note(schedule, moment, FireOutcome.SUBMITTED, run=run)
    return True


def _note(
    schedule: Schedule,
    moment: datetime,
    outcome: FireOutcome,
    *,
    run: Run | None = None,
    detail: str = "",
) -> None:
    ScheduleFire.objects.create(
        schedule=schedule, fire_at=moment, outcome=outcome, run=run, detail=detail[:500]
    )
    outbox.audit(
        events.platform("engine", organization_id=schedule.organization_id),
        "schedule.fire",
        resource_type="schedule",
        resource_id=schedule.pk,
        detail={
            "at": moment.isoformat(),
            "outcome": outcome,
            "run": str(run.public_id) if run else None,
        },
    )
