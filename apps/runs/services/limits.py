"""Limits as people set them. What they do to runs is ``gates``'s.

A changed limit takes effect with its commit: the database then refuses every claim that was decided before,
and gives places to what runs already (see migration ``0010_limits``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from django.db import IntegrityError, transaction

from apps.agents.models import Agent
from apps.core import clock, doorbell, sql
from apps.core.errors import Conflict, Invalid, NotFound
from apps.events.services import changes, outbox
from apps.identity import policy
from apps.identity.actor import Actor
from apps.projects.models import Project
from apps.runs.limit_models import Limit
from apps.runs.models import Lane, Run
from apps.runs.services import backlog, figures, gates
from apps.runs.services.gates import Rate
from apps.runs.types import LimitScope, Priority

_RECORDED: Final = (
    *("cap", "rate_count", "rate_seconds", "queue_limit"),
    *("paused_at", "pause_reason"),
)
_MOST: Final = 1_000_000
_COUNTED: Final = 1000
LONGEST_RATE_S: Final = 24 * 60 * 60


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a limit is about."""

    scope: LimitScope
    organization_id: UUID
    gate: UUID
    name: str
    columns: Mapping[str, Any] = field(default_factory=dict)

    @property
    def words(self) -> str:
        """As the record and people's pages name it."""
        return f"{self.scope.label.lower()} {self.name}".strip()


def of_organization(organization_id: UUID) -> About:
    return About(
        scope=LimitScope.ORGANIZATION,
        organization_id=organization_id,
        gate=organization_id,
        name="",
    )


def of_project(project: Project) -> About:
    return About(
        scope=LimitScope.PROJECT,
        organization_id=project.organization_id,
        gate=project.pk,
        name=project.slug,
        columns={"project": project},
    )


def of_agent(agent: Agent) -> About:
    return About(
        scope=LimitScope.AGENT,
        organization_id=agent.organization_id,
        gate=agent.pk,
        name=agent.slug,
        columns={"agent": agent},
    )


def of_key(organization_id: UUID, key: str) -> About:
    return About(
        scope=LimitScope.KEY,
        organization_id=organization_id,
        gate=gates.of_key(organization_id, key),
        name=key,
        columns={"key": key},
    )


@transaction.atomic
def put(
    *,
    by: Actor,
    about: About,
    cap: int | None = None,
    rate: Rate | None = None,
    queue_limit: int | None = None,
) -> Limit:
    """Limit what is named, in place of any limit it had; a pause stays. Raises ``Invalid``."""
    _require(by, about)
    _check(about, cap=cap, rate=rate, queue_limit=queue_limit)
    limit = _locked(about)
    before = changes.of(limit, *_RECORDED) if limit else None
    limit = limit or _new(about)
    limit.cap, limit.queue_limit = cap, queue_limit
    backlog.forget()
    limit.rate_count = rate.count if rate else None
    limit.rate_seconds = rate.seconds if rate else None
    _store(limit, is_new=before is None)
    outbox.audit(
        by.ref,
        "limit.change" if before else "limit.set",
        resource_type="limit",
        resource_id=about.words,
        before=before,
        after=changes.of(limit, *_RECORDED),
    )
    doorbell.ring_on_commit(doorbell.ENGINE)
    return limit


@transaction.atomic
def remove(*, by: Actor, about: About) -> None:
    """Take the limit away; a key then lets one run through at a time. A pause stays. Raises ``NotFound``."""
    _require(by, about)
    limit = _locked(about)
    if limit is None:
        raise NotFound(what="limit", ref=about.words)
    before = changes.of(limit, *_RECORDED)
    if limit.paused_at is None:
        limit.delete()
    else:
        limit.cap = limit.rate_count = limit.rate_seconds = limit.queue_limit = None
        _store(limit, is_new=False)
    _audit_remove(by, about, before=before)
    doorbell.ring_on_commit(doorbell.ENGINE)


def discard(*, by: Actor, about: About) -> int:
    """Delete what limits or pauses a thing that goes, for somebody who may delete it; return how many."""
    sql.require_transaction("limits.discard")
    limit = _locked(about)
    if limit is None:
        return 0
    _audit_remove(by, about, before=changes.of(limit, *_RECORDED))
    limit.delete()
    return 1


@transaction.atomic
def set_agent_paused(*, by: Actor, agent: Agent, paused: bool, reason: str = "") -> Limit | None:
    """Let no run of the agent start, or let them start again. Twice is harmless.

    Runs are accepted meanwhile and wait; those that are executed go on. Returns the agent's limit as it is
    then, if there is one left.
    """
    policy.require(by, "agent.pause", agent_id=agent.pk)
    about = of_agent(agent)
    if agent.organization_id != by.user.organization_id:
        raise NotFound(what="agent", ref=agent.slug)
    limit = _locked(about)
    if (limit is not None and limit.paused_at is not None) == paused:
        return limit
    is_new = limit is None
    limit = limit or _new(about)
    before = changes.of(limit, "paused_at", "pause_reason")
    limit.paused_at = clock.now() if paused else None
    limit.pause_reason = reason[:200] if paused else ""
    outbox.audit(
        by.ref,
        "agent.pause" if paused else "agent.resume",
        resource_type="agent",
        resource_id=agent.pk,
        detail={"agent": agent.slug},
        before=before,
        after=changes.of(limit, "paused_at", "pause_reason"),
    )
    doorbell.ring_on_commit(doorbell.ENGINE)
    if paused or limit.cap or limit.rate_count:
        _store(limit, is_new=is_new)
        return limit
    limit.delete()
    return None


@transaction.atomic
def cap_queue(*, by: Actor, queue: str, priority: Priority, cap: int | None) -> Lane:
    """Let at most ``cap`` runs of a queue and class be with workers at once. Raises ``NotFound``."""
    policy.require(by, "limit.manage")
    _check_number("cap", cap)
    lane = (
        Lane.objects.filter(organization_id=by.user.organization_id, queue=queue, priority=priority)
        .select_for_update(no_key=True)
        .first()
    )
    if lane is None:
        raise NotFound(what="queue", ref=f"{queue}/{priority.label}")
    before, lane.cap = lane.cap, cap
    if before != cap:
        lane.save(update_fields=["cap"])
        outbox.audit(
            by.ref,
            "queue.cap",
            resource_type="queue",
            resource_id=f"{queue}/{priority.label}",
            before={"cap": before},
            after={"cap": cap},
        )
        doorbell.ring_on_commit(doorbell.ENGINE)
    return lane


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A limit, and how it stands at this moment. ``parked`` counts up to a thousand."""

    limit: Limit
    in_use: int | None
    next_start_in_s: float | None
    parked: int


def standing(by: Actor, *, only: Limit | None = None) -> list[Standing]:
    """The limits of the actor's organization, or one of them, and how they stand."""
    rows = Limit.objects.visible_to(by.user).select_related("project", "agent")
    found = list(rows.filter(pk=only.pk) if only else rows)
    params = {"gates": [limit.gate for limit in found], "most": _COUNTED}
    stands = {row["gate"]: row for row in sql.fetch(figures.SQL["standing"], params)}
    return [_standing(limit, stands[limit.gate]) for limit in found]


def _standing(limit: Limit, row: Mapping[str, Any]) -> Standing:
    wait_s = None
    if limit.rate is not None:
        wait_s = Rate(**limit.rate).next_in_s(row["ahead_s"] or 0.0) or None
    return Standing(
        limit=limit,
        in_use=row["places"] if limit.cap is not None else None,
        next_start_in_s=wait_s,
        parked=row["parked"],
    )


def why_stopped(run: Run) -> str:
    """Which limit stops a queued run at this moment, as a sentence; empty when none does."""
    lane = Lane.objects.filter(
        organization_id=run.organization_id, queue=run.queue, priority=run.priority
    ).first()
    passed = [run.organization_id, run.project_id, run.agent_version.agent_id]
    if run.concurrency_key:
        passed.append(gates.of_key(run.organization_id, run.concurrency_key))
    found = {limit.gate: limit for limit in Limit.objects.filter(gate__in=passed)}
    params = {"gates": [*passed, *([lane.gate] if lane else [])], "most": 0}
    stands = {row["gate"]: row for row in sql.fetch(figures.SQL["standing"], params)}
    if lane and lane.cap and stands[lane.gate]["places"] >= lane.cap:
        return f"The queue {lane} is at its cap of {lane.cap}."
    for gate in passed:
        limit = found.get(gate)
        if limit is None and gate.version == gates.OF_KEY:
            limit = Limit(scope=LimitScope.KEY, key=run.concurrency_key, cap=gates.KEY_CAP)
        if limit is not None and (why := _why(limit, stands[gate])):
            return why
    return ""


def _why(limit: Limit, row: Mapping[str, Any]) -> str:
    what = f"The {limit.get_scope_display().lower()} {limit.name}".strip()
    if limit.paused_at is not None:
        because = f": {limit.pause_reason}" if limit.pause_reason else ""
        return f"{what} is paused{because}."
    if limit.cap is not None and row["places"] >= limit.cap:
        return f"{what} is at its cap of {limit.cap}."
    if limit.rate is None:
        return ""
    rate = Rate(**limit.rate)
    wait_s = rate.next_in_s(row["ahead_s"] or 0.0)
    if not wait_s:
        return ""
    often = f"{rate.count} starts in {rate.seconds} s"
    return f"{what} may have {often}; the next is in {math.ceil(wait_s)} s."


def _require(by: Actor, about: About) -> None:
    policy.require(by, "limit.manage")
    if about.organization_id != by.user.organization_id:
        raise NotFound(what=about.scope.label.lower(), ref=about.name)


def _check(about: About, *, cap: int | None, rate: Rate | None, queue_limit: int | None) -> None:
    if cap is None and rate is None and queue_limit is None:
        rule = "say at least one of cap, rate and queue_limit, or remove the limit"
        raise Invalid([{"field": "cap", "rule": rule}])
    _check_number("cap", cap)
    _check_number("queue_limit", queue_limit, most=1_000_000_000)
    if queue_limit is not None and about.scope != LimitScope.ORGANIZATION:
        raise Invalid([{"field": "queue_limit", "rule": "only an organization has one"}])
    if rate is not None:
        _check_number("rate.count", rate.count)
        _check_number("rate.seconds", rate.seconds, most=LONGEST_RATE_S)


def _audit_remove(by: Actor, about: About, *, before: dict[str, Any]) -> None:
    outbox.audit(
        by.ref,
        "limit.remove",
        resource_type="limit",
        resource_id=about.words,
        before=before,
    )


def _check_number(field: str, number: int | None, *, most: int = _MOST) -> None:
    if number is not None and not 1 <= number <= most:
        raise Invalid([{"field": field, "rule": f"must be from 1 to {most}"}])


def _new(about: About) -> Limit:
    return Limit(
        organization_id=about.organization_id,
        scope=about.scope,
        gate=about.gate,
        **about.columns,
    )


def _locked(about: About) -> Limit | None:
    rows = Limit.objects.filter(gate=about.gate, organization_id=about.organization_id)
    return rows.select_for_update(no_key=True, of=("self",)).first()


def _store(limit: Limit, *, is_new: bool) -> None:
    if not is_new:
        limit.save(update_fields=[*_RECORDED, "updated_at"])
        return
    try:
        with transaction.atomic():
            limit.save(force_insert=True)
    except IntegrityError as error:
        if sql.violated_constraint(error) == "agents_agent_not_removed":
            raise NotFound(what="agent", ref=limit.name) from error
        reason = "Somebody set this limit at the same moment. Look at it, then try again."
        raise Conflict(reason=reason) from error
