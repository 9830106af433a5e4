"""Schedules: made, changed, paused and removed by people. When they fire is ``firing``'s."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import datetime
from typing import Any, Final

from django.db import IntegrityError, transaction

from apps.agents.models import Agent
from apps.core import clock, sql
from apps.core.errors import Conflict, NotFound
from apps.events.services import changes, outbox
from apps.events.types import ActorRef
from apps.identity import policy
from apps.identity.actor import Actor
from apps.projects.models import Project
from apps.runs import cron
from apps.runs.models import Schedule
from apps.runs.services import submission
from apps.runs.services.submission import Submission
from apps.runs.types import Priority, TaskSpec, Timing

_RECORDED: Final = (
    "name",
    "cron",
    "timezone",
    "catch_up",
    "agent",
    "task",
    "submits_as",
    "paused_at",
    "pause_reason",
)


@transaction.atomic
def create(
    *,
    by: Actor,
    project: Project,
    agent: Agent,
    name: str,
    timing: Timing,
    task: TaskSpec,
) -> Schedule:
    """Submit ``task`` at each time that ``timing`` names, as this person, from now on.

    The task is checked as if it were submitted now. Raises ``Invalid``, ``AgentNotReleased``,
    ``Conflict`` when the project has a schedule of that name, ``NotAllowed``.
    """
    _require(by, project)
    submission.check(project=project, agent=agent, task=task)
    schedule = Schedule(
        organization_id=project.organization_id,
        project=project,
        agent=agent,
        submits_as=by.user,
        name=name,
        task=as_json(task),
        **asdict(timing),
        next_at=_next(timing),
    )
    _store(schedule, force_insert=True)
    _audit(by, "schedule.create", schedule, after=changes.of(schedule, *_RECORDED))
    return schedule


@transaction.atomic
def change(
    *,
    by: Actor,
    schedule: Schedule,
    agent: Agent | None = None,
    name: str | None = None,
    timing: Timing | None = None,
    task: TaskSpec | None = None,
) -> Schedule:
    """Change what is given.

    From now on it submits as the person who changed it, so nobody can make another one's rights work
    for them. Raises what ``create`` raises.
    """
    row = _locked(by, schedule)
    before = changes.of(row, *_RECORDED)
    row.agent = agent or row.agent
    row.name = name or row.name
    timing = timing or row.timing
    row.cron, row.timezone, row.catch_up = timing.cron, timing.timezone, timing.catch_up
    row.task = as_json(task) if task else row.task
    row.submits_as = by.user
    due = _next(timing)
    submission.check(project=row.project, agent=row.agent, task=task_of(row))
    row.next_at = due if row.paused_at is None else None
    _store(row)
    _audit(by, "schedule.change", row, before=before, after=changes.of(row, *_RECORDED))
    return row


@transaction.atomic
def pause(*, by: Actor, schedule: Schedule, reason: str = "") -> Schedule:
    """Let no further time count, until it is resumed. Pausing twice is harmless."""
    row = _locked(by, schedule)
    if row.paused_at is None:
        halt(row, by=by.ref, reason=reason or f"by {by.user.username}")
    return row


def halt(row: Schedule, *, by: ActorRef, reason: str) -> None:
    """Pause a locked row for a person or for the engine itself, which found that it cannot go on."""
    before = changes.of(row, *_RECORDED)
    row.paused_at, row.next_at, row.pause_reason = clock.now(), None, reason[:200]
    row.save(update_fields=["paused_at", "next_at", "pause_reason", "updated_at"])
    outbox.audit(
        by,
        "schedule.pause",
        resource_type="schedule",
        resource_id=row.pk,
        before=before,
        after=changes.of(row, *_RECORDED),
    )


@transaction.atomic
def resume(*, by: Actor, schedule: Schedule) -> Schedule:
    """Go on with the next time. What passed during the pause is not caught up."""
    row = _locked(by, schedule)
    if row.paused_at is None:
        return row
    before = changes.of(row, *_RECORDED)
    row.paused_at, row.pause_reason, row.submits_as = None, "", by.user
    row.next_at = _next(row.timing)
    _store(row)
    _audit(by, "schedule.resume", row, before=before, after=changes.of(row, *_RECORDED))
    return row


@transaction.atomic
def remove(*, by: Actor, schedule: Schedule) -> None:
    """Delete it with its record of fires. The runs it made stay."""
    discard(_locked(by, schedule), by=by)


def discard(row: Schedule, *, by: Actor) -> None:
    """Delete a locked row, for somebody who may: also who deletes the agent that it runs."""
    _audit(by, "schedule.remove", row, before=changes.of(row, *_RECORDED))
    row.delete()


def run_now(*, by: Actor, schedule: Schedule, key: str | None = None) -> Submission:
    """Submit its task once, as oneself, besides its times."""
    return submission.submit(
        by=by, project=schedule.project, agent=schedule.agent, task=task_of(schedule), key=key
    )


def task_of(schedule: Schedule) -> TaskSpec:
    return TaskSpec(**schedule.task | {"priority": Priority(schedule.task["priority"])})


def task_with(schedule: Schedule, **fields: Any) -> TaskSpec:
    """Its task with some fields changed."""
    return replace(task_of(schedule), **fields)


def as_json(task: TaskSpec) -> dict[str, Any]:
    return {
        "input": task.input,
        "priority": int(task.priority),
        "queue": task.queue,
        "timeout_s": task.timeout_s,
        "queue_deadline_s": task.queue_deadline_s,
        "total_deadline_s": task.total_deadline_s,
        "budget_s": task.budget_s,
        "retry": task.retry,
        "concurrency_key": task.concurrency_key,
        "labels": task.labels,
        "requires": task.requires,
    }


def _next(timing: Timing) -> datetime:
    now = clock.now()
    cron.check(timing.cron, timing.timezone, after=now)
    return cron.following(timing.cron, timing.timezone, after=now)


def _require(by: Actor, project: Project) -> None:
    policy.require(by, "schedule.manage", project_id=project.pk)


def _locked(by: Actor, schedule: Schedule) -> Schedule:
    """The row as it is now, kept from the engine until the commit."""
    _require(by, schedule.project)
    rows = Schedule.objects.visible_to(by.user).select_related("project", "agent__current")
    return rows.select_for_update(of=("self",), no_key=True).get(pk=schedule.pk)


def _store(row: Schedule, **how: Any) -> None:
    try:
        with transaction.atomic():
            row.save(**how or {"force_update": True})
    except IntegrityError as error:
        if sql.violated_constraint(error) == "agents_agent_not_removed":
            raise NotFound(what="agent", ref=row.agent.slug) from error
        if sql.violated_constraint(error) == "runs_schedule_one_name_each":
            raise Conflict(
                reason=f"The project has a schedule {row.name!r} already. Choose another name."
            ) from error
        raise


def _audit(by: Actor, action: str, row: Schedule, **differences: dict[str, Any]) -> None:
    outbox.audit(
        by.ref,
        action,
        resource_type="schedule",
        resource_id=row.pk,
        detail={"name": row.name},
        **differences,
    )
